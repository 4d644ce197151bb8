"""A killed worker's copy goes on where it is the newest that there is; what came after it is told, once."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.model import ResumedFrom
from orchestrator.domain.snapshots import StoredSnapshot
from tests.unit.pretended_agent import FORK, KILLED, KILLED_BACK
from tests.unit.pretended_engine import house
from tests.unit.pretended_faults import Fault, Hang, Sufferer, fall_back, vanish


async def test_a_copy_goes_on_with_what_no_snapshot_holds(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        killed = await opened.run(KILLED_BACK)
        assert killed.error is not None
        assert "The session goes on as it was after execution 1; files in /workspace stay" in killed.error.message
        assert killed.resumed_from == ResumedFrom("savepoint", 1)
        assert killed.notes == ("Lost: the effects of execution 2, because a cell reached the memory limit.",)
        result = await opened.run("x")
        assert (result.value, result.notes, result.resumed_from) == ("1", (), None)
        assert opened.agent.restores == []
        await opened.assert_nothing_leaks()


async def test_what_came_after_an_older_copy_is_told_by_execution_and_name(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\ny = 1\n{FORK}")
        await opened.run("x = 2\ndel y")
        await opened.run("z = 3")
        killed = await opened.run(KILLED_BACK)
        assert killed.resumed_from == ResumedFrom("savepoint", 1)
        (note,) = killed.notes
        assert note == (
            "Lost: the effects of executions 2 to 4, because a cell reached the memory limit. They had left: x, z."
        )
        assert [await opened.value(name) for name in ("x", "y", "z")] == ["1", "1", "NameError"]


async def test_an_execution_is_lost_once_however_often_the_same_copy_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        assert "execution 2," in (await opened.run(KILLED_BACK)).notes[0]
        assert "execution 3," in (await opened.run(KILLED_BACK)).notes[0]
        await opened.run("y = 4")
        assert "executions 4 to 5," in (await opened.run(KILLED_BACK)).notes[0]


async def test_what_a_copy_had_kept_may_still_be_lost(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run(f"x = 2\n{FORK}")
        await opened.run(KILLED_BACK)
        opened.agent.lose("it was removed")
        result = await opened.run("x")
        assert result.value == "1"
        assert result.notes[0].startswith("Lost: the effects of executions 2 to 3, because its sandbox was lost")
        assert result.notes[0].endswith("They had left: x.")


async def test_a_head_that_is_newer_than_the_copy_comes_back_instead(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.run("x = 2")
        await opened.save()
        killed = await opened.run(KILLED_BACK)
        assert killed.resumed_from == ResumedFrom("snapshot", 2)
        assert killed.notes == ("Lost: the effects of execution 3, because a cell reached the memory limit.",)
        assert await opened.value("x") == "2"
        assert [order.section for order in opened.agent.restores] == ["namespace"]


async def test_a_copy_of_a_saved_moment_goes_on_without_a_restore(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.save()
        assert (await opened.run(KILLED_BACK)).resumed_from == ResumedFrom("savepoint", 1)
        assert await opened.value("x") == "1"
        assert opened.agent.restores == []


async def test_a_copy_made_before_any_execution_is_what_the_wake_brought(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        assert await opened.hibernate()
        await opened.run("y = 2")
        opened.agent.savepoint = 0, {"x": 1}
        killed = await opened.run(KILLED_BACK)
        assert killed.resumed_from == ResumedFrom("savepoint", 1)
        assert killed.notes[0].startswith("Lost: the effects of executions 2 to 3")
        assert [await opened.value(name) for name in ("x", "y")] == ["1", "NameError"]


async def test_a_copy_that_took_over_between_two_cells_is_told_of_before_the_next_one_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.run("x = 2")
        opened.faults.at("execute", fall_back)
        result = await opened.run("x")
        assert result.value == "1"
        (note,) = result.notes
        assert note.startswith("Lost: the effects of execution 2, because its process ended between two cells")
        assert opened.agent.ran[-2:] == ["x = 2", "x"]
        assert opened.agent.restores == []


async def test_a_copy_that_took_over_is_listed_and_saved_like_any_worker(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.run("y = 2")
        opened.faults.at("save", fall_back)
        await opened.save()
        assert set((await opened.run("x")).notes) == {
            "Lost: the effects of execution 2, because its process ended between two cells. They had left: y."
        }
        opened.agent.lose("it was removed")
        assert [await opened.value(name) for name in ("x", "y")] == ["1", "NameError"]


async def test_a_copy_found_by_a_save_in_the_background_is_told_of_before_the_next_cell(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.run("x = 2")
        opened.faults.at("save", fall_back)
        await opened.look(30)
        result = await opened.run("x")
        assert result.value == "1"
        assert [note.split(",")[0] for note in result.notes] == ["Lost: the effects of execution 2"]


@pytest.mark.parametrize(("end", "saved", "value"), [(fall_back, False, "1"), (vanish, True, "0")])
async def test_an_end_that_a_save_and_a_cell_on_their_way_both_find_is_one_loss(
    tmp_path: Path, end: Fault, value: str, *, saved: bool
) -> None:
    """The cell is sent before the save's refusal has come. It is no part of the loss, then or later."""
    async with house(tmp_path) as opened:
        await opened.run(f"x = {value}\n{FORK}")
        if saved:
            await opened.save()
        await opened.run("x = 2")
        on_its_way = Hang()

        async def refused_late(agent: Sufferer) -> None:
            await on_its_way(agent)
            await end(agent)

        async def refused(agent: Sufferer) -> None:
            on_its_way.go.set()
            await end(agent)

        opened.faults.at("save", refused_late)
        opened.clock.advance(30)
        opened.reaper.look()
        await on_its_way.entered.wait()
        opened.faults.at("execute", refused)
        result = await opened.run("x")
        assert result.value == value
        assert [note.split(",")[0] for note in result.notes] == ["Lost: the effects of execution 2"]
        await opened.run("y = 4")
        opened.agent.lose("it was removed")
        lost = await opened.run("x")
        assert [note.split(",")[0] for note in lost.notes if note.startswith("Lost")] == [
            f"Lost: the effects of executions {2 if saved else 1} to 4".replace("2 to", "3 to")
        ]


@pytest.mark.parametrize("saved_by", ["a hibernation", "another save"])
async def test_what_a_save_in_the_background_has_found_is_told_before_the_copy_is_saved(
    tmp_path: Path, saved_by: str
) -> None:
    """The next save is due before the first one's refusal has come, and the agent refuses no other for that."""
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.run("x = 2")
        on_its_way = Hang()

        async def refused_late(agent: Sufferer) -> None:
            await on_its_way(agent)
            await fall_back(agent)

        opened.faults.at("save", refused_late)
        await (await opened.live()).save_when_due(first=False)
        await on_its_way.entered.wait()
        asyncio.get_running_loop().call_later(0.05, on_its_way.go.set)
        if saved_by == "a hibernation":
            assert not await opened.hibernate()
        else:
            await opened.save()
        result = await opened.run("x")
        assert result.value == "1"
        assert [note.split(",")[0] for note in result.notes] == ["Lost: the effects of execution 2"]


async def test_a_head_of_which_the_answer_went_missing_is_newer_than_the_copy_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        await opened.run("x = 2")
        genuine = opened.records.snapshot_committed

        async def unheard(key: str, stored: StoredSnapshot) -> bool:
            await genuine(key, stored)
            raise RuntimeError("its answer went missing")

        monkeypatch.setattr(opened.records, "snapshot_committed", unheard)
        await opened.look(30)
        killed = await opened.run(KILLED_BACK)
        assert killed.resumed_from == ResumedFrom("snapshot", 2)
        assert [note.split(",")[0] for note in killed.notes if note.startswith("Lost")] == [
            "Lost: the effects of execution 3"
        ]
        assert await opened.value("x") == "2"


async def test_a_killed_worker_without_a_copy_gets_the_heads_namespace(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        assert (await opened.run(KILLED)).resumed_from == ResumedFrom("snapshot", 1)
        opened.agent.lose("it was removed")
        lost = await opened.run("x")
        assert (lost.value, lost.resumed_from) == ("1", None)


async def test_what_fills_the_memory_is_named_where_that_is_known(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        opened.agent.sizes["x"] = 300 * 1024 * 1024
        killed = await opened.run(KILLED_BACK)
        assert killed.notes[-1] == "Largest variables: x (int, 300 MiB)."
