"""Services over the real records, when a caller goes away, the engine does not answer, or the end comes."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import BusyError, EngineUnavailableError, OrchestratorError, ShuttingDownError
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import SandboxImage
from orchestrator.services import sandboxes as sandboxes_module
from orchestrator.services.tasks import Tasks
from tests.unit.pretended_agent import ENDLESS, FakeAgent
from tests.unit.pretended_engine import IMAGE, begun, closed, house, rows_left, runs, until
from tests.unit.pretended_faults import Faults


async def test_closing_ends_though_the_engine_is_away_and_leaves_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(30):
        async with house(tmp_path, stop_seconds=0.2) as opened:
            await opened.run("1")
            opened.engine.may_destroy.clear()
    assert [state for _, state in rows_left(tmp_path)] == ["destroying"]
    assert "left to the next owner" in caplog.text


async def test_who_loses_patience_waits_for_no_engine_and_the_rows_stay_for_the_next_owner(tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        async with house(tmp_path, stop_seconds=60) as opened:
            await opened.run("1")
            opened.engine.may_launch.clear()  # one that is just being made
            starting = asyncio.create_task(opened.run("3", "t"))
            await until(lambda: begun(opened, 2))
            opened.engine.may_destroy.clear()
            asyncio.get_running_loop().call_later(0.2, opened.tasks.patience.lose)
    with pytest.raises(ShuttingDownError):
        await starting
    assert [state for _, state in rows_left(tmp_path)] == ["destroying"] * 2
    async with house(tmp_path) as opened:
        await opened.records.recover("its owner ended")
        await opened.sandboxes.remove_leftovers()
        await until(lambda: closed(opened))


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
        starting = asyncio.create_task(opened.start())
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
        opened.engine.there[record.id] = FakeAgent(Faults())  # the create has come through
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


async def test_closing_hibernates_all_sessions_and_an_untold_loss_stays_to_be_told(tmp_path: Path) -> None:
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
        kept = {session.session_id: session for session in await records.all_sessions()}
        assert {name: session.state for name, session in kept.items()} == dict.fromkeys(
            ("asleep", "lossy", "awake"), "hibernated"
        )
        assert [name for name, session in kept.items() if session.untold_loss is not None] == ["lossy"]
        assert kept["awake"].saved_through == 1
    async with house(tmp_path) as opened:
        assert await opened.value("x", "awake") == "1"
        assert "Lost: the effects of execution 1" in (await opened.run("1", "lossy")).notes[0]


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
                opened.sessions.execute("1"),  # its task has not taken its first step
            )
        ]
        await asyncio.sleep(0)
        await opened.sessions.close(seconds=1)
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, ShuttingDownError) for outcome in outcomes), outcomes
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group)
    with pytest.raises(ShuttingDownError):
        tasks.spawn(asyncio.sleep(0), "late")


async def test_sandbox_says_which_environment_it_got(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        older = opened.engine.images["older"] = SandboxImage("older", "o" * 64, "a" * 64, "3.12")
        kept = await opened.start("older")
        assert (kept.environment, kept.python) == (older.environment, "3.12")
        default = await opened.start("gone")
        assert (default.environment, default.python) == (IMAGE.environment, "3.11")
        for sandbox in (kept, default):
            opened.sandboxes.end(sandbox)


async def test_image_removed_since_it_was_found_is_looked_for_once_more(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.images["older"] = SandboxImage("older", "o" * 64, "a" * 64, "3.12")
        opened.engine.removed_images = ["older"]
        sandbox = await opened.start("older")
        assert sandbox.environment == IMAGE.environment
        await opened.sandboxes.end(sandbox)
        opened.engine.removed_images = [IMAGE.tag, IMAGE.tag]
        with pytest.raises(EngineUnavailableError):
            await opened.start()
        both = [await opened.start() for _ in range(2)]  # nothing counts that is not there
        for sandbox in both:
            opened.sandboxes.end(sandbox)
    assert opened.engine.there == {}
