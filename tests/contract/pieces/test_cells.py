"""The text of cells: kept beside the snapshots, in nobody's way, and never taken for another's."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.store.pieces import cells as texts
from orchestrator.adapters.store.pieces import file
from orchestrator.adapters.store.pieces.store import PiecesPolicy, SqlitePieces
from orchestrator.domain.errors import ShuttingDownError, StoreFullError, StoreUnusableError
from orchestrator.domain.model import CellText
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import History, SnapshotNotFoundError, SnapshotVoidedError
from tests.contract.pieces.steps import (
    KEY,
    OTHER,
    Opener,
    collect_all,
    expected,
    intent_of,
    is_sound,
    manifest_of,
    piece,
    save,
    saved_contents,
    sequences,
)


def text(number: int, code: str = "pass", output: str = "") -> CellText:
    return CellText(number, code, output, len(output))


async def numbers(pieces: Pieces, key: str = KEY) -> list[int]:
    return [cell.number for cell in await pieces.cells(key)]


async def test_what_was_noted_is_kept_also_by_the_next_process(open_again: Opener) -> None:
    cells = [text(1, "print(1)", "1\n"), CellText(2, "x", "head", 10**9)]
    async with open_again() as pieces:
        await pieces.note_cells(KEY, cells)
        assert await pieces.cells(KEY) == cells
    async with open_again() as pieces:
        assert await pieces.cells(KEY) == cells
        assert await pieces.cells(KEY, [2, 7, 2]) == cells[1:]
        assert await pieces.cells(KEY, []) == []
        assert await is_sound(pieces, None)


async def test_a_session_without_a_file_has_no_cells_and_none_makes_no_file(pieces: Pieces) -> None:
    await pieces.note_cells(KEY, [])

    assert not await pieces.cells(KEY)
    assert not await pieces.cells(KEY, [1])
    assert await pieces.keys() == frozenset()


async def test_a_file_with_cells_alone_has_no_snapshot(pieces: Pieces) -> None:
    await pieces.note_cells(KEY, [text(1)])

    assert await pieces.keys() == {KEY}
    assert await pieces.history(KEY, 9) == History((), ())
    with pytest.raises(SnapshotNotFoundError):
        await pieces.snapshot(KEY, 1)
    assert not await is_sound(pieces, 1)
    assert (await pieces.sizes(KEY)).pieces == 0
    await save(pieces, 1, None, [b"x"])
    assert await saved_contents(pieces, 1) == expected(b"x")
    assert await numbers(pieces) == [1]


@pytest.mark.parametrize("odd", ["", "x = '\0'", "'\ud800'", "'日本 🎉 \r\n\u2028'", "'; DROP TABLE cells; --"])
async def test_any_text_is_kept_as_it_was_noted(pieces: Pieces, odd: str) -> None:
    await pieces.note_cells(KEY, [CellText(1, odd, odd, 0)])

    assert await pieces.cells(KEY) == [CellText(1, odd, odd, 0)]


async def test_the_same_number_again_replaces(pieces: Pieces) -> None:
    await pieces.note_cells(KEY, [text(1, "old"), text(2)])
    await pieces.note_cells(KEY, [text(1, "new"), text(3)])

    assert await pieces.cells(KEY) == [text(1, "new"), text(2), text(3)]


async def test_the_last_200_executions_are_kept(pieces: Pieces) -> None:
    await pieces.note_cells(KEY, [text(number) for number in range(1, 151)])
    await pieces.note_cells(KEY, [text(number) for number in range(151, 206)])
    assert await numbers(pieces) == list(range(6, 206))

    await pieces.note_cells(KEY, [text(3), text(300)])
    assert await numbers(pieces) == [*range(101, 206), 300]


async def test_the_newest_ten_megabytes_are_kept_code_and_output(pieces: Pieces) -> None:
    for number in range(1, 12):
        await pieces.note_cells(KEY, [text(number, "é" * 250_000, "é" * 250_000)])  # a megabyte each, in bytes
    await pieces.note_cells(KEY, [text(12, "small")])

    assert await numbers(pieces) == list(range(3, 13))


async def test_a_cell_beyond_the_limit_is_forgotten_and_leaves_room_for_the_next(pieces: Pieces) -> None:
    await pieces.note_cells(KEY, [text(1, "x" * (texts.KEPT_CELL_BYTES + 1))])
    await pieces.note_cells(KEY, [text(2)])

    assert await numbers(pieces) == [2]


async def test_what_was_forgotten_makes_room_in_the_file(pieces: Pieces) -> None:
    for number in range(1, 60):
        await pieces.note_cells(KEY, [text(number, "x" * 1_000_000)])
    await collect_all(pieces)

    assert (await pieces.sizes(KEY)).file < 3 * texts.KEPT_CELL_BYTES


# --- others ------------------------------------------------------------------------------------------------------


async def test_a_snapshot_under_way_is_left_alone(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"stays", b"x"])
    contents = [b"stays", *(bytes([i]) * 1_000_000 for i in range(20))]
    intent = intent_of(2, 1)
    async with await pieces.begin(intent) as writer:
        for number, content in enumerate(contents[1:], start=1):
            await writer.put(piece(content))
            await pieces.note_cells(KEY, [text(number)])
        await writer.commit(manifest_of(intent, contents))

    assert await saved_contents(pieces, 2) == expected(*contents)
    assert await numbers(pieces) == list(range(1, 21))
    assert await is_sound(pieces, 2)


async def test_many_at_once_are_all_kept(pieces: Pieces) -> None:
    await asyncio.gather(*(pieces.note_cells(KEY, [text(number)]) for number in range(1, 31)))

    assert await numbers(pieces) == list(range(1, 31))


async def test_a_fork_a_rollback_and_a_collection_leave_cells_where_they_are(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"x"])
    await pieces.note_cells(KEY, [text(1)])

    await pieces.fork(KEY, 1, intent_of(1, None, key=OTHER, replaces=True))
    await pieces.restate(intent_of(2, 1, replaces=True), 1)
    await collect_all(pieces)

    assert await numbers(pieces, OTHER) == []
    assert await numbers(pieces) == [1]
    assert await sequences(pieces, 2) == [2, 1]


async def test_cells_go_with_their_session_and_do_not_come_back(pieces: Pieces) -> None:
    await pieces.note_cells(KEY, [text(1)])

    await pieces.delete(KEY)

    assert not await pieces.cells(KEY)
    with pytest.raises(SnapshotVoidedError):
        await pieces.note_cells(KEY, [text(2)])
    assert await pieces.keys() == frozenset()


async def test_nothing_is_noted_after_the_close(open_again: Opener) -> None:
    async with open_again() as pieces:
        pass
    with pytest.raises(ShuttingDownError):
        await pieces.note_cells(KEY, [text(1)])


# --- a full disk -------------------------------------------------------------------------------------------------


async def test_below_the_floor_no_cell_is_noted_and_those_that_were_are_read(open_again: Opener) -> None:
    async with open_again() as pieces:
        await pieces.note_cells(KEY, [text(1)])
    async with open_again(PiecesPolicy(floor_bytes=2**60)) as pieces:
        with pytest.raises(StoreFullError, match="Free some space"):
            await pieces.note_cells(KEY, [text(2)])
        assert await numbers(pieces) == [1]


async def test_a_batch_that_does_not_fit_is_not_noted_in_part(open_again: Opener) -> None:
    async with open_again(PiecesPolicy(floor_bytes=0, limit_bytes=1_000_000)) as pieces:
        await pieces.note_cells(KEY, [text(1)])
        with pytest.raises(StoreFullError):
            await pieces.note_cells(KEY, [text(2), text(3, "x" * 2_000_000)])
        assert await numbers(pieces) == [1]
        await pieces.note_cells(KEY, [text(2)])
        assert await is_sound(pieces, None)


# --- what is SQLite's own ----------------------------------------------------------------------------------------


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "sessions" / f"{KEY}.pieces"


def alter(path: Path, statement: str, parameters: Sequence[object] = ()) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        assert raw.execute(statement, parameters).rowcount > 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cells SET code = CAST('forged' AS BLOB) WHERE number = 2",
        "UPDATE cells SET output = CAST('forged' AS BLOB) WHERE number = 2",
        "UPDATE cells SET output_bytes = 0 WHERE number = 2",
        "UPDATE cells SET code = output, output = code WHERE number = 2",
        "UPDATE cells SET number = 4 WHERE number = 2",
    ],
)
async def test_a_cell_that_is_not_what_was_noted_is_left_out_and_named(
    sqlite: SqlitePieces, path: Path, statement: str
) -> None:
    await sqlite.note_cells(KEY, [text(number, "code", "output") for number in (1, 2, 3)])
    alter(path, statement)

    assert await numbers(sqlite) == [1, 3]
    (problem,) = (await sqlite.check(KEY, None)).problems
    assert f"cell {4 if 'number = 4' in statement else 2} is damaged" in problem


async def test_one_bit_anywhere_in_the_file_never_gives_wrong_text(sqlite: SqlitePieces, path: Path) -> None:
    cells = [text(number, f"code {number} " * 300, f"output {number} " * 3_000) for number in range(1, 9)]
    await sqlite.note_cells(KEY, cells)
    whole = read_bytes(path)
    full = [place for place in range(len(whole)) if whole[place]]

    for place in full[:: len(full) // 150]:
        write_bytes(path, whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = await sqlite.cells(KEY)
        except (StoreUnusableError, SnapshotNotFoundError):
            continue
        assert all(cell in cells for cell in found)


def read_bytes(path: Path) -> bytes:
    return path.read_bytes()


def write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def test_cells_wait_less_for_the_disk_than_snapshots_do_and_still_wait(
    sqlite: SqlitePieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []
    usual = file.PieceFile.transaction

    def watched(opened: file.PieceFile) -> object:
        levels.append(opened.raw.execute("PRAGMA synchronous").fetchone()[0])
        return usual(opened)

    monkeypatch.setattr(file.PieceFile, "transaction", watched)
    await sqlite.note_cells(KEY, [text(1)])
    await save(sqlite, 1, None, [b"x"])

    assert levels == [1, 2]


async def test_an_rm_from_outside_while_cells_are_noted_is_no_success(
    sqlite: SqlitePieces, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sqlite.note_cells(KEY, [text(1)])
    usual = texts._trim

    def rm_first(opened: file.PieceFile) -> None:
        path.unlink()
        usual(opened)

    monkeypatch.setattr(texts, "_trim", rm_first)
    with pytest.raises(SnapshotVoidedError, match="deleted"):
        await sqlite.note_cells(KEY, [text(2)])
