"""The services over real records, real files of snapshots and an engine that only pretends."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.adapters.store.pieces.store import PiecesPolicy, SqlitePieces, open_pieces
from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.access import Caller, Scope
from orchestrator.domain.errors import EngineUnavailableError, ImageGoneError, SandboxGoneError, StoreFullError
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import LOCAL_TENANT, ExecutionResult, SandboxRecord, Session, SessionState
from orchestrator.domain.ports import Agent, Engine, OwnedContainer, SandboxImage
from orchestrator.services.equipment import Equipment, Limits
from orchestrator.services.eviction import Eviction
from orchestrator.services.history import Histories
from orchestrator.services.live_session import LiveSession
from orchestrator.services.reaper import Reaper
from orchestrator.services.recovery import recover
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.sessions import Sessions
from orchestrator.services.slots import Ticket
from orchestrator.services.survivors import Sandbox
from orchestrator.services.sweeper import Sweeper
from orchestrator.services.tasks import Tasks
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.settings import Settings
from orchestrator.tenancy import Tenancy
from tests.manual_clock import ManualClock
from tests.unit.pretended_agent import FakeAgent
from tests.unit.pretended_faults import Faults

IMAGE = SandboxImage("image", "e" * 64, "a" * 64, "3.11")
RECORDS_NAME = "records.sqlite3"
OWNER_ENDED = "its owner ended"
# Where an owner was killed, and the next one finds its sandbox gone.
REMOVED = "its container was removed"
SANDBOX_GONE = f"its orchestrator had ended, and its sandbox did not outlive that: {REMOVED}"


class FakeEngine(Engine):
    def __init__(self) -> None:
        self.there: dict[str, FakeAgent] = {}
        self.agents: list[FakeAgent] = []
        self.faults = Faults()
        self.may_launch = asyncio.Event()
        self.may_launch.set()
        self.may_destroy = asyncio.Event()
        self.may_destroy.set()
        self.failures: list[Exception] = []
        self.images: dict[str | None, SandboxImage] = {}
        self.removed_images: list[str] = []
        self.destroyed: list[str] = []
        self.limited: dict[str, SandboxProfile] = {}
        self.unanswered: dict[str, asyncio.Event] = {}
        self.is_away = False  # nobody answers when a sandbox is to be adopted
        self.may_adopt = asyncio.Event()
        self.may_adopt.set()

    def as_it_is(self) -> "FakeEngine":
        """Another engine, with what this one has now: as after a kill of its host."""
        twin = FakeEngine()
        twin.there = {name: agent.as_it_is(twin.faults) for name, agent in self.there.items()}
        twin.images = dict(self.images)
        return twin

    @property
    def agent(self) -> FakeAgent:
        """The last one."""
        return self.agents[-1]

    async def prepare(self, environment: str | None = None) -> SandboxImage:
        return self.images.get(environment, IMAGE)

    async def launch(self, record: SandboxRecord, image: SandboxImage) -> tuple[str, Agent]:
        assert record.image == image.tag
        if image.tag in self.removed_images:
            self.images = {None: IMAGE}
            self.removed_images.remove(image.tag)
            raise ImageGoneError("It is gone.")
        await self.may_launch.wait()
        agent = self.there[record.id] = FakeAgent(self.faults)
        self.agents.append(agent)
        return f"handle-{record.id}", agent

    async def limit(self, sandbox_id: str, profile: SandboxProfile) -> None:
        self.limited[sandbox_id] = profile

    async def adopt(self, record: SandboxRecord) -> tuple[str, Agent]:
        await self.may_adopt.wait()
        if self.is_away:
            raise EngineUnavailableError("No engine answers.")
        agent = self.there.get(record.id)
        if agent is None:
            raise SandboxGoneError("It is gone.", cause="its container was removed")
        if agent.lost is not None and not agent.closed:
            raise SandboxGoneError("It is gone.", cause=agent.lost)
        assert agent.incarnation == record.incarnation
        again = self.there[record.id] = agent.reached_anew(self.faults)
        self.agents.append(again)
        return IMAGE.environment, again

    async def destroy(self, sandbox_id: str) -> None:
        await self.may_destroy.wait()
        self.destroyed.append(sandbox_id)
        if self.failures:
            raise self.failures.pop()
        agent = self.there.pop(sandbox_id, None)
        if agent is not None:
            agent.lose("its container was removed")

    async def create_unanswered(self, sandbox_id: str) -> bool:
        if sandbox_id not in self.unanswered:
            return False
        await self.unanswered.pop(sandbox_id).wait()
        return True

    async def containers(self) -> Sequence[OwnedContainer]:
        return [OwnedContainer(f"handle-{name}", name, True, datetime.now(UTC), False) for name in self.there]

    async def close(self) -> None: ...


class House:
    """The services over the data directory of one test."""

    def __init__(
        self,
        path: Path,
        records: SqliteRecords,
        pieces: SqlitePieces,
        *,
        tasks: Tasks,
        limits: Limits,
        clock: ManualClock,
        sandboxes: int,
        wait: float,
        engine: FakeEngine,
        survivors: Sequence[SandboxRecord],
        settings: Settings,
    ) -> None:
        self.path = path
        self.records = records
        self.pieces = pieces
        self.engine = engine
        self.tasks = tasks
        self.clock = clock
        self.sandboxes = Sandboxes(
            records, self.engine, tasks, limit=sandboxes, wait=wait, survivors=survivors, create_bound=0.3
        )
        equipment = Equipment(records, records, pieces, self.sandboxes, tasks, self.clock, limits, records.upkeep)
        self.sessions = Sessions(self.engine, equipment)
        self.histories = Histories(self.sessions, equipment)
        own = settings.model_copy(update={"data_dir": path})  # where the signing key is made
        self.tenancy = Tenancy.build(own, records, self.sessions, equipment, engine=self.engine, cpus=8)
        self.reaper = Reaper(self.sessions.in_use, tasks, self.clock, limits)
        self.sweeper = Sweeper(self.sessions, self.engine, equipment)
        self.eviction = Eviction(self.sessions.in_use, self.sandboxes, tasks, self.clock)

    @property
    def agent(self) -> FakeAgent:
        return self.engine.agent

    @property
    def faults(self) -> Faults:
        return self.engine.faults

    async def run(self, code: str, session_id: str | None = "s") -> ExecutionResult:
        async with asyncio.timeout(5):
            return await self.sessions.execute(code, session_id=session_id)

    def on_behalf(self, tenant: str, *scopes: Scope) -> TenantSessions:
        caller = Caller(tenant, f"key of {tenant}", "a key", frozenset(scopes or {"use"}))
        return TenantSessions(caller, self.sessions, self.histories, self.tenancy.lookups, self.tenancy.admission)

    async def start(self, environment: str | None = None) -> Sandbox:
        async with self.sandboxes.slot(LOCAL_TENANT, Ticket()) as slot:
            return await self.sandboxes.start(slot, None, 1, environment)

    async def value(self, name: str, session_id: str = "s") -> str | None:
        return (await self.run(name, session_id)).value

    async def live(self, session_id: str = "s") -> LiveSession:
        return await self.sessions.find(session_id)

    async def save(self, session_id: str = "s") -> int:
        return (await self.histories.save(session_id)).sequence

    async def hibernate(self, session_id: str = "s") -> bool:
        async with asyncio.timeout(5):
            return await (await self.live(session_id)).hibernate()

    async def look(self, seconds: float = 0.0) -> None:
        """Move the clock, do what is due, and wait until it is done."""
        self.clock.advance(seconds)
        self.reaper.look()
        await until(self.is_quiet)

    async def sweep(self, seconds: float = 60.0) -> None:
        """Move the clock, and do what is due of what is not in use."""
        self.clock.advance(seconds)
        async with asyncio.timeout(30):
            await self.sweeper.round()

    async def is_quiet(self) -> bool:
        containers = [live.container for live in self.sessions.in_use()]
        saving = any(container is not None and container.saving for container in containers)
        return not saving and not self.reaper._under_way

    async def row(self, session_id: str = "s") -> Session:
        (session,) = [row for row in await self.records.all_sessions() if row.session_id == session_id]
        return session

    def die(self, to: str = "copy") -> Path:
        """What is on the disk at this moment, as a kill would leave it."""
        return shutil.copytree(self.path, self.path.with_name(f"{self.path.name}-{to}"))

    async def assert_nothing_leaks(self) -> None:
        """Nothing is under way, and no session is between two states."""
        await until(self.is_quiet)
        assert not self.pieces._writers
        assert not self.pieces._reading
        awake = {SessionState.READY: 1, SessionState.HIBERNATED: 0}
        sessions = await self.records.all_sessions()
        assert {session.state for session in sessions} <= awake.keys()
        wanted = sum(awake[session.state] for session in sessions)
        await until(lambda: self._sandboxes_are(wanted))
        assert None not in [row.outcome for row in await self.records.executions("local", "s")]

    async def _sandboxes_are(self, wanted: int) -> bool:
        rows = await self.records.sandboxes()
        return len(rows) == len(self.engine.there) == self.sandboxes._slots.held == wanted


@asynccontextmanager
async def house(
    path: Path,
    *,
    limits: Limits | None = None,
    queue: int = 16,
    stop_seconds: float = 5,
    pieces_policy: PiecesPolicy | None = None,
    clock: ManualClock | None = None,
    sandboxes: int = 2,
    wait: float = 0.2,
    engine: FakeEngine | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[House]:
    """An owner's life. Without an engine of an earlier one, what was in its sandboxes is gone."""
    clock = clock or ManualClock()
    policy = pieces_policy or PiecesPolicy(floor_bytes=0)
    before = asyncio.all_tasks()
    async with open_records(path / RECORDS_NAME, clock) as records, open_pieces(path, clock, policy) as pieces:
        survivors = await recover(records, records, pieces, OWNER_ENDED)
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            engine = engine or FakeEngine()
            limits = limits or Limits(queue=queue)
            opened = House(
                path,
                records,
                pieces,
                tasks=tasks,
                limits=limits,
                clock=clock,
                sandboxes=sandboxes,
                wait=wait,
                engine=engine,
                survivors=survivors,
                settings=settings or Settings(max_running=8, sandbox_wait=wait),
            )
            evicting = opened.tasks.spawn(opened.eviction.run(), "make room")
            try:
                yield opened
            finally:
                evicting.cancel()
                await opened.sessions.close(seconds=stop_seconds)
        assert not pieces._writers
        assert not pieces._reading
    assert asyncio.all_tasks() <= before


class FullOnce:
    """A method of a store that fails the first `times`, and then works as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: object, name: str, times: int = 1) -> None:
        self.left = times
        genuine = getattr(store, name)

        async def method(*arguments: object, **named: object) -> object:
            if self.left > 0:
                self.left -= 1
                raise StoreFullError("The disk is full.")
            return await genuine(*arguments, **named)

        monkeypatch.setattr(store, name, method)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never")


async def begun(opened: House, rows: int = 1) -> bool:
    return len(await opened.records.sandboxes()) >= rows


async def closed(opened: House) -> bool:
    return not await begun(opened)


async def runs(opened: House) -> bool:
    return any(agent.ran for agent in opened.engine.agents)


def rows_left(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path / RECORDS_NAME)) as records:
        return records.execute("SELECT id, state FROM sandboxes").fetchall()
