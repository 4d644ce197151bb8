"""What is told as lost is exactly what was lost, and what was told lost never comes back."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.snapshots import StoredSnapshot
from tests.unit.pretended_agent import KILLED, TAKEN_OVER
from tests.unit.pretended_engine import FullOnce, House, house, until
from tests.unit.pretended_faults import Hang, lose, vanish


async def save_under_way(opened: House, hang: Hang, point: str) -> None:
    """The snapshot of the third execution, where the first two are saved and a fourth one has run since."""
    await opened.run("x = 1")
    await opened.run("y = 2")
    await opened.save()
    await opened.run("y = 3")
    opened.faults.at(point, hang)
    opened.clock.advance(30)
    opened.reaper.look()
    await hang.entered.wait()


@pytest.mark.parametrize("point", ["frozen", "piece", "report"])
async def test_a_sandbox_lost_under_a_save_loses_what_came_after_the_head(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as opened:
        hang = Hang()
        await save_under_way(opened, hang, point)
        opened.agent.lose("it was removed")
        result = await opened.run("y")
        assert result.value == "2"
        (note,) = result.notes
        assert note.startswith("Lost: the effects of execution 3, because")
        assert note.endswith("They had left: y.")
        assert result.saved_through == 2
        await opened.assert_nothing_leaks()
    async with house(opened.die()) as again:
        result = await again.run("y")
        assert (result.value, result.notes) == ("2", ())


async def test_what_a_savepoint_has_brought_back_gives_way_to_the_head(tmp_path: Path) -> None:
    """It stands in the worker, into which nothing can be restored: that is emptied first."""
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("y = 2")
        ended = await opened.run(TAKEN_OVER)
        assert (ended.error is not None, ended.saved_through) == (True, 1)
        assert [note.split(",")[0] for note in ended.notes] == ["Lost: the effects of executions 2 to 3"]
        assert await opened.value("x") == "1"
        assert await opened.value("y") == "NameError"


async def test_a_sandbox_lost_while_its_snapshot_becomes_head_loses_what_came_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        hang = Hang()
        await save_under_way(opened, hang, "report")
        genuine = opened.records.snapshot_committed
        committing = asyncio.Event()

        async def slow(key: str, stored: StoredSnapshot) -> bool:
            opened.agent.lose("it was removed")
            committing.set()
            await asyncio.sleep(0.05)
            return await genuine(key, stored)

        monkeypatch.setattr(opened.records, "snapshot_committed", slow)
        await opened.run("x = 4")
        hang.go.set()
        await committing.wait()
        result = await opened.run("y")
        assert result.value == "3"
        assert [note.split(",")[0] for note in result.notes] == ["Lost: the effects of execution 4"]
        assert await opened.value("x") == "1"


async def test_a_snapshot_that_was_told_lost_is_not_found_by_the_next_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("y = 2")
        await opened.save()
        await opened.run("y = 3")
        FullOnce(monkeypatch, opened.records, "snapshot_committed")
        await opened.look(30)  # committed in the file, and never head
        opened.agent.lose("it was removed")
        opened.engine.may_launch.clear()
        listing = await opened.sessions.list_variables("s")
        assert "Lost: the effects of execution 2" in listing.notes[0]
        killed = opened.die()
        opened.engine.may_launch.set()
    async with house(killed) as again:
        result = await again.run("y")
        assert result.value == "2"
        assert "Lost: the effects of execution 2" in result.notes[0]


async def test_a_killed_worker_gets_the_heads_namespace_back_and_the_files_stay(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        await opened.save()
        await opened.run("x = 2\nz = 3\nfile a.txt new")
        killed = await opened.run(KILLED)
        assert killed.error is not None
        assert "The session goes on with what was saved after execution 1" in killed.error.message
        assert killed.notes[0].startswith("Lost: the effects of executions 2 to 3, because a cell reached")
        result = await opened.run("x")
        assert (result.value, result.notes) == ("1", ())
        assert await opened.value("z") == "NameError"
        assert opened.agent.files == {"a.txt": "new"}
        assert [order.section for order in opened.agent.restores] == ["namespace"]
        assert len(opened.engine.agents) == 1


async def test_a_worker_killed_before_anything_was_saved_starts_from_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        killed = await opened.run(KILLED)
        assert killed.error is not None
        assert "The session's namespace is empty now" in killed.error.message
        assert "executions 1 to 2" in killed.notes[0]
        assert await opened.value("x") == "NameError"
        assert opened.agent.restores == []


async def test_a_cell_that_finds_its_worker_gone_runs_once_on_what_was_saved(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        opened.faults.at("execute", vanish)
        result = await opened.run("x")
        assert result.value == "1"
        (note,) = result.notes
        assert note.startswith("Lost: the effects of execution 2, because its process ended between two cells")
        assert opened.agent.ran == ["x = 1", "x = 2", "x"]
        assert result.execution == 3
        assert len(opened.engine.agents) == 1
        await opened.assert_nothing_leaks()


async def test_a_worker_that_goes_again_before_its_cell_takes_the_sandbox_along(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        opened.faults.at("execute", vanish, vanish)
        result = await opened.run("x = 2")
        assert result.error is not None
        assert result.error.code == "sandbox_lost"
        assert await opened.value("x") == "1"
        assert len(opened.engine.agents) == 2
        await opened.assert_nothing_leaks()


async def test_a_full_store_under_a_cell_that_found_its_worker_gone_leaves_the_session_savable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        opened.faults.at("execute", vanish)
        FullOnce(monkeypatch, opened.records, "namespace_lost")
        with pytest.raises(Exception, match="disk is full"):
            await opened.run("x = 3")
        result = await opened.run("x")
        assert result.value == "1"
        assert "Lost: the effects of execution 2," in result.notes[0]
        await opened.assert_nothing_leaks()
        await opened.save()


async def test_a_save_that_finds_the_worker_gone_brings_the_head_back_by_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2\nfile a.txt new")
        opened.faults.at("save", vanish)
        for _ in range(3):  # it finds it gone, says so, and brings it back
            await opened.look(30)
        assert opened.agent.namespace == {"x": 1}
        result = await opened.run("x")
        assert result.value == "1"
        assert [note.split(",")[0] for note in result.notes] == ["Lost: the effects of execution 2"]


async def test_a_listing_that_finds_the_worker_gone_says_what_is_there_now(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("z = 2")
        opened.faults.at("list", vanish)
        listing = await opened.sessions.list_variables("s")
        assert [variable.name for variable in listing.variables] == ["x"]
        assert "Lost: the effects of execution 2" in listing.notes[0]
        assert await opened.value("z") == "NameError"


async def test_a_sandbox_lost_while_it_is_filled_again_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt one")
        await opened.save()
        await opened.run(KILLED)
        opened.faults.at("restore namespace", lose)
        with pytest.raises(Exception, match="gone"):
            await opened.run("x")
        assert await opened.value("x") == "1"
        assert opened.agent.files == {"a.txt": "one"}
        await opened.assert_nothing_leaks()


async def test_two_losses_that_nobody_was_told_of_are_told_as_one(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        opened.agent.lose("the first went")
        await opened.sessions.list_variables("s")
        opened.faults.at("restore namespace", lose)
        hang = Hang()
        opened.faults.at("execute", hang)
        call = asyncio.create_task(opened.run("y = 2"))
        await hang.entered.wait()
        call.cancel()
        await asyncio.wait([call])
        opened.agent.lose("the second went")
        await until(opened.is_quiet)
        result = await opened.run("1")
        assert result.notes[0].startswith("Lost: the effects of executions 1 to 2, because")
        assert (await opened.run("1")).notes == ()
