"""Bytes that are not what was stored: refused, named, never taken for a tenant's data."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from orchestrator.adapters.store.pieces.store import SqlitePieces
from orchestrator.domain.errors import OrchestratorError, StoreUnusableError
from orchestrator.domain.model import CellText
from orchestrator.domain.snapshots import SnapshotDamagedError, SnapshotNotFoundError, SnapshotRefusedError
from tests.contract.pieces.steps import (
    KEY,
    OTHER,
    contents_of,
    digest_of,
    expected,
    intent_of,
    is_sound,
    save,
    saved_contents,
    sequences,
)

FIRST = [b"the first piece" * 40, bytes(range(256)) * 500, b"last"]


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def put_back(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)


def flip(path: Path, place: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def flip_in(path: Path, content: bytes) -> None:
    """Alter one bit of that run of bytes, wherever the file has its beginning."""
    place = path.read_bytes().index(content[:200])
    flip(path, place + 100)


def alter_manifest(path: Path, sequence: int) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        changed = raw.execute(
            "UPDATE manifests SET listing = CAST(replace(CAST(listing AS TEXT), '}', ' }') AS BLOB) WHERE sequence = ?",
            (sequence,),
        )
        assert changed.rowcount == 1


def swap_manifests(path: Path, one: int, other: int) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        for old, new in ((one, -1), (other, one), (-1, other)):
            raw.execute("UPDATE manifests SET sequence = ? WHERE sequence = ?", (new, old))


@pytest.fixture
def path(directory: Path) -> Path:
    made = directory / "sessions" / f"{KEY}.pieces"
    made.parent.mkdir(parents=True)
    return made


async def test_a_piece_altered_by_one_bit_is_refused_and_named_and_the_others_come_back(
    sqlite: SqlitePieces, path: Path
) -> None:
    await save(sqlite, 1, None, FIRST)
    flip_in(path, FIRST[0])

    read = dict(await saved_contents(sqlite, 1))

    assert "digest does not fit" in str(read.pop(digest_of(FIRST[0])))
    assert read == expected(*FIRST[1:])
    (problem,) = (await sqlite.check(KEY, 1)).problems
    assert digest_of(FIRST[0]) in problem
    assert "snapshots 1" in problem


async def test_a_missing_piece_is_named(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, FIRST)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DELETE FROM pieces WHERE id = 2")

    assert (await saved_contents(sqlite, 1))[digest_of(FIRST[1])] == "it is missing"
    with pytest.raises(SnapshotRefusedError, match="lacks pieces"):
        await save(sqlite, 2, 1, FIRST, sent=[])


async def test_a_damaged_piece_is_stored_anew_when_it_is_sent_again(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, FIRST)
    flip_in(path, FIRST[1])

    stored = await save(sqlite, 2, 1, FIRST)

    assert stored.summary.new_bytes == len(FIRST[1])
    assert await saved_contents(sqlite, 2) == expected(*FIRST)


async def test_the_file_of_another_session_gives_nothing_of_it_and_is_written_anew(
    sqlite: SqlitePieces, path: Path
) -> None:
    await save(sqlite, 1, None, FIRST)
    await save(sqlite, 1, None, [b"somebody else's"], key=OTHER)
    await sqlite.note_cells(OTHER, [CellText(1, "secret", "secret", 6)])
    put_back(path, bytes_of(path.with_name(f"{OTHER}.pieces")))

    with pytest.raises(SnapshotDamagedError):
        await sqlite.open_snapshot(KEY, 1)
    assert await sqlite.cells(KEY) == []
    assert len((await sqlite.check(KEY, 1)).problems) == 3  # the cell, the manifest, and so the head
    await save(sqlite, 2, 1, FIRST)
    assert await saved_contents(sqlite, 2) == expected(*FIRST)


async def test_an_altered_manifest_makes_the_reader_take_the_one_before_and_say_so(
    sqlite: SqlitePieces, path: Path
) -> None:
    await save(sqlite, 1, None, FIRST)
    await save(sqlite, 2, 1, [b"second"])
    await save(sqlite, 3, 2, [b"third"])
    alter_manifest(path, 3)

    async with await sqlite.open_snapshot(KEY, 3, since=0) as reader:
        assert reader.snapshot.summary.sequence == 2
        assert reader.skipped == (3,)
        assert await contents_of(reader) == expected(b"second")
    history = await sqlite.history(KEY, 3)
    assert ([summary.sequence for summary in history.snapshots], history.damaged) == ([2, 1], (3,))
    problems = (await sqlite.check(KEY, 3)).problems
    assert len(problems) == 2
    assert "snapshot 3" in problems[0]


async def test_a_head_that_is_gone_is_passed_over_and_said(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, FIRST)
    await save(sqlite, 2, 1, [b"second"])
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DELETE FROM manifests WHERE sequence = 2")

    async with await sqlite.open_snapshot(KEY, 2, since=1) as reader:
        assert (reader.snapshot.summary.sequence, reader.skipped) == (1, (2,))
    with pytest.raises(SnapshotNotFoundError):
        await sqlite.open_snapshot(KEY, 2, since=2)
    assert not await is_sound(sqlite, 2)


async def test_nothing_older_than_a_replacement_comes_back_by_itself(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, FIRST)
    await sqlite.restate(intent_of(2, 1, replaces=True), 1)
    alter_manifest(path, 2)

    with pytest.raises(SnapshotDamagedError, match="2"):
        await sqlite.open_snapshot(KEY, 2, since=2)
    with pytest.raises(SnapshotDamagedError):
        await sqlite.open_snapshot(KEY, 2)
    with pytest.raises(SnapshotDamagedError):
        await sqlite.snapshot(KEY, 2)
    with pytest.raises(SnapshotDamagedError):
        await sqlite.restate(intent_of(3, 2, replaces=True), 2)


async def test_a_manifest_in_another_ones_place_is_refused(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, [b"old"])
    await save(sqlite, 2, 1, [b"new"])
    swap_manifests(path, 1, 2)

    with pytest.raises(SnapshotDamagedError):
        await sqlite.open_snapshot(KEY, 2, since=1)


async def test_a_damaged_head_makes_the_agent_send_everything_and_nothing_is_collected(
    sqlite: SqlitePieces, path: Path
) -> None:
    await save(sqlite, 1, None, FIRST)
    alter_manifest(path, 1)

    with pytest.raises(SnapshotRefusedError) as refused:
        await save(sqlite, 2, 1, FIRST, sent=[])
    assert len(refused.value.missing) == len(FIRST)
    before = (await sqlite.sizes(KEY)).pieces
    assert (await sqlite.collect(KEY)).pieces == 0
    assert (await sqlite.sizes(KEY)).pieces == before, "who knows what the damaged one needs"

    await save(sqlite, 3, 1, FIRST)
    assert await saved_contents(sqlite, 3) == expected(*FIRST)


async def test_a_fork_of_something_damaged_is_refused_and_leaves_no_snapshot(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, FIRST)
    flip_in(path, FIRST[0])

    with pytest.raises(SnapshotDamagedError, match=digest_of(FIRST[0])):
        await sqlite.fork(KEY, 1, intent_of(1, None, key=OTHER, replaces=True))

    assert await sequences(sqlite, 9, OTHER) == []


async def test_one_bit_anywhere_in_the_file_never_gives_wrong_bytes(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, FIRST)
    await save(sqlite, 2, 1, [*FIRST, b"more"], sent=[b"more"])
    whole = bytes_of(path)
    stored = {sequence: await sqlite.snapshot(KEY, sequence) for sequence in (1, 2)}
    right = {1: expected(*FIRST), 2: expected(*FIRST, b"more")}
    dice = random.Random(7)  # noqa: S311 - damage needs no secrecy
    full = [place for place in range(len(whole)) if whole[place]]

    for _ in range(150):
        put_back(path, whole)
        flip(path, dice.choice(full), dice.randrange(8))
        try:
            async with await sqlite.open_snapshot(KEY, 2, since=1) as reader:
                sequence = reader.snapshot.summary.sequence
                assert reader.snapshot == stored[sequence]
                assert (sequence == 2) == (reader.skipped == ())
                read = await contents_of(reader)
        except (StoreUnusableError, SnapshotDamagedError, SnapshotNotFoundError):
            continue
        assert read.keys() == right[sequence].keys()
        for digest, content in read.items():
            assert isinstance(content, str) or content == right[sequence][digest]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_done_with_a_file_that_lost_bytes_fails_with_a_sentence_if_at_all(
    sqlite: SqlitePieces, path: Path, seed: int
) -> None:
    """Rows on a page that is cut off may read as NULL, in columns that never hold one."""
    await save(sqlite, 1, None, FIRST)
    await sqlite.note_cells(KEY, [CellText(number, "code" * 1000, "output" * 2000, 12_000) for number in range(1, 9)])
    await save(sqlite, 2, 1, [*FIRST, b"more" * 9_000])
    whole, dice = bytes_of(path), random.Random(seed)  # noqa: S311 - the same damage again
    for _ in range(12):
        put_back(path, whole[: -dice.randrange(1, 70_000)])
        if dice.random() < 0.5:
            for place in [dice.randrange(60_000, len(whole) - 70_000) for _ in range(50)]:
                flip(path, place, dice.randrange(8))
        for doing in (
            sqlite.sizes(KEY),
            sqlite.cells(KEY),
            sqlite.note_cells(KEY, [CellText(9, "code", "output", 6)]),
            save(sqlite, 3, 2, [*FIRST, b"other" * 9_000]),
            sqlite.collect(KEY),
            sqlite.history(KEY, 3),
            sqlite.restate(intent_of(4, 3, replaces=True), 2),
            sqlite.check(KEY, 3),
        ):
            with suppress(OrchestratorError):
                await doing


def _text(path: Path) -> None:
    path.write_text("not a database at all, and longer than a header\n" * 20)


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE bookmarks (x)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 999")
        raw.execute("CREATE TABLE future (x)")


@pytest.mark.parametrize("make", [_text, _foreign, _newer])
async def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(
    sqlite: SqlitePieces, path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    before = bytes_of(path)

    with pytest.raises(StoreUnusableError):
        await save(sqlite, 1, None, FIRST)
    with pytest.raises(StoreUnusableError):
        await sqlite.open_snapshot(KEY, 1)
    assert not await is_sound(sqlite, 1)
    assert bytes_of(path) == before
