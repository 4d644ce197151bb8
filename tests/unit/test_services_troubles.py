"""Services over the real records, when a write fails, a caller goes away, or the engine does not answer."""

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
    BusyError,
    EngineUnavailableError,
    ImageGoneError,
    OrchestratorError,
    SandboxLostError,
    ShuttingDownError,
    StoreFullError,
)
from orchestrator.domain.model import CellOrder, CellReport, ExecutionResult, Namespace, SandboxRecord, Session
from orchestrator.domain.ports import Agent, AgentHello, Engine, OwnedContainer, SandboxImage
from orchestrator.services import sandboxes as sandboxes_module
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
        lost_before=None,
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


async def begun(opened: House) -> bool:
    return len(await opened.records.sandboxes()) > 0


async def closed(opened: House) -> bool:
    return not await begun(opened)


async def runs(opened: House) -> bool:
    return any(agent.ran for agent in opened.engine.agents)


def rows_left(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path / "records.sqlite3")) as records:
        return records.execute("SELECT id, state FROM sandboxes").fetchall()


@pytest.mark.parametrize("method", ["begin_creating", "open_sandbox", "session_ready", "open_execution"])
async def test_one_failed_write_before_a_cell_costs_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, method)
        with pytest.raises(StoreFullError):
            await opened.run("1")
        for session_id in ("s", "t"):  # both places for sandboxes are free
            assert (await opened.run("2", session_id)).status == "ok"
    assert rows_left(tmp_path) == []


async def test_a_session_whose_hibernation_failed_is_brought_back_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, "open_sandbox")
        FullOnce(monkeypatch, opened.records, "session_hibernated")
        with pytest.raises(StoreFullError):
            await opened.run("1")
        assert (await opened.row()).state == "creating"
        assert (await opened.run("2")).value == "2"


@pytest.mark.parametrize("code", [KILLED, LOST])
@pytest.mark.parametrize("method", ["namespace_lost", "close_execution"])
async def test_a_loss_that_could_not_be_recorded_is_told_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, method: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        FullOnce(monkeypatch, opened.records, method)
        result = await opened.run(code)
        assert result.error is not None
        assert result.error.code in ("oom", "sandbox_lost")
        assert "could not be recorded yet" in result.notes[-1]
        assert "They had left: x." in (await opened.run("3")).notes[0]
        assert (await opened.run("4")).notes == ()
        outcomes = [record.outcome for record in await opened.records.executions("local", "s")]
        assert None not in outcomes


async def test_a_cell_whose_record_could_not_be_written_is_answered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, "close_execution", 2)
        result = await opened.run("1")
        assert (result.status, result.value) == ("ok", "1")
        assert "could not be recorded yet" in result.notes[0]
        with pytest.raises(StoreFullError):
            await opened.run("2")
        assert (await opened.run("3")).execution == 2
        assert [record.outcome for record in await opened.records.executions("local", "s")] == ["ok", "ok"]


async def test_a_loss_stays_untold_until_an_answer_with_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = opened.records.namespace_lost
        held = asyncio.Event()

        async def slow(key: str, incarnation: int, cause: str, *, before: int | None = None) -> object:
            held.set()
            await asyncio.sleep(0.05)
            return await genuine(key, incarnation, cause, before=before)

        monkeypatch.setattr(opened.records, "namespace_lost", slow)
        FullOnce(monkeypatch, opened.records, "loss_told")
        call = asyncio.create_task(opened.run(KILLED))
        await held.wait()
        call.cancel()
        await asyncio.wait([call])
        told = await opened.run("2")  # the first that gets an answer; that it was told cannot be noted
        assert "They had left: x." in told.notes[0]
        assert (await opened.run("3")).notes == ()
        assert (await opened.row()).untold_loss is None


async def test_closing_ends_though_the_engine_is_away_and_leaves_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(3):
        async with house(tmp_path, stop_seconds=0.2) as opened:
            await opened.run("1")
            opened.engine.may_destroy.clear()
    assert [state for _, state in rows_left(tmp_path)] == ["destroying"]
    assert "left to the next owner" in caplog.text


async def test_a_removal_outlives_an_error_that_nobody_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sandboxes_module, "_REMOVAL_PAUSES", (0.01,))
    async with house(tmp_path) as opened:
        opened.engine.failures = [ValueError("odd"), OrchestratorError("away"), KeyError("odd")]
        await opened.run("1", None)
    assert rows_left(tmp_path) == []
    assert "Traceback" in caplog.text


async def test_a_row_whose_caller_went_away_while_it_was_made_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        genuine = opened.records.open_sandbox
        held = asyncio.Event()

        async def slow(image: str) -> SandboxRecord:
            record = await genuine(image)
            held.set()
            await asyncio.sleep(0.05)
            return record

        monkeypatch.setattr(opened.records, "open_sandbox", slow)
        starting = asyncio.create_task(opened.sandboxes.start(None, 1))
        await held.wait()
        starting.cancel()
        await asyncio.wait([starting])
        assert len(await opened.records.sandboxes()) == 1
        await opened.sandboxes.removed(seconds=5)
        assert await opened.records.sandboxes() == []


async def test_a_create_of_a_dead_owner_is_waited_out_before_its_row_closes(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        record = await opened.records.open_sandbox("image")
        await opened.records.recover("its owner died")
        await opened.sandboxes.remove_leftovers()
        await asyncio.sleep(0.1)
        assert opened.engine.destroyed == [record.id]
        assert [row.id for row in await opened.records.sandboxes()] == [record.id]
        opened.engine.there[record.id] = FakeAgent()  # the create has come through
        await opened.sandboxes.remove_leftovers()
        await until(lambda: closed(opened))
        assert opened.engine.there == {}


async def test_a_clear_under_a_start_keeps_the_cell_from_running(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.may_launch.clear()
        call = asyncio.create_task(opened.run(ENDLESS))
        await until(lambda: begun(opened))
        clearing = asyncio.create_task(opened.sessions.clear("s"))
        await asyncio.sleep(0.02)
        opened.engine.may_launch.set()
        result = await call
        await clearing
        assert result.error is not None
        assert result.error.code == "interrupted"
        assert opened.engine.agents[0].ran == []
        assert (await opened.run("2")).execution == 2


async def test_who_has_gone_has_no_place_in_the_queue_and_a_clear_needs_none(tmp_path: Path) -> None:
    async with house(tmp_path, queue=2) as opened:
        running = asyncio.create_task(opened.run(ENDLESS))
        await until(lambda: runs(opened))
        waiting = [asyncio.create_task(opened.run(code)) for code in ("1", "2")]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError):
            await opened.run("3")
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        waiting.append(asyncio.create_task(opened.run("4")))
        await asyncio.sleep(0.05)
        await opened.sessions.clear("s")
        assert (await running).error is not None
        assert [(await call).value for call in waiting[1:]] == ["2", "4"]


async def test_closing_deletes_all_sessions_but_those_with_an_untold_loss(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.records.ensure_session("local", "asleep", "e")
        lossy = await opened.records.ensure_session("local", "lossy", "e")
        creating = await opened.records.begin_creating(lossy.key, 0)
        assert creating is not None
        await opened.records.session_ready(lossy.key, 1)
        assert await opened.records.open_execution(lossy.key, 1) == 1
        await opened.records.recover("its owner died")
        await opened.run("x = 1", "awake")
    async with open_records(tmp_path / "records.sqlite3", SystemClock()) as records:
        (kept,) = await records.all_sessions()
        assert (kept.session_id, kept.state) == ("lossy", "hibernated")


async def test_calls_that_race_with_the_end_are_told_that_it_is_the_end(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.records.ensure_session("local", "s", "e")
        calls = [
            asyncio.create_task(work)
            for work in (
                opened.sessions.list_variables("s"),
                opened.sessions.clear("s"),
                opened.sessions.delete("s"),
                opened.sessions.execute("1", session_id="s"),
            )
        ]
        await asyncio.sleep(0)
        await opened.sessions.close(seconds=1)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, ShuttingDownError) for outcome in outcomes), outcomes
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group)
    with pytest.raises(ShuttingDownError):
        tasks.spawn(asyncio.sleep(0), "late")


async def test_sandbox_says_which_environment_it_got(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        older = opened.engine.images["older"] = SandboxImage("older", "o" * 64, "a" * 64, "3.12")
        kept = await opened.sandboxes.start(None, 1, "older")
        assert (kept.environment, kept.python) == (older.environment, "3.12")
        default = await opened.sandboxes.start(None, 1, "gone")
        assert (default.environment, default.python) == (IMAGE.environment, "3.11")
        for sandbox in (kept, default):
            opened.sandboxes.end(sandbox)


async def test_image_removed_since_it_was_found_is_looked_for_once_more(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.images["older"] = SandboxImage("older", "o" * 64, "a" * 64, "3.12")
        opened.engine.removed_images = ["older"]
        sandbox = await opened.sandboxes.start(None, 1, "older")
        assert sandbox.environment == IMAGE.environment
        await opened.sandboxes.end(sandbox)
        opened.engine.removed_images = [IMAGE.tag, IMAGE.tag]
        with pytest.raises(EngineUnavailableError):
            await opened.sandboxes.start(None, 1)
        both = [await opened.sandboxes.start(None, 1) for _ in range(2)]  # nothing counts that is not there
        for sandbox in both:
            opened.sandboxes.end(sandbox)
    assert opened.engine.there == {}
