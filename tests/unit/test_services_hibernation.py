"""Sessions go to sleep whole or not at all, and wake as they were."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.model import ExecutionResult
from orchestrator.services import sessions as sessions_module
from tests.unit.pretended_agent import KILLED
from tests.unit.pretended_engine import RECORDS_NAME, FullOnce, House, closed, house, until
from tests.unit.pretended_faults import Hang, fail, lose, vanish


async def asleep(opened: House) -> bool:
    return (await opened.row()).state == "hibernated"


async def test_an_idle_session_is_saved_and_its_sandbox_removed_and_the_next_call_finds_all(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run('x = 1\ny = "a long text of several pieces"\nfile a.txt hello')
        await opened.look(3)
        await opened.run("x = 2")
        await opened.look(599)
        assert opened.engine.there
        await opened.look(2)
        assert await asleep(opened)
        await until(lambda: closed(opened))
        assert not opened.sessions.in_use()
        result = await opened.run("x")
        assert (result.value, result.notes, result.saved_through) == ("2", (), 2)
        assert await opened.value("y") == '"a long text of several pieces"'
        assert opened.agent.files == {"a.txt": "hello"}
        assert len(opened.engine.agents) == 2
        await opened.assert_nothing_leaks()


async def test_the_last_snapshot_says_that_nothing_follows(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        assert await opened.hibernate()
        assert [order.final for order in opened.agent.orders] == [True]
        assert not await opened.hibernate()  # it sleeps


@pytest.mark.parametrize("point", ["save", "frozen", "piece", "report"])
async def test_a_call_that_comes_meanwhile_is_served_by_the_same_sandbox(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at(point, hang)
        hibernating = asyncio.create_task(opened.hibernate())
        await hang.entered.wait()
        call = asyncio.create_task(opened.run("x"))
        await asyncio.sleep(0.02)
        hang.go.set()
        result = await call
        assert (result.value, result.notes) == ("1", ())
        assert not await hibernating
        assert point == "report" or not opened.agent.sent  # it was not kept waiting for a save that nobody wants
        assert len(opened.engine.agents) == 1
        assert (await opened.row()).state == "ready"
        assert await opened.hibernate()


async def test_a_hibernation_waits_for_a_snapshot_in_the_background_and_saves_what_came_after_it(
    tmp_path: Path,
) -> None:
    """Seen on a busy machine: one that came while the quiet was being saved answered that it was not done."""
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("piece", hang)
        await (await opened.live()).save_when_due(first=False)
        await hang.entered.wait()
        await opened.run("x = 2")
        hibernating = asyncio.create_task(opened.hibernate())
        await asyncio.sleep(0.02)
        assert not hibernating.done()
        hang.go.set()
        assert await hibernating
        assert (await opened.row()).saved_through == 2
        assert await opened.value("x") == "2"
        await opened.assert_nothing_leaks()


async def test_a_call_waits_neither_for_a_snapshot_in_the_background_nor_for_what_waits_for_that(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("piece", hang)
        await (await opened.live()).save_when_due(first=False)
        await hang.entered.wait()
        hibernating = asyncio.create_task(opened.hibernate())
        await asyncio.sleep(0.02)
        assert await opened.value("x") == "1"
        assert not await hibernating
        hang.go.set()
        await until(opened.is_quiet)
        assert opened.agent.sent  # nor did the call end it
        assert (await opened.row()).state == "ready"
        await opened.assert_nothing_leaks()


@pytest.mark.parametrize("first", [True, False])
async def test_a_snapshot_that_is_due_meanwhile_ends_no_hibernation(tmp_path: Path, *, first: bool) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("piece", hang)
        hibernating = asyncio.create_task(opened.hibernate())
        await hang.entered.wait()
        due = asyncio.create_task((await opened.live()).save_when_due(first=first))
        await asyncio.sleep(0.02)
        hang.go.set()
        assert await hibernating
        await due
        assert len(opened.agent.orders) == 1
        assert await asleep(opened)
        await opened.assert_nothing_leaks()


@pytest.mark.parametrize(("method", "saves"), [("session_snapshotting", 0), ("snapshot_committed", 1)])
async def test_a_call_that_comes_while_it_is_recorded_keeps_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, saves: int
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = getattr(opened.records, method)
        calls: list[asyncio.Task[ExecutionResult]] = []

        async def meanwhile(*arguments: object) -> object:
            calls.append(asyncio.create_task(opened.run("x")))
            await asyncio.sleep(0.02)
            return await genuine(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(opened.records, method, meanwhile)
            assert not await opened.hibernate()
        result = await calls[0]
        assert (result.value, result.notes) == ("1", ())
        assert len(opened.engine.agents) == 1
        assert len(opened.agent.orders) == saves


async def test_what_changed_behind_a_hibernation_keeps_its_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = opened.records.hibernate_saved

        async def late(key: str, incarnation: int, activity: int) -> bool:
            with closing(sqlite3.connect(tmp_path / RECORDS_NAME)) as other, other:
                other.execute("UPDATE sessions SET activity = activity + 1")
            return await genuine(key, incarnation, activity)

        monkeypatch.setattr(opened.records, "hibernate_saved", late)
        assert not await opened.hibernate()
        assert (await opened.row()).state == "ready"
        assert await opened.value("x") == "1"
        assert len(opened.engine.agents) == 1


@pytest.mark.parametrize("point", ["save", "piece", "report"])
async def test_a_sandbox_that_could_not_be_saved_stays_and_it_is_told_once(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        opened.faults.at(point, fail)
        await opened.look(601)
        assert (await opened.row()).state == "ready"
        await opened.look(1.9)
        assert len(opened.agent.orders) == 1  # the pause after a failure
        result = await opened.run("x")
        assert result.value == "1"
        assert "could not be saved" in result.notes[0]
        assert (await opened.run("x")).notes == ()
        await opened.look(601)
        assert await asleep(opened)
        await opened.assert_nothing_leaks()


@pytest.mark.parametrize("method", ["session_snapshotting", "snapshot_committed", "hibernate_saved", "begin"])
async def test_a_full_store_keeps_a_sandbox_from_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        FullOnce(monkeypatch, opened.pieces if method == "begin" else opened.records, method)
        assert not await opened.hibernate()
        assert (await opened.row()).state == "ready"
        assert await opened.value("x") == "1"
        assert len(opened.engine.agents) == 1
        assert await opened.hibernate()
        await opened.assert_nothing_leaks()


async def test_a_hibernation_whose_answer_went_missing_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = opened.records.hibernate_saved
        finding = FullOnce(monkeypatch, opened.records, "find_session", 0)

        async def unheard(key: str, incarnation: int, activity: int) -> bool:
            done = await genuine(key, incarnation, activity)
            finding.left = 2  # also when it looks again
            return done

        monkeypatch.setattr(opened.records, "hibernate_saved", unheard)
        await opened.hibernate()
        monkeypatch.undo()
        assert await asleep(opened)
        assert await opened.value("x") == "1"
        await opened.assert_nothing_leaks()


async def test_a_sandbox_lost_while_it_was_saved_for_good_is_told(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        opened.faults.at("piece", lose)
        assert not await opened.hibernate()
        assert await asleep(opened)
        result = await opened.run("x")
        assert result.value == "NameError"
        assert result.notes[0].startswith("Lost: the effects of execution 1, because its sandbox was lost")


async def test_a_session_whose_worker_was_killed_sleeps_with_the_files_that_it_left(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        await opened.save()
        await opened.run("x = 2\nfile a.txt new")
        await opened.run(KILLED)
        await opened.look(601)
        assert await asleep(opened)
        assert await opened.value("x") == "1"
        assert opened.agent.files == {"a.txt": "new"}
        await opened.assert_nothing_leaks()


async def test_a_session_that_lost_all_before_anything_was_saved_sleeps_with_its_files(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt one")
        await opened.run(KILLED)
        opened.agent.lacks = True  # an agent saves no worker that was not given back what it had
        assert await opened.hibernate()
        assert await opened.value("x") == "NameError"
        assert opened.agent.files == {"a.txt": "one"}


async def test_a_worker_that_is_found_gone_by_a_hibernation_is_told_and_its_files_are_kept(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2\nfile a.txt new")
        opened.faults.at("save", vanish)
        assert not await opened.hibernate()
        assert await opened.hibernate()
        result = await opened.run("x")
        assert result.value == "1"
        assert opened.agent.files == {"a.txt": "new"}
        assert "Lost: the effects of execution 2" in result.notes[0]


async def test_a_close_hibernates_and_the_next_owner_finds_all(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.run("x = 2", "t")
    async with house(tmp_path) as opened:
        assert [row.state for row in await opened.sessions.list_sessions()] == ["hibernated"] * 2
        one, two = await opened.run("x"), await opened.run("x", "t")
        assert (one.value, one.notes, two.value, two.notes) == ("1", (), "2", ())


async def test_a_close_waits_for_a_snapshot_under_way_and_saves_what_came_after_it(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("piece", hang)
        opened.clock.advance(3)
        opened.reaper.look()
        await hang.entered.wait()
        await opened.run("x = 2")
        asyncio.get_running_loop().call_later(0.1, hang.go.set)
    async with house(tmp_path) as opened:
        result = await opened.run("x")
        assert (result.value, result.notes) == ("2", ())


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("point", ["save", "piece", "report"])
@pytest.mark.parametrize("in_background", [False, True])
async def test_a_close_ends_in_bounded_time_though_an_agent_hangs_and_the_next_owner_tells_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, *, deaf: bool, in_background: bool
) -> None:
    monkeypatch.setattr(sessions_module, "_ABORT_PATIENCE", 0.3)
    async with asyncio.timeout(4):
        async with house(tmp_path, stop_seconds=0.3) as opened:
            await opened.run("x = 1")
            await opened.save()
            await opened.run("x = 2")
            hang = Hang(deaf=deaf)
            opened.faults.at(point, hang)
            if in_background:
                opened.clock.advance(30)
                opened.reaper.look()
                await hang.entered.wait()
    async with house(tmp_path) as opened:
        result = await opened.run("x")
        assert result.value == "1"
        assert result.notes[0].startswith("Lost: the effects of execution 2, because ")
        assert await opened.value("x") == "1"


async def test_a_close_under_a_wake_loses_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
    async with house(tmp_path, stop_seconds=0.2) as opened:
        hang = Hang()
        opened.faults.at("restore namespace", hang)
        call = asyncio.create_task(opened.run("x"))
        await hang.entered.wait()
    await asyncio.wait([call])
    assert call.exception() is not None
    async with house(tmp_path) as opened:
        result = await opened.run("x")
        assert (result.value, result.notes) == ("1", ())


@pytest.mark.parametrize("section", ["workspace", "namespace"])
async def test_an_interrupt_under_a_wake_is_told_as_that_and_the_next_call_wakes(tmp_path: Path, section: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.sessions.hibernate("s")
        hang = Hang()
        opened.faults.at(f"restore {section}", hang)
        call = asyncio.create_task(opened.on_behalf("local").execute("x = 2", session_id="s"))
        await hang.entered.wait()
        assert await opened.sessions.interrupt("s")
        answer = await call
        assert answer.error is not None
        assert (answer.error.code, answer.execution) == ("interrupted", None)
        result = await opened.run("x")
        assert (result.value, result.execution, result.notes) == ("1", 2, ())
        entries = [record.entry async for record in opened.tenancy.audit.entries(AuditQuery(act="execute"))]
        assert [entry.outcome for entry in entries] == ["interrupted"]
