"""`UpkeepRecords` over the records' connection: each method one function in its thread."""

from collections.abc import Collection, Mapping, Sequence

from orchestrator.adapters.store import ageing, strays
from orchestrator.adapters.store.connection import RecordsConnection
from orchestrator.adapters.store.maintenance import Maintenance
from orchestrator.domain.ageing import AgedSession, AgeingCounts
from orchestrator.domain.model import SessionState
from orchestrator.domain.strays import HeldSandbox, OpenExecution, SessionBetween
from orchestrator.domain.ticks import Counted
from orchestrator.domain.upkeep import Maintained, UpkeepRecords


class SqliteUpkeep(UpkeepRecords):
    """Part of `SqliteRecords`, which makes it."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection
        self._maintenance = Maintenance(connection)

    async def counted(self) -> Counted:
        """As of the last accepted tick."""
        return await self._db.read(ageing.counted)

    async def count(self, counted: Counted, *, late: float = 0.0, began_at: float = 0.0) -> None:
        """Note it, and stamp anew what was used since the last tick."""
        await self._db.write(lambda tx: ageing.count(tx, counted, late, began_at))

    async def unused(self, tenant: str) -> Mapping[str, float]:
        """By key: the seconds that have counted since the last use."""
        return await self._db.read(lambda tx: ageing.unused(tx, tenant))

    async def aged(
        self, state: SessionState, seconds: float, *, after: AgedSession | None = None, limit: int = 100
    ) -> Sequence[AgedSession]:
        """A page of the sessions of that age."""
        return await self._db.read(lambda tx: ageing.aged(tx, state, seconds, after, limit))

    async def ageing_counts(self, seconds: float) -> AgeingCounts:
        """How many there are, and how many would expire."""
        return await self._db.read(lambda tx: ageing.counts(tx, seconds))

    async def age(self, session: AgedSession, target: SessionState) -> bool:
        """The guarded change of a session that is still as it was seen."""
        return await self._db.write(lambda tx: ageing.age(tx, session, target))

    async def spare(self, session: AgedSession) -> bool:
        """The guarded change back from `destroying`."""
        return await self._db.write(lambda tx: ageing.spare(tx, session))

    async def used(self, key: str) -> None:
        """Somebody uses the session."""
        await self._db.write(lambda tx: ageing.use(tx, key))

    async def between(self) -> Sequence[SessionBetween]:
        """All sessions that are not asleep."""
        return await self._db.read(strays.between)

    async def open_executions(self) -> Sequence[OpenExecution]:
        """All executions that have not ended."""
        return await self._db.read(strays.open_executions)

    async def abandon_executions(self, key: str, incarnation: int) -> int:
        """Close a session's open executions as unknown."""
        return await self._db.write(lambda tx: strays.abandon(tx, key, incarnation))

    async def held_sandboxes(self) -> Sequence[HeldSandbox]:
        """All sandboxes, with what their sessions say."""
        return await self._db.read(strays.held_sandboxes)

    async def unknown(self, keys: Collection[str]) -> frozenset[str]:
        """Which of those keys no session has."""
        return await self._db.read(lambda tx: strays.unknown(tx, keys))

    async def maintain(self) -> Maintained:
        """One small step of maintenance."""
        return await self._maintenance.step()
