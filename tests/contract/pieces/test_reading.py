"""Reading beside writing, history, rollback, clear."""

import asyncio
from dataclasses import replace

import pytest

from orchestrator.adapters.store.pieces.store import PiecesPolicy
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import (
    Piece,
    SnapshotNotFoundError,
    SnapshotVoidedError,
)
from tests.contract.pieces.steps import (
    KEY,
    SEED,
    Opener,
    collect_all,
    contents_of,
    digest_of,
    expected,
    intent_of,
    is_sound,
    manifest_of,
    piece,
    save,
    saved_contents,
    sequences,
)

MIB = 1024 * 1024


async def test_a_reader_beside_a_writer_of_the_same_session_never_fails(pieces: Pieces) -> None:
    contents = [bytes([i]) * MIB for i in range(24)]
    await save(pieces, 1, None, contents)

    async def read_again_and_again(until: asyncio.Task[object]) -> int:
        times = 0
        while not until.done():
            assert await saved_contents(pieces, 1) == expected(*contents)
            times += 1
        return times

    async def write() -> None:
        await save(pieces, 2, 1, [bytes([100 + i]) * MIB for i in range(40)])

    writing = asyncio.create_task(write())
    readers = await asyncio.wait_for(asyncio.gather(*(read_again_and_again(writing) for _ in range(3))), timeout=60)
    await writing
    assert min(readers) >= 1
    assert await is_sound(pieces, 2)


async def test_many_sessions_are_written_and_read_at_once(pieces: Pieces) -> None:
    async def live(key: str) -> None:
        for sequence in range(1, 5):
            contents = [f"{key}{sequence}{i}".encode() * 1000 for i in range(10)]
            await save(pieces, sequence, sequence - 1 or None, contents, key=key)
            assert await saved_contents(pieces, sequence, key=key) == expected(*contents)

    keys = [f"{i:032x}" for i in range(12)]
    await asyncio.wait_for(asyncio.gather(*map(live, keys)), timeout=60)

    assert await pieces.keys() == frozenset(keys)


async def test_a_snapshot_being_read_stays_whole_when_it_leaves_the_history(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"first", b"both"])
    async with await pieces.open_snapshot(KEY, 1) as reader:
        for sequence in range(2, 10):
            await save(pieces, sequence, sequence - 1, [b"x%d" % sequence])
        await collect_all(pieces)

        assert await contents_of(reader) == expected(b"first", b"both")
    await save(pieces, 10, 9, [b"last"])
    assert await sequences(pieces, 10) == [10, 9, 8, 7, 6]


async def test_those_asked_for_are_read_in_the_order_asked_for(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"a", b"b", b"c"])
    async with await pieces.open_snapshot(KEY, 1) as reader:
        wanted = [digest_of(b"c"), digest_of(b"a")]
        found = [found async for found in reader.pieces(wanted)]
        assert found == [piece(b"c"), piece(b"a")]
        with pytest.raises(ValueError, match="holds no piece"):
            [_ async for _ in reader.pieces([digest_of(b"d")])]


async def test_reading_may_stop_early_and_begin_again(pieces: Pieces) -> None:
    contents = [bytes([i]) * MIB for i in range(40)]
    await save(pieces, 1, None, contents)
    async with await pieces.open_snapshot(KEY, 1) as reader:
        stream = reader.pieces()
        first = await anext(stream)
        assert isinstance(first, Piece)
        assert first.data == contents[0]
        await stream.aclose()
        assert await contents_of(reader) == expected(*contents)


# --- history -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [2, 3, 5])
async def test_the_last_snapshots_are_kept_and_each_can_be_read(open_again: Opener, kept: int) -> None:
    async with open_again(PiecesPolicy(history=kept, floor_bytes=0)) as pieces:
        for sequence in range(1, 9):
            await save(pieces, sequence, sequence - 1 or None, [b"always", b"x%d" % sequence])
        await collect_all(pieces)

        assert await sequences(pieces, 8) == list(range(8, 8 - kept, -1))
        for sequence in range(9 - kept, 9):
            assert await saved_contents(pieces, sequence) == expected(b"always", b"x%d" % sequence)
        assert (await pieces.sizes(KEY)).pieces == len(b"always") + 2 * kept
        with pytest.raises(SnapshotNotFoundError):
            await pieces.snapshot(KEY, 8 - kept)


async def test_the_head_outlives_a_commit_that_the_records_refuse(open_again: Opener) -> None:
    async with open_again(PiecesPolicy(history=1, floor_bytes=0)) as pieces:
        await save(pieces, 1, None, [b"head"])
        await save(pieces, 2, 1, [b"refused by the records"])
        await save(pieces, 3, 1, [b"refused too"])

        assert await saved_contents(pieces, 1) == expected(b"head")


async def test_history_ends_at_the_head(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"a"])
    await save(pieces, 2, 1, [b"b"])

    assert await sequences(pieces, 1) == [1]


async def test_a_file_shrinks_when_what_it_held_is_gone(pieces: Pieces) -> None:
    await save(pieces, 1, None, [bytes([i]) * MIB for i in range(40)])
    before = (await pieces.sizes(KEY)).file
    for sequence in range(2, 8):
        await save(pieces, sequence, sequence - 1, [b"small"])

    step = await pieces.collect(KEY)
    assert step.bytes_returned <= 20 * MIB, "one step is bounded"
    returned = step.bytes_returned + await collect_all(pieces)

    assert (await pieces.sizes(KEY)).file == before - returned
    assert (await pieces.sizes(KEY)).file < 8 * MIB
    assert await saved_contents(pieces, 7) == expected(b"small")
    assert await is_sound(pieces, 7)


async def test_nothing_is_collected_under_a_writer(pieces: Pieces) -> None:
    intent = intent_of(1, None)
    contents = [bytes([i]) * MIB for i in range(20)]
    async with await pieces.begin(intent) as writer:
        for content in contents:
            await writer.put(piece(content))
            assert (await pieces.collect(KEY)).pieces == 0
        await writer.commit(manifest_of(intent, contents))

    assert await saved_contents(pieces, 1) == expected(*contents)


# --- rollback and clear ------------------------------------------------------------------------------------------


async def test_a_rollback_is_a_new_head_that_holds_what_was(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"one"], workspace=[b"file one"])
    await save(pieces, 2, 1, [b"two"], workspace=[b"file two"])

    stored = await pieces.restate(replace(intent_of(3, 2, replaces=True), seed=7), 1)

    assert stored.summary.seed == SEED, "what its raw digests were made under"
    assert (stored.summary.sequence, stored.summary.new_bytes) == (3, 0)
    assert await saved_contents(pieces, 3) == expected(b"one", b"file one")
    assert await sequences(pieces, 3) == [3, 2, 1]
    assert (await save(pieces, 4, 3, [b"one"], sent=[])).summary.new_bytes == 0


async def test_a_clear_keeps_the_files(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"x", b"shared"], workspace=[b"file", b"shared"])

    stored = await pieces.restate(intent_of(2, 1, replaces=True), 1, namespace=False)

    assert (stored.manifest.names, len(stored.manifest.files)) == ((), 2)
    assert stored.manifest.namespace.body == b""
    assert await saved_contents(pieces, 2) == expected(b"file", b"shared")


async def test_a_session_that_was_never_saved_can_be_cleared(pieces: Pieces) -> None:
    await pieces.restate(intent_of(1, None, replaces=True), None)

    assert await saved_contents(pieces, 1) == {}


async def test_a_rollback_to_what_is_not_there_changes_nothing(pieces: Pieces) -> None:
    with pytest.raises(SnapshotNotFoundError):
        await pieces.restate(intent_of(1, None, replaces=True), 1)
    assert await pieces.keys() == frozenset()
    await save(pieces, 1, None, [b"x"])
    with pytest.raises(SnapshotNotFoundError):
        await pieces.restate(intent_of(3, 1, replaces=True), 2)
    assert await sequences(pieces, 9) == [1]


async def test_a_rollback_voids_the_snapshot_in_flight(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"one"])
    intent = intent_of(2, 1)
    async with await pieces.begin(intent) as writer:
        await pieces.restate(intent_of(3, 1, replaces=True), 1)
        with pytest.raises(SnapshotVoidedError):
            await writer.commit(manifest_of(intent, []))

    assert await sequences(pieces, 9) == [3, 1]
