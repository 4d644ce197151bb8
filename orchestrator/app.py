"""The composition root: builds everything, owns every task, and ends things in their order.

`Orchestrator` is the library. The owner process serves the same object.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestrator import __version__, places
from orchestrator.adapters.data_directory import DataDirectory, Kind
from orchestrator.adapters.store.pieces.store import PiecesPolicy, open_pieces
from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.ageing import AgeingPolicy
from orchestrator.domain.comparison import Comparison
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.model import ExecutionResult, Namespace, SandboxRecord, SessionSummary
from orchestrator.domain.plan import SavingPolicy
from orchestrator.domain.ports import Clock, Engine
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import History, SnapshotSummary
from orchestrator.domain.upkeep import Due
from orchestrator.provisioning import build_engine
from orchestrator.services.equipment import Equipment, Limits
from orchestrator.services.eviction import Eviction
from orchestrator.services.history import CheckReport, Histories
from orchestrator.services.reaper import Reaper
from orchestrator.services.recovery import recover
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.saving_limits import SavingLimits
from orchestrator.services.sessions import Sessions
from orchestrator.services.sweeper import Sweeper
from orchestrator.services.tasks import Patience, Tasks
from orchestrator.settings import Settings

logger = logging.getLogger(__name__)

RECORDS_NAME = "records.sqlite3"
_OWNER_GONE = "the orchestrator that ran it had ended without closing it"


class Orchestrator:
    """Persistent Python sessions, each in a locked-down container.

    >>> async with Orchestrator.open() as o:
    ...     result = await o.execute("x = 41", session_id="s")
    ...     result = await o.execute("x + 1", session_id="s")
    """

    def __init__(self, services: "Services", patience: Patience) -> None:
        self.sessions = services.sessions
        self.histories = services.histories
        self._services = services
        self._patience = patience

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None, *, kind: Kind = "library") -> AsyncIterator[Self]:
        """Own the data directory until the block ends, which hibernates its sessions; see `Sessions.close`.

        Settings come from the environment where none are given. The engine need not answer yet: the calls that need
        it say so. Raises OwnedError, naming its pid, where another process owns the directory; SettingsError;
        StoreUnusableError and StoreFullError.
        """
        settings = settings or Settings.load()
        _private(settings.runtime_dir)
        socket = settings.owner_socket if kind == "owner" else None
        directory = DataDirectory.own(settings.data_dir, kind=kind, version=__version__, socket=socket)
        try:
            clock = SystemClock()
            async with (
                open_records(settings.data_dir / RECORDS_NAME, clock) as records,
                open_pieces(settings.data_dir, clock, pieces_policy_of(settings)) as pieces,
            ):
                survivors = await recover(records, records, pieces, _OWNER_GONE)
                engine = build_engine(settings, records, clock)
                patience = Patience()
                try:
                    store = Store(records, pieces, survivors)
                    async with _running(settings, store, engine, clock, patience) as services:
                        yield cls(services, patience)
                finally:
                    await _closed(engine, patience)
        finally:
            directory.release()

    def hurry(self) -> None:
        """Let the block end without waiting: sandboxes that are not saved or not removed are left to the next owner."""
        self._patience.lose()

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the cell, enforced in the sandbox
    ) -> ExecutionResult:
        """Run a cell; see `Sessions.execute`."""
        return await self.sessions.execute(code, session_id=session_id, timeout=timeout)

    async def list_variables(self, session_id: str) -> Namespace:
        """What a session's namespace holds; see `Sessions.list_variables`."""
        return await self.sessions.list_variables(session_id)

    async def list_sessions(self) -> Sequence[SessionSummary]:
        """All sessions, oldest first."""
        return await self.sessions.list_sessions()

    async def clear(self, session_id: str) -> None:
        """Empty a session's namespace; see `Sessions.clear`."""
        await self.sessions.clear(session_id)

    async def delete(self, session_id: str) -> None:
        """End a session for good; see `Sessions.delete`."""
        await self.sessions.delete(session_id)

    async def history(self, session_id: str) -> History:
        """A session's snapshots, newest first."""
        return await self.histories.history(session_id)

    async def save(self, session_id: str) -> SnapshotSummary:
        """Save a session now; see `Histories.save`."""
        return await self.histories.save(session_id)

    async def roll_back(self, session_id: str, sequence: int) -> SnapshotSummary:
        """Let a session stand at an earlier snapshot; see `Histories.roll_back`."""
        return await self.histories.roll_back(session_id, sequence)

    async def fork(self, session_id: str, new_id: str, *, sequence: int | None = None) -> SnapshotSummary:
        """Begin a session as a copy of another one's snapshot; see `Histories.fork`."""
        return await self.histories.fork(session_id, new_id, sequence=sequence)

    async def compare(self, session_id: str, before: int, after: int) -> Comparison:
        """What differs between two snapshots of a session; see `Histories.compare`."""
        return await self.histories.compare(session_id, before, after)

    async def check(self) -> CheckReport:
        """Verify all that is stored; see `Histories.check`."""
        return await self.histories.check()

    async def due(self) -> Due:
        """What the orchestrator would do by itself if it looked now, and what it withholds and why; changes nothing."""
        due = await self._services.sweeper.due()
        return Due((*self._services.reaper.due(), *due.actions), due.withheld)


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lies."""

    records: SqliteRecords
    pieces: Pieces
    survivors: Sequence[SandboxRecord]  # what an earlier owner may have left alive


@dataclass(frozen=True, slots=True)
class Services:
    """What serves, while it runs."""

    sessions: Sessions
    histories: Histories
    reaper: Reaper
    sweeper: Sweeper


@asynccontextmanager
async def _running(
    settings: Settings, store: Store, engine: Engine, clock: Clock, patience: Patience
) -> AsyncIterator[Services]:
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group, patience)
        sandboxes = Sandboxes(
            store.records,
            engine,
            tasks,
            limit=settings.max_sandboxes,
            wait=settings.sandbox_wait,
            survivors=store.survivors,
        )
        limits = limits_of(settings)
        equipment = Equipment(
            store.records, store.records, store.pieces, sandboxes, tasks, clock, limits, store.records.upkeep
        )
        sessions = Sessions(engine, equipment)
        reaper = Reaper(sessions.in_use, tasks, clock, limits.policy)
        sweeper = Sweeper(sessions, engine, equipment)
        eviction = Eviction(sessions.in_use, sandboxes, tasks, clock)
        background = [
            tasks.spawn(sessions.adopt_all(), "adopt what lives"),
            tasks.spawn(sandboxes.clear_leftovers(), "clear leftovers"),
            tasks.spawn(reaper.run(), "do what is due"),
            tasks.spawn(sweeper.run(), "sweep"),
            tasks.spawn(eviction.run(), "make room"),
        ]
        try:
            yield Services(sessions, Histories(sessions, equipment), reaper, sweeper)
        except BaseException as error:  # noqa: BLE001 - raised again below, not wrapped into the group's
            failure = error
        for task in background:
            task.cancel()
        await sessions.close()
    if failure is not None:
        raise failure


async def _closed(engine: Engine, patience: Patience) -> None:
    closing = asyncio.create_task(engine.close(), name="close the engine")
    try:
        await patience.wait([closing])
    finally:
        if not closing.done():
            closing.cancel()
        await asyncio.wait([closing])
    if not closing.cancelled():
        closing.result()


def _private(directory: Path) -> None:
    try:
        places.private_directory(str(directory))
    except places.PlaceError as failure:
        raise InvalidRequestError(failure.message, hint=failure.hint) from failure


def limits_of(settings: Settings) -> Limits:
    """What the settings say of each session."""
    return Limits(
        time_limit=settings.default_time_limit,
        grace=settings.interrupt_grace,
        output_head=settings.output_head,
        output_tail=settings.output_tail,
        max_code=settings.max_code,
        queue=settings.queue_limit,
        profile=settings.profile,
        policy=SavingPolicy(
            snapshot_after=settings.snapshot_after,
            snapshot_max_age=settings.snapshot_max_age,
            hibernate_after=settings.hibernate_after,
        ),
        ageing=AgeingPolicy(
            inactive_after=settings.inactive_after or None,
            expire_after=settings.expire_after or None,
            delete_after=settings.delete_after or None,
        ),
        saving=SavingLimits(
            variable=settings.variable_limit,
            session=settings.session_limit,
            restore_bound=settings.restore_bound,
            most_bytes=settings.most_of_a_save,
        ),
    )


def pieces_policy_of(settings: Settings) -> PiecesPolicy:
    """What the settings say of snapshots on the disk."""
    return PiecesPolicy(
        history=settings.snapshot_history,
        floor_bytes=settings.disk_floor,
        limit_bytes=settings.most_of_a_file,
    )
