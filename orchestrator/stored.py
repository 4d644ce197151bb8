"""Where everything of a data directory lies, while it is owned, and how it is backed up."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.store.backup import Told, back_up
from orchestrator.adapters.store.pieces.store import SqlitePieces
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import Clock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Store:
    """Opened by the owner."""

    records: SqliteRecords
    pieces: SqlitePieces
    survivors: Sequence[SandboxRecord]  # what an earlier owner may have left alive
    clock: Clock

    async def back_up(self, target: Path, told: Told | None = None) -> None:
        """Make the directory `target`; `told` hears how many sessions are copied, of how many.

        Raises InvalidRequestError where it is there already, StoreFullError, StoreUnreachableError.
        """
        await back_up(self.records.path, self.pieces, target, self.clock.now(), told or _untold)
        logger.info("a backup was made in %s", target)


def _untold(_done: int, _total: int) -> None:
    return
