"""When sessions are saved, what that costs, and what is told where it fails. The clock is the test's."""

import asyncio
import logging
from pathlib import Path

import pytest

from orchestrator.domain.plan import SavingPolicy
from orchestrator.domain.snapshots import (
    MAX_PIECE_BYTES,
    Encoding,
    Piece,
    SaveFailedError,
    SnapshotNotFoundError,
    SnapshotRefusedError,
)
from orchestrator.services.equipment import Limits
from tests.unit.pretended_agent import ENDLESS, OPEN_FILE
from tests.unit.pretended_engine import FullOnce, House, house, runs, until
from tests.unit.pretended_faults import Hang, Sufferer, fail, lose

REFUSED = f'f = "{OPEN_FILE}"'


async def saved_through(opened: House) -> int:
    return (await opened.row()).saved_through


async def test_a_session_that_has_been_quiet_is_saved_and_its_next_answer_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        first = await opened.run("x = 1")
        assert first.saved_through in (None, 0)
        await opened.look(1.9)
        assert opened.agent.orders == []
        await opened.look(0.2)
        assert await saved_through(opened) == 1
        await opened.look(100)
        assert len(opened.agent.orders) == 1  # nothing is unsaved
        assert (await opened.run("x")).saved_through == 1


async def test_only_what_is_new_is_sent_again(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\ny = 2\nz = 3")
        await opened.look(3)
        assert len(opened.agent.sent) == 3
        await opened.run("y = 4")
        await opened.look(30)
        assert [piece.data for piece in opened.agent.sent] == [b"4"]
        assert [order.head for order in opened.agent.orders] == [None, 1]
        await opened.hibernate()
        assert await opened.value("z") == "3"
        assert opened.agent.orders == []
        await opened.run("z = 5")
        await opened.look(30)
        assert opened.agent.orders[0].head == 3  # as woken, with all of its pieces


async def test_what_has_grown_old_is_saved_before_the_calls_that_wait(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        running = asyncio.create_task(opened.run(ENDLESS))
        await until(lambda: runs(opened))
        waiting = asyncio.create_task(opened.run("y = 2"))
        await asyncio.sleep(0.05)
        opened.clock.advance(59)
        opened.reaper.look()
        assert not opened.reaper._under_way
        opened.clock.advance(2)
        opened.reaper.look()
        assert opened.reaper._under_way
        await asyncio.sleep(0.02)
        opened.agent.interrupt(2)
        await asyncio.gather(running, waiting)
        await until(opened.is_quiet)
        (order,) = opened.agent.orders
        assert order.intent.execution == 2  # between the two
        assert (await opened.run("x")).saved_through == 2


async def test_calls_are_answered_while_a_snapshot_of_the_moment_before_them_is_on_its_way(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("piece", hang)
        opened.clock.advance(3)
        opened.reaper.look()
        await hang.entered.wait()
        assert (await opened.run("x = 2")).status == "ok"
        hang.go.set()
        await until(opened.is_quiet)
        assert await saved_through(opened) == 1
        opened.agent.lose("it was removed")
        result = await opened.run("x")
        assert result.value == "1"
        assert "execution 2" in result.notes[0]


async def test_quiet_takes_no_more_than_its_share_of_the_processor(tmp_path: Path) -> None:
    async with house(tmp_path, limits=Limits(policy=SavingPolicy(cpu_share=0.1))) as opened:
        await opened.run("x = 1")
        await opened.look(3)  # which took a second of the processor
        await opened.run("x = 2")
        await opened.look(8.9)
        assert await saved_through(opened) == 1
        await opened.look(0.2)
        assert await saved_through(opened) == 2


async def test_a_failed_save_is_told_once_and_tried_again_after_a_pause_that_grows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        opened.faults.at("report", fail, fail)
        await opened.look(3)
        result = await opened.run("1")
        assert "could not be saved" in result.notes[0]
        assert "nothing of it is saved" in result.notes[0]
        assert (await opened.run("2")).notes == ()
        await opened.look(1.9)
        assert len(opened.agent.orders) == 1
        await opened.look(0.2)
        assert len(opened.agent.orders) == 2
        await opened.look(9.9)
        assert len(opened.agent.orders) == 2
        await opened.look(0.2)
        assert len(opened.agent.orders) == 3
        assert await saved_through(opened) == 3
        await opened.assert_nothing_leaks()
    assert caplog.text.count("not saved") == 2


@pytest.mark.parametrize("method", ["begin", "snapshot_committed", "intend_snapshot"])
async def test_a_full_store_keeps_a_session_from_being_saved_but_not_from_being_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        FullOnce(monkeypatch, opened.pieces if method == "begin" else opened.records, method)
        await opened.look(3)
        result = await opened.run("x")
        assert result.value == "1"
        assert "The disk is full" in result.notes[0]
        await opened.look(3)
        assert await saved_through(opened) == 2


async def test_a_snapshot_that_the_store_refuses_is_sent_whole_the_next_time(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.look(3)
        await opened.run("y = 1")

        async def refuse(_: Sufferer) -> None:
            raise SnapshotRefusedError("It lacks pieces.")

        opened.faults.at("report", refuse)
        await opened.look(30)
        await opened.look(30)
        assert [order.head for order in opened.agent.orders] == [None, 1, None]
        assert await saved_through(opened) == 2


async def test_what_was_owed_is_written_and_the_session_saved_without_waiting_for_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, "close_execution", 2)
        await opened.run("x = 1")
        await opened.look(3)  # the second failure
        assert opened.agent.orders == []
        await opened.look(3)
        assert await saved_through(opened) == 1
        await opened.assert_nothing_leaks()


async def test_a_sandbox_that_is_found_lost_gives_its_place_to_others(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.run("x = 1", "t")
        opened.agent.lose("it was removed")
        await opened.look(3)
        assert (await opened.row("t")).state == "hibernated"
        assert (await opened.run("x = 1", "u")).status == "ok"
        assert (await opened.row("t")).untold_loss is not None


async def test_names_that_no_snapshot_holds_are_told_once_with_the_line_that_bound_them(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{REFUSED}")
        await opened.look(3)
        result = await opened.run("1")
        (note,) = result.notes
        assert note.startswith("Not saved: f (file")
        assert f"execution 1: {REFUSED}" in note
        await opened.look(30)
        assert (await opened.run("2")).notes == ()
        listing = await opened.sessions.list_variables("s")
        assert note in listing.notes
        await opened.run("del f")
        assert note not in (await opened.sessions.list_variables("s")).notes


async def test_names_that_no_snapshot_holds_are_told_at_the_wake_to_the_next_owner(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{REFUSED}")
    async with house(tmp_path) as opened:
        sleeping = await opened.sessions.list_variables("s")
        assert any(note.startswith("Not saved: f") for note in sleeping.notes)
        assert [variable.name for variable in sleeping.variables] == ["x"]
        result = await opened.run("x")
        assert result.value == "1"
        (note,) = result.notes
        assert f"execution 1: {REFUSED}" in note
        assert (await opened.run("1")).notes == ()
        await opened.look(3)
        assert (await opened.run("1")).notes == ()


async def test_the_text_of_cells_is_written_after_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        key = (await opened.row()).key
        assert await opened.pieces.cells(key) == ()
        FullOnce(monkeypatch, opened.pieces, "note_cells")
        with caplog.at_level(logging.WARNING):
            await opened.look(3)
        assert "not stored" in caplog.text
        assert await saved_through(opened) == 1  # text is not what a snapshot waits for
        await opened.run("y = 2")
        await opened.look(30)
        assert [text.code for text in await opened.pieces.cells(key)] == ["x = 1", "y = 2"]


async def test_the_text_of_a_cell_that_took_its_sandbox_along_is_kept(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.faults.at("execute", lose)
        assert (await opened.run("x = 1")).error is not None
        key = (await opened.row()).key

        async def is_kept() -> bool:
            return [text.code for text in await opened.pieces.cells(key)] == ["x = 1"]

        await until(is_kept)  # after the answer


async def test_a_session_that_never_held_anything_cannot_be_saved(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.records.ensure_session("local", "s", "e")
        with pytest.raises(SnapshotNotFoundError):
            await opened.save()
        assert (await opened.histories.history("s")).snapshots == ()


async def test_files_that_could_not_be_read_are_those_of_the_head(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt old")
        await opened.save()
        await opened.run("x = 2\nfile a.txt new")
        opened.agent.reads_files = False
        await opened.save()
        opened.agent.lose("it was removed")
        assert await opened.value("x") == "2"
        assert opened.agent.files == {"a.txt": "old"}


async def test_files_that_were_given_up_are_saved_next_and_missed_until_then(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt one")
        await opened.save()
        await opened.run("x = 2\nfile a.txt two")
        opened.agent.reads_files = False
        await opened.save()
        opened.agent.reads_files = True
        assert (await opened.run("x")).saved_through == 1  # of the variables it would be 2
        live = await opened.sessions.find("s")
        assert live.row.unsaved_since is not None
        opened.faults.at("execute", lose)
        await opened.run("x")
        result = await opened.run("x")
        assert result.value == "2"
        assert opened.agent.files == {"a.txt": "one"}
        assert any("Lost: what execution 2 did to files" in note for note in result.notes)


@pytest.mark.parametrize("how", ["in the background", "asked for"])
async def test_what_a_failed_save_left_is_given_back_at_once(tmp_path: Path, how: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        key = (await opened.row()).key

        async def lots(agent: Sufferer) -> None:
            writer = opened.pieces._writers[key]
            for number in range(40):
                data = number.to_bytes(4, "big") * (MAX_PIECE_BYTES // 4)
                await writer.put(Piece(f"{number:032x}", len(data), Encoding.RAW, data))
            await fail(agent)

        await opened.run("y = 2")
        opened.faults.at("report", lots)
        if how == "asked for":
            with pytest.raises(SaveFailedError):
                await opened.save()
        else:
            await opened.look(3)

        async def is_small() -> bool:
            sizes = await opened.pieces.sizes(key)
            return sizes.unreferenced == 0 and sizes.file < 8 * MAX_PIECE_BYTES

        await until(is_small)
