"""A killed worker's copy goes on where it is the newest that there is; what came after it is told, once."""

from pathlib import Path

from orchestrator.domain.model import ResumedFrom
from tests.unit.pretended_agent import FORK, KILLED, KILLED_BACK
from tests.unit.pretended_engine import house
from tests.unit.pretended_faults import fall_back


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
