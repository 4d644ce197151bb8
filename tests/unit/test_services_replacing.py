"""Clear and rollback: nothing older comes back by itself, and a failure leaves everything as it was."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.errors import StoreFullError
from orchestrator.domain.snapshots import SnapshotNotFoundError
from tests.unit.pretended_agent import ENDLESS, KILLED, OPEN_FILE
from tests.unit.pretended_engine import FullOnce, House, house, runs, until
from tests.unit.pretended_faults import Hang, lose


async def lost_sandbox(opened: House) -> None:
    opened.agent.lose("it was removed")


async def test_a_clear_empties_the_namespace_and_keeps_the_files(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.sessions.clear("s")
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        assert opened.agent.files == {"a.txt": "hello"}
        assert len(opened.engine.agents) == 1
        assert (await opened.row()).variable_count == 0


async def test_after_a_clear_nothing_of_the_head_comes_back_but_its_files(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.save()
        await opened.sessions.clear("s")
        await lost_sandbox(opened)
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        assert opened.agent.files == {"a.txt": "hello"}
        await opened.assert_nothing_leaks()


async def test_files_newer_than_the_head_are_saved_soon_after_a_clear(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        await opened.save()
        await opened.run("file a.txt new")
        await opened.sessions.clear("s")
        await opened.look(30)
        await lost_sandbox(opened)
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        assert opened.agent.files == {"a.txt": "new"}


async def test_a_sleeping_session_is_cleared_without_being_woken(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.hibernate()
        await opened.sessions.clear("s")
        assert len(opened.engine.agents) == 1
        assert (await opened.sessions.list_variables("s")).variables == ()
        assert not opened.sessions.in_use()
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        assert opened.agent.files == {"a.txt": "hello"}


async def test_a_clear_takes_along_what_there_was_to_tell(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f'x = 1\nf = "{OPEN_FILE}"')
        await opened.look(3)
        await opened.run("y = 2", "t")
        await lost_sandbox(opened)
        await opened.sessions.clear("t")
        await opened.sessions.clear("s")
        assert (await opened.run("1")).notes == ()
        assert (await opened.run("1", "t")).notes == ()


async def test_a_clear_ends_a_save_under_way_and_what_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("piece", hang)
        opened.clock.advance(3)
        opened.reaper.look()
        await hang.entered.wait()
        running = asyncio.create_task(opened.run(ENDLESS))
        await until(lambda: runs(opened))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            await opened.sessions.clear("s")
        assert (await running).error is not None
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        await opened.assert_nothing_leaks()


async def test_files_newer_than_the_head_are_saved_before_a_clear_is_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        await opened.save()
        await opened.run("file a.txt new")
        await opened.sessions.clear("s")
        await lost_sandbox(opened)
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        assert opened.agent.files == {"a.txt": "new"}


async def test_where_they_cannot_be_saved_a_clear_keeps_those_of_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        await opened.save()
        await opened.run("file a.txt new")
        FullOnce(monkeypatch, opened.pieces, "begin")
        await opened.sessions.clear("s")
        assert await opened.value("x") == "NameError"
        assert opened.agent.files == {"a.txt": "new"}
        await lost_sandbox(opened)
        assert await opened.value("x") == "NameError"
        assert opened.agent.files == {"a.txt": "old"}
        await opened.assert_nothing_leaks()


async def test_a_clear_that_can_save_nothing_at_all_costs_what_no_snapshot_holds_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        FullOnce(monkeypatch, opened.records, "snapshot_committed", times=2)
        with pytest.raises(StoreFullError):
            await opened.sessions.clear("s")
        result = await opened.run("x")
        assert result.value == "1"
        assert "Lost: the effects of execution 2," in result.notes[0]
        await opened.assert_nothing_leaks()


@pytest.mark.parametrize(
    ("method", "asleep"),
    [("intend_replacement", False), ("intend_replacement", True), ("restate", True), ("snapshot_committed", True)],
)
async def test_a_clear_that_fails_before_it_began_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, *, asleep: bool
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("y = 2")
        if asleep:
            await opened.hibernate()
        FullOnce(monkeypatch, opened.pieces if method == "restate" else opened.records, method)
        with pytest.raises(StoreFullError):
            await opened.sessions.clear("s")
        result = await opened.run("y")
        assert (result.value, result.notes) == ("2", ())
        assert await opened.value("x") == "1"
        await opened.look(30)
        await lost_sandbox(opened)
        assert await opened.value("y") == "2"
        await opened.sessions.clear("s")
        assert await opened.value("x") == "NameError"
        await opened.assert_nothing_leaks()


@pytest.mark.parametrize("saved", [False, True])
async def test_a_clear_that_cannot_be_noted_at_once_is_noted_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, saved: bool
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        if saved:
            await opened.save()
        FullOnce(monkeypatch, opened.records, "session_cleared")
        with pytest.raises(StoreFullError):
            await opened.sessions.clear("s")
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        assert (await opened.row()).variable_count == 0


@pytest.mark.parametrize("saved", [False, True])
async def test_a_sandbox_lost_under_a_clear_is_no_loss(tmp_path: Path, *, saved: bool) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        if saved:
            await opened.save()
        opened.faults.at("clear", lose)
        await opened.sessions.clear("s")
        result = await opened.run("x")
        assert (result.value, result.notes) == ("NameError", ())
        await opened.assert_nothing_leaks()


async def test_a_rollback_brings_namespace_and_files_back_and_can_be_rolled_back(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        first = await opened.save()
        await opened.run("x = 2\nfile a.txt new")
        summary = await opened.histories.roll_back("s", first)
        assert (await opened.row()).state == "hibernated"
        result = await opened.run("x")
        assert (result.value, result.notes) == ("1", ())
        assert opened.agent.files == {"a.txt": "old"}
        before = [s.sequence for s in (await opened.histories.history("s")).snapshots if s.sequence < summary.sequence]
        assert len(before) == 2  # what was there was saved
        await opened.histories.roll_back("s", before[0])
        assert await opened.value("x") == "2"
        assert opened.agent.files == {"a.txt": "new"}
        await opened.assert_nothing_leaks()


async def test_a_rollback_forgets_a_loss_of_what_it_replaces(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        first = await opened.save()
        await opened.run("x = 2")
        hang = Hang()
        opened.faults.at("execute", hang)
        call = asyncio.create_task(opened.run(KILLED))
        await hang.entered.wait()
        call.cancel()
        await asyncio.wait([call])
        hang.go.set()
        assert "Lost" in (await opened.sessions.list_variables("s")).notes[0]
        await opened.histories.roll_back("s", first)
        result = await opened.run("x")
        assert (result.value, result.notes) == ("1", ())


@pytest.mark.parametrize("method", ["restate", "snapshot_committed", "intend_replacement"])
async def test_a_rollback_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        first = await opened.save()
        await opened.run("x = 2")
        await opened.hibernate()
        with pytest.raises(SnapshotNotFoundError):
            await opened.histories.roll_back("s", 77)
        FullOnce(monkeypatch, opened.pieces if method == "restate" else opened.records, method)
        with pytest.raises(StoreFullError):
            await opened.histories.roll_back("s", first)
        result = await opened.run("x")
        assert (result.value, result.notes) == ("2", ())
        await opened.assert_nothing_leaks()


async def test_a_rollback_of_what_cannot_be_saved_is_done_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        first = await opened.save()
        await opened.run("x = 2")
        opened.faults.at("report", lose)
        await opened.histories.roll_back("s", first)
        result = await opened.run("x")
        assert result.value == "1"
        (note,) = result.notes
        assert note.startswith("Before the rollback the session could not be saved")
        assert note.endswith("it was saved up to execution 1.")
        await opened.run(KILLED)
        await opened.histories.roll_back("s", first)
        assert (await opened.run("x")).notes == ()
        await opened.assert_nothing_leaks()
