"""The services over real records and an engine that only pretends: what the tests of their troubles share."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import (
    ImageGoneError,
    SandboxLostError,
    StoreFullError,
)
from orchestrator.domain.model import CellOrder, CellReport, ExecutionResult, Namespace, SandboxRecord, Session
from orchestrator.domain.ports import Agent, AgentHello, Engine, OwnedContainer, SandboxImage
from orchestrator.services.live_session import Equipment, Limits
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.sessions import Sessions
from orchestrator.services.tasks import Tasks

IMAGE = SandboxImage("image", "e" * 64, "a" * 64, "3.11")
KILLED = "killed"  # the code of a cell that takes the namespace with it
LOST = "lost"  # of one that takes the sandbox with it
ENDLESS = "endless"  # of one that ends when it is interrupted


def report_of(order: CellOrder) -> CellReport:
    return CellReport(
        outcome="oom" if order.code == KILLED else "ok",
        output_head="",
        output_tail="",
        output_bytes=0,
        output_left_out=0,
        value=order.code,
        displays=(),
        error_type=None,
        error_message=None,
        traceback=None,
        bound=() if order.code == KILLED else ("x",),
        removed=(),
        variable_count=1,
        duration=0.0,
        namespace_kept=order.code != KILLED,
        notes=(),
    )


class FakeAgent(Agent):
    def __init__(self) -> None:
        self.ran: list[str] = []
        self._lost: str | None = None
        self._ended = asyncio.Event()

    @property
    def hello(self) -> AgentHello:
        return AgentHello("a" * 64, "3.11", 1, 0, None)

    @property
    def lost(self) -> str | None:
        return self._lost

    async def claim(self, session: str, incarnation: int) -> None: ...

    async def execute(self, order: CellOrder) -> CellReport:
        self.ran.append(order.code)
        if order.code == LOST:
            self._lost = "it was killed"
        if order.code == ENDLESS:
            await self._ended.wait()
            self._ended.clear()
            return replace(report_of(order), outcome="interrupted")
        if self._lost is not None:
            raise SandboxLostError(self._lost)
        return report_of(order)

    def interrupt(self, execution: int) -> None:  # noqa: ARG002 - the port's
        self._ended.set()

    async def list_variables(self) -> Namespace:
        return Namespace((), ())

    async def clear(self) -> None: ...

    async def close(self) -> None:
        self._lost = self._lost or "closed"
        self._ended.set()


class FakeEngine(Engine):
    def __init__(self) -> None:
        self.there: dict[str, FakeAgent] = {}
        self.agents: list[FakeAgent] = []
        self.may_launch = asyncio.Event()
        self.may_launch.set()
        self.may_destroy = asyncio.Event()
        self.may_destroy.set()
        self.failures: list[Exception] = []
        self.images: dict[str | None, SandboxImage] = {}
        self.removed_images: list[str] = []
        self.destroyed: list[str] = []

    async def prepare(self, environment: str | None = None) -> SandboxImage:
        return self.images.get(environment, IMAGE)

    async def launch(self, record: SandboxRecord, image: SandboxImage) -> tuple[str, Agent]:
        assert record.image == image.tag
        if image.tag in self.removed_images:
            self.images = {None: IMAGE}
            self.removed_images.remove(image.tag)
            raise ImageGoneError("It is gone.")
        await self.may_launch.wait()
        agent = self.there[record.id] = FakeAgent()
        self.agents.append(agent)
        return f"handle-{record.id}", agent

    async def destroy(self, sandbox_id: str) -> None:
        await self.may_destroy.wait()
        self.destroyed.append(sandbox_id)
        if self.failures:
            raise self.failures.pop()
        self.there.pop(sandbox_id, None)

    async def containers(self) -> Sequence[OwnedContainer]:
        return [OwnedContainer(f"handle-{name}", name, True, datetime.now(UTC), False) for name in self.there]

    async def close(self) -> None: ...


class House:
    """The services over the records of one file."""

    def __init__(self, records: SqliteRecords, engine: FakeEngine, tasks: Tasks, limits: Limits) -> None:
        self.records = records
        self.engine = engine
        self.tasks = tasks
        self.sandboxes = Sandboxes(records, engine, tasks, limit=2, create_bound=0.3)
        equipment = Equipment(records, self.sandboxes, tasks, SystemClock(), limits)
        self.sessions = Sessions(engine, equipment)

    async def run(self, code: str, session_id: str | None = "s") -> ExecutionResult:
        async with asyncio.timeout(5):
            return await self.sessions.execute(code, session_id=session_id)

    async def row(self) -> Session:
        (session,) = await self.records.all_sessions()
        return session


@asynccontextmanager
async def house(path: Path, *, queue: int = 16, stop_seconds: float = 5) -> AsyncIterator[House]:
    async with open_records(path / "records.sqlite3", SystemClock()) as records, asyncio.TaskGroup() as group:
        opened = House(records, FakeEngine(), Tasks(group), Limits(queue=queue))
        try:
            yield opened
        finally:
            await opened.sessions.close(seconds=stop_seconds)


class FullOnce:
    """A method of the records that fails the first `times`, and then works as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, records: SqliteRecords, name: str, times: int = 1) -> None:
        self.left = times
        genuine = getattr(records, name)

        async def method(*arguments: object, **named: object) -> object:
            if self.left > 0:
                self.left -= 1
                raise StoreFullError("The disk is full.")
            return await genuine(*arguments, **named)

        monkeypatch.setattr(records, name, method)


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
    with closing(sqlite3.connect(path / "records.sqlite3")) as records:
        return records.execute("SELECT id, state FROM sandboxes").fetchall()
