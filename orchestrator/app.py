"""The composition root: builds everything, owns every task, and ends things in their order.

`Orchestrator` is the library. The owner process serves the same object.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestrator import __version__
from orchestrator.adapters.data_directory import DataDirectory, Kind
from orchestrator.adapters.engine.failures import IsolationUnmetError
from orchestrator.adapters.store.pieces.store import open_pieces
from orchestrator.adapters.store.records import RECORDS_NAME as RECORDS_NAME  # noqa: PLC0414 - part of the library
from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.access import Caller, Credentials
from orchestrator.domain.comparison import Comparison
from orchestrator.domain.errors import NotEnforcedError, OrchestratorError
from orchestrator.domain.model import ExecutionResult, Namespace, SessionSummary
from orchestrator.domain.ports import Clock, Engine
from orchestrator.domain.snapshots import History, SnapshotSummary
from orchestrator.domain.upkeep import Due
from orchestrator.observing import Observing
from orchestrator.policies import limits_of, pieces_policy_of
from orchestrator.provisioning import build_engine, keep_private
from orchestrator.reloading import Reloading
from orchestrator.services.auditing import Auditing
from orchestrator.services.equipment import Equipment
from orchestrator.services.eviction import Eviction
from orchestrator.services.history import CheckReport, Histories
from orchestrator.services.orders import Operations, Whole
from orchestrator.services.readiness import Readiness
from orchestrator.services.reaper import Reaper
from orchestrator.services.reaping import Reaping
from orchestrator.services.recovery import recover
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.sessions import Sessions
from orchestrator.services.sweeper import Sweeper
from orchestrator.services.tasks import Patience, Tasks
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.services.tenants import Tenants
from orchestrator.settings import Settings
from orchestrator.stored import Store
from orchestrator.tenancy import Tenancy

logger = logging.getLogger(__name__)

_VERIFYING_SECONDS = 20.0  # that a start waits; calls wait on
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
        self.capsules = services.tenancy.capsules
        self._services = services
        self._patience = patience

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None, *, kind: Kind = "library") -> AsyncIterator[Self]:
        """Own the data directory until the block ends, which hibernates its sessions; see `Sessions.close`.

        Settings come from the environment where none are given. The engine need not answer yet: the calls that need
        it say so. One that answers, and does not enforce what a sandbox needs, or cannot isolate it as the settings
        want, is refused here: NotEnforcedError, IsolationUnmetError. Raises OwnedError, naming its pid, where another
        process owns the directory; SettingsError; StoreUnusableError and StoreFullError.
        """
        settings = settings or Settings.load()
        keep_private(settings.runtime_dir)
        socket = settings.owner_socket if kind in ("owner", "server") else None
        directory = DataDirectory.own(settings.data_dir, kind=kind, version=__version__, socket=socket)
        try:
            clock = SystemClock()
            async with (
                open_records(settings.data_dir / RECORDS_NAME, clock) as records,
                open_pieces(settings.data_dir, clock, pieces_policy_of(settings)) as pieces,
            ):
                survivors = await recover(records, records, pieces, _OWNER_GONE)
                observing = Observing(settings, clock)
                engine = observing.measured(build_engine(settings, records, clock))
                patience = Patience()
                try:
                    await _verified(engine)
                    store = Store(records, pieces, survivors, clock)
                    async with _running(settings, store, engine, clock, patience, observing=observing) as services:
                        yield cls(services, patience)
                finally:
                    await _closed(engine, patience)
                    await observing.close()
        finally:
            directory.release()

    def hurry(self) -> None:
        """Let the block end without waiting: sandboxes that are not saved or not removed are left to the next owner."""
        self._patience.lose()

    def on_behalf(self, caller: Caller) -> TenantSessions:
        """The sessions of that caller's tenant, within what the caller may do."""
        services = self._services
        tenancy = services.tenancy
        return TenantSessions(caller, services.sessions, services.histories, tenancy.lookups, tenancy.admission)

    @property
    def credentials(self) -> Credentials:
        """Says whose key that is."""
        return self._services.tenancy.keyring

    @property
    def tenants(self) -> Tenants:
        """Tenants and keys, for the operator."""
        return self._services.tenancy.tenants

    @property
    def audit(self) -> Auditing:
        """Who did what."""
        return self._services.tenancy.audit

    @property
    def reloading(self) -> Reloading:
        """Lets a changed configuration count."""
        return self._services.reloading

    @property
    def operations(self) -> Operations:
        """What operators may order by name."""
        reaping, store = self._services.reaping, self._services.store
        whole = Whole(self.sessions, self.histories, self.on_behalf, self.ready, reaping, self.capsules, store)
        return self._services.tenancy.operations(whole)

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

    async def back_up(self, target: Path) -> None:
        """Make a backup while sessions go on; see `Store.back_up`."""
        await self._services.store.back_up(str(target))

    async def ready(self) -> Mapping[str, bool]:
        """Each part that a call needs, and whether it is there."""
        return await self._services.readiness.look()

    async def figures(self) -> bytes:
        """All figures as they are now, in Prometheus' words."""
        return await self._services.observing.exposition(await self.sessions.all())

    async def due(self) -> Due:
        """What the orchestrator would do by itself if it looked now, and what it withholds and why; changes nothing."""
        return await self._services.reaping.due()


@dataclass(frozen=True, slots=True)
class Services:
    """What serves, while it runs."""

    sessions: Sessions
    histories: Histories
    readiness: Readiness
    observing: Observing
    reaping: Reaping
    tenancy: Tenancy
    reloading: Reloading
    store: Store


@asynccontextmanager
async def _running(
    settings: Settings, store: Store, engine: Engine, clock: Clock, patience: Patience, *, observing: Observing
) -> AsyncIterator[Services]:
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group, patience)
        sandboxes = _sandboxes(settings, store, engine, tasks)
        limits = limits_of(settings)
        records, telemetry = store.records, observing.telemetry
        equipment = Equipment(
            records, records, store.pieces, sandboxes, tasks, clock, limits, records.upkeep, telemetry
        )
        sessions = Sessions(engine, equipment)
        cpus = os.cpu_count() or 1
        tenancy = Tenancy.build(settings, records, sessions, equipment, engine=engine, cpus=cpus)
        reloading = Reloading(settings, limits, sandboxes, tenancy, cpus)
        reaper = Reaper(sessions.in_use, tasks, clock, limits, telemetry)
        sweeper = Sweeper(sessions, engine, equipment, tenancy.errands)
        eviction = Eviction(sessions.in_use, sandboxes, tasks, clock, telemetry)
        background = [
            tasks.spawn(sessions.adopt_all(), "adopt what lives"),
            tasks.spawn(sandboxes.clear_leftovers(), "clear leftovers"),
            tasks.spawn(reaper.run(), "do what is due"),
            tasks.spawn(sweeper.run(), "sweep"),
            tasks.spawn(eviction.run(), "make room"),
        ]
        try:
            histories, readiness = Histories(sessions, equipment), Readiness(engine, store.records)
            reaping = Reaping(reaper, sweeper, engine)
            yield Services(sessions, histories, readiness, observing, reaping, tenancy, reloading, store)
        except BaseException as error:  # noqa: BLE001 - raised again below, not wrapped into the group's
            failure = error
        for task in background:
            task.cancel()
        await sessions.close()
        await tenancy.close()
    if failure is not None:
        raise failure


async def _verified(engine: Engine) -> None:
    """Refuse an engine that is known not to isolate sandboxes as it must, before anything is served.

    The first start on an engine, in a boot, for an image and a spec takes a throw-away sandbox, later ones two
    questions. Whatever else is wrong is told to the calls that need the engine, which wait for the same answer.
    """
    try:
        async with asyncio.timeout(_VERIFYING_SECONDS):
            await engine.prepare()
    except (NotEnforcedError, IsolationUnmetError):
        raise
    except OrchestratorError as error:
        logger.warning("whether sandboxes are isolated as they must be is not known yet: %s", error)
    except TimeoutError:
        logger.warning("whether sandboxes are isolated as they must be is not known yet: it takes long to find out")


def _sandboxes(settings: Settings, store: Store, engine: Engine, tasks: Tasks) -> Sandboxes:
    limit, wait = settings.max_sandboxes, settings.sandbox_wait
    return Sandboxes(store.records, engine, tasks, limit=limit, wait=wait, survivors=store.survivors)


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
