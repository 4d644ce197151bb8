"""Where everything of a data directory lies, while it is owned, and how it is looked at and backed up."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.store import care
from orchestrator.adapters.store.backup import back_up
from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME, SqlitePieces
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import Clock
from orchestrator.domain.store_care import StoreCare, StoreSizes, Told
from orchestrator.domain.upkeep import Maintained

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Store(StoreCare):
    """Opened by the owner."""

    records: SqliteRecords
    pieces: SqlitePieces
    survivors: Sequence[SandboxRecord]  # what an earlier owner may have left alive
    clock: Clock

    async def faults(self) -> Sequence[str]:
        """What is wrong with the records as a database."""
        return await in_thread(partial(care.faults_of, self.records.path), "records-faults")

    async def sizes(self) -> StoreSizes:
        """What takes how much."""
        path = self.records.path
        return await in_thread(partial(care.sizes_of, path, path.parent / DIRECTORY_NAME), "records-sizes")

    async def maintain(self) -> Maintained:
        """One step towards smaller records."""
        return await self.records.upkeep.maintain()

    async def collect(self, key: str) -> bool:
        """One step towards a smaller file; whether there is more."""
        return (await self.pieces.collect(key)).more

    async def back_up(self, target: str, told: Told | None = None) -> None:
        """Make the directory `target`; `told` hears how many sessions are copied, of how many.

        Raises InvalidRequestError where it is there already, StoreFullError, StoreUnreachableError.
        """
        await back_up(self.records.path, self.pieces, Path(target), self.clock.now(), told or _untold)
        logger.info("a backup was made in %s", target)


def _untold(_done: int, _total: int) -> None:
    return
