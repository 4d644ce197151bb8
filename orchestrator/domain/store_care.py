"""What operators do with all that is stored, as a contract."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.upkeep import Maintained

Told = Callable[[int, int], None]
"""Given how many sessions are copied, of how many."""


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table of the records."""

    name: str
    rows: int
    bytes: int | None  # with its indexes; None where SQLite was built without the means to tell


@dataclass(frozen=True, slots=True)
class StoreSizes:
    """What the records and the sessions' files take, in bytes."""

    schema: int
    records: int
    log: int  # of changes that have yet to be copied into the records
    free: int  # in the records, for what comes next
    tables: tuple[TableSize, ...]
    files: Mapping[str, int]  # by the key of a session


class StoreCare(Protocol):
    """Calls may run concurrently, and hold up no other call. All raise StoreUnreachableError where the disk fails."""

    async def faults(self) -> Sequence[str]:
        """What is wrong with the records as a database, in SQLite's words; reads all of them."""

    async def sizes(self) -> StoreSizes:
        """As of now."""

    async def maintain(self) -> Maintained:
        """One small step towards smaller records. Does nothing while they are in use."""

    async def collect(self, key: str) -> bool:
        """One step, of some ten MiB, towards a smaller file of that session; whether there is more to be done."""

    async def back_up(self, target: str, told: Told | None = None) -> None:
        """Make the directory `target`, which appears whole or not at all; a kill leaves one that ends in `.partial`.

        Raises InvalidRequestError where it is there already, StoreFullError.
        """
