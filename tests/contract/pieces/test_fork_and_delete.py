"""A copy for another session, and the end of one: with a snapshot in flight, a reader, a commit that has begun."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import (
    SnapshotNotFoundError,
    SnapshotVoidedError,
)
from tests.contract.pieces.steps import (
    KEY,
    NO_FLOOR,
    OTHER,
    SEED,
    Opener,
    contents_of,
    expected,
    intent_of,
    is_sound,
    manifest_of,
    piece,
    save,
    saved_contents,
)
from tests.manual_clock import ManualClock

MIB = 1024 * 1024


# --- fork --------------------------------------------------------------------------------------------------------


async def test_a_fork_holds_what_its_source_held_and_lives_alone(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"x", bytes(MIB)], workspace=[b"file"])
    await save(pieces, 2, 1, [b"later"])

    own = replace(intent_of(4, None, key=OTHER, replaces=True), seed=7)
    forked = await pieces.fork(KEY, 1, own)
    await pieces.delete(KEY)

    assert forked.summary.sequence == 4
    assert forked.summary.seed == SEED, "its raw digests were made under that one"
    assert forked.manifest.names == manifest_of(intent_of(1, None), [b"x", bytes(MIB)]).names
    assert await saved_contents(pieces, 4, key=OTHER) == expected(b"x", bytes(MIB), b"file")
    assert await is_sound(pieces, 4, OTHER)


async def test_forking_what_is_not_there_leaves_no_file(pieces: Pieces) -> None:
    with pytest.raises(SnapshotNotFoundError):
        await pieces.fork(KEY, 1, intent_of(1, None, key=OTHER, replaces=True))

    assert await pieces.keys() == frozenset()


# --- delete ------------------------------------------------------------------------------------------------------


async def test_deleted_is_gone_and_stays_gone(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"x"])
    await save(pieces, 1, None, [b"x"], key=OTHER)

    await pieces.delete(KEY)
    await pieces.delete(KEY)

    assert await pieces.keys() == frozenset({OTHER})
    with pytest.raises(SnapshotNotFoundError):
        await pieces.open_snapshot(KEY, 1)
    for again in (pieces.begin(intent_of(2, 1)), pieces.restate(intent_of(2, 1, replaces=True), None)):
        with pytest.raises(SnapshotVoidedError, match="deleted"):
            await again
    assert await pieces.keys() == frozenset({OTHER})


@pytest.mark.parametrize("batches", [0, 1, 2])
async def test_a_delete_beside_a_snapshot_in_flight_wins(pieces: Pieces, batches: int) -> None:
    await save(pieces, 1, None, [b"x"])
    intent = intent_of(2, 1)
    contents = [bytes([i]) * MIB for i in range(17 * batches)]
    async with await pieces.begin(intent) as writer:
        for content in contents:
            await writer.put(piece(content))
        deleting = asyncio.create_task(pieces.delete(KEY))
        await asyncio.sleep(0)
        with pytest.raises(SnapshotVoidedError):
            await writer.commit(manifest_of(intent, contents))
        await deleting

    assert await pieces.keys() == frozenset()


async def test_a_delete_that_comes_after_a_commit_began_leaves_nothing(pieces: Pieces) -> None:
    intent = intent_of(1, None)
    async with await pieces.begin(intent) as writer:
        await writer.put(piece(b"x"))
        committing = asyncio.create_task(writer.commit(manifest_of(intent, [b"x"])))
        await asyncio.sleep(0)
        await pieces.delete(KEY)
        await asyncio.wait([committing], timeout=10)

    assert await pieces.keys() == frozenset()
    with pytest.raises(SnapshotNotFoundError):
        await pieces.snapshot(KEY, 1)


async def test_a_delete_ends_a_reader(pieces: Pieces) -> None:
    await save(pieces, 1, None, [bytes([i]) * MIB for i in range(40)])
    async with await pieces.open_snapshot(KEY, 1) as reader:
        await pieces.delete(KEY)
        with pytest.raises(SnapshotNotFoundError):
            await contents_of(reader)


async def test_the_same_directory_opened_again_holds_the_same(open_again: Opener) -> None:
    async with open_again() as pieces:
        await save(pieces, 1, None, [b"x"])
    async with open_again(NO_FLOOR) as pieces:
        assert await saved_contents(pieces, 1) == expected(b"x")


# --- set aside ---------------------------------------------------------------------------------------------------


async def test_what_is_set_aside_is_found_by_nobody_and_kept_until_it_is_dropped(
    pieces: Pieces, directory: Path, clock: ManualClock
) -> None:
    await save(pieces, 1, None, [b"here"])
    await save(pieces, 1, None, [b"there"], key=OTHER)

    await pieces.set_aside({OTHER, "c" * 32})

    assert await pieces.keys() == {KEY}
    with pytest.raises(SnapshotNotFoundError):
        await pieces.snapshot(OTHER, 1)
    (name,) = await pieces.aside()
    clock.advance(10_000 * 86_400)
    await pieces.set_aside({KEY})
    kept, left = await pieces.aside()
    assert kept == name
    for wrong in ("../records.db", f"{OTHER}.pieces", "", f"/{name}", f"{name}/.."):
        await pieces.drop_aside(wrong)
    assert await pieces.aside() == [name, left]
    for _ in range(2):
        await pieces.drop_aside(name)
    assert await pieces.aside() == [left]
    assert not (directory / "sessions" / name).parent.exists()

    (directory / "sessions" / left).rename(directory / "sessions" / f"{KEY}.pieces")
    assert await saved_contents(pieces, 1) == expected(b"here")
