"""What becomes visible, when, and what is refused on the way."""

from dataclasses import replace

import pytest

from orchestrator.domain.errors import ShuttingDownError
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import (
    MAX_PIECE_BYTES,
    Encoding,
    History,
    Manifest,
    Piece,
    Section,
    SnapshotNotFoundError,
    SnapshotRefusedError,
    SnapshotVoidedError,
    StoredSizes,
)
from tests.contract.pieces.steps import (
    KEY,
    OTHER,
    SEED,
    Opener,
    collect_all,
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
from tests.manual_clock import ManualClock


async def test_a_snapshot_comes_back_as_it_was_committed(open_again: Opener, clock: ManualClock) -> None:
    intent = intent_of(1, None)
    manifest = manifest_of(intent, [b"one", b"two"], [b"file", b"one"], body=bytes(range(256)))
    async with open_again() as pieces, await pieces.begin(intent) as writer:
        for content in (b"two", b"file", b"one"):
            await writer.put(piece(content))
        stored = await writer.commit(manifest)

    assert stored.manifest == manifest
    assert [reference.raw_digest for reference in stored.references] == [
        digest_of(c) for c in (b"one", b"two", b"file")
    ]
    assert (stored.summary.names, stored.summary.raw_bytes, stored.summary.new_bytes) == (2, 10, 10)
    assert (stored.summary.created_at, stored.summary.seed) == (clock.now(), SEED)
    async with open_again() as pieces:
        assert await pieces.snapshot(KEY, 1) == stored
        assert list((await saved_contents(pieces, 1)).items()) == list(expected(b"one", b"two", b"file").items())


async def test_what_is_stored_need_not_be_as_long_as_what_it_stands_for(pieces: Pieces) -> None:
    intent = intent_of(1, None)
    packed = Piece("1" * 32, MAX_PIECE_BYTES, Encoding.ZSTD, b"short")
    async with await pieces.begin(intent) as writer:
        await writer.put(packed)
        stored = await writer.commit(Manifest(1, 1, 1, "e", "3.11", namespace=Section(b"", ("1" * 32,))))

    assert (stored.summary.raw_bytes, stored.summary.stored_bytes) == (MAX_PIECE_BYTES, 5)
    async with await pieces.open_snapshot(KEY, 1) as reader:
        assert [found async for found in reader.pieces()] == [packed]


async def test_a_snapshot_of_nothing_is_one(pieces: Pieces) -> None:
    await save(pieces, 1, None, [])

    assert await saved_contents(pieces, 1) == {}
    assert await is_sound(pieces, 1)


async def test_snapshots_of_many_batches_are_whole(pieces: Pieces) -> None:
    contents = [i.to_bytes(4, "big") * (1 + i * 4096) for i in range(60)] + [b"%d" % i for i in range(5000)]

    await save(pieces, 1, None, contents)

    assert await saved_contents(pieces, 1) == expected(*contents)
    assert await is_sound(pieces, 1)


async def test_nothing_is_seen_before_the_commit(pieces: Pieces) -> None:
    async with await pieces.begin(intent_of(1, None)) as writer:
        await writer.put(piece(b"x"))

        assert await pieces.history(KEY, 1) == History((), ())
        with pytest.raises(SnapshotNotFoundError):
            await pieces.snapshot(KEY, 1)
        with pytest.raises(SnapshotNotFoundError):
            await pieces.open_snapshot(KEY, 1)


async def test_unchanged_pieces_are_neither_sent_nor_stored_again(pieces: Pieces) -> None:
    big = bytes(500_000)
    await save(pieces, 1, None, [big, b"x = 1"])

    second = await save(pieces, 2, 1, [big, b"x = 2"], sent=[b"x = 2"])

    assert second.summary.new_bytes == 5
    assert second.summary.stored_bytes == 500_005
    assert (await pieces.sizes(KEY)).pieces == 500_010
    assert await saved_contents(pieces, 2) == expected(big, b"x = 2")


async def test_a_piece_that_is_sent_though_the_head_has_it_is_not_stored_twice(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"same"])

    assert (await save(pieces, 2, 1, [b"same"])).summary.new_bytes == 0
    assert (await pieces.sizes(KEY)).pieces == 4


async def test_a_piece_neither_sent_nor_in_the_head_refuses_the_snapshot(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"x"])

    with pytest.raises(SnapshotRefusedError) as refused:
        await save(pieces, 2, 1, [b"x", b"y", b"z"], sent=[b"y"])

    assert refused.value.missing == (digest_of(b"z"),)
    assert await sequences(pieces, 9) == [1]
    assert (await save(pieces, 3, 1, [b"x", b"y", b"z"], sent=[b"y", b"z"])).summary.new_bytes == 2


async def test_a_piece_of_an_older_snapshot_is_not_known_unless_the_head_has_it(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"old"])
    await save(pieces, 2, 1, [b"new"])

    with pytest.raises(SnapshotRefusedError):
        await save(pieces, 3, 2, [b"old"], sent=[])

    assert (await save(pieces, 4, 2, [b"old"])).summary.new_bytes == 0, "sent, and still there"


async def test_a_piece_that_left_the_history_and_comes_back_is_stored_again(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"comes back", b"x1"])
    for sequence in range(2, 8):
        await save(pieces, sequence, sequence - 1, [b"x%d" % sequence])
    await collect_all(pieces)

    with pytest.raises(SnapshotRefusedError):
        await save(pieces, 8, 7, [b"comes back"], sent=[])
    assert (await save(pieces, 9, 7, [b"comes back"])).summary.new_bytes == len(b"comes back")
    assert await saved_contents(pieces, 9) == expected(b"comes back")


async def test_other_bytes_under_a_known_digest_change_no_older_snapshot(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"honest"])
    intent = intent_of(2, 1)
    async with await pieces.begin(intent) as writer:
        await writer.put(Piece(digest_of(b"honest"), 6, Encoding.RAW, b"forged"))
        await writer.commit(manifest_of(intent, [b"honest"]))

    assert await saved_contents(pieces, 1) == {digest_of(b"honest"): b"honest"}
    assert await saved_contents(pieces, 2) == {digest_of(b"honest"): b"forged"}


async def test_sessions_share_nothing(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"mine"])

    with pytest.raises(SnapshotRefusedError):
        await save(pieces, 1, None, [b"mine"], key=OTHER, sent=[])
    theirs = await save(pieces, 2, None, [b"mine"], key=OTHER)

    assert theirs.summary.new_bytes == 4
    mine = await pieces.snapshot(KEY, 1)
    assert mine.references[0].host_digest != theirs.references[0].host_digest, "each has a seed of its own"


@pytest.mark.parametrize("field", ["sequence", "incarnation", "execution"])
async def test_a_manifest_of_another_snapshot_is_refused(pieces: Pieces, field: str) -> None:
    intent = intent_of(1, None)
    async with await pieces.begin(intent) as writer:
        with pytest.raises(SnapshotRefusedError, match="another snapshot"):
            await writer.commit(replace(manifest_of(intent, []), **{field: 2}))  # type: ignore[arg-type] # a count each

    assert await sequences(pieces, 9) == []


async def test_a_snapshot_may_hold_an_earlier_execution_than_the_last(pieces: Pieces) -> None:
    intent = replace(intent_of(1, None), execution=7, activity=9)
    async with await pieces.begin(intent) as writer:
        stored = await writer.commit(replace(manifest_of(intent, []), execution=5))

    assert stored.summary.execution == 5


@pytest.mark.parametrize(
    "bad",
    [
        Piece("0" * 32, 1, Encoding.RAW, bytes(MAX_PIECE_BYTES + 1)),
        Piece("0" * 32, MAX_PIECE_BYTES + 1, Encoding.RAW, b""),
        Piece("0" * 31, 1, Encoding.RAW, b"x"),
        Piece("Z" * 32, 1, Encoding.RAW, b"x"),
    ],
)
async def test_a_piece_over_its_caps_is_an_error_of_the_caller(pieces: Pieces, bad: Piece) -> None:
    async with await pieces.begin(intent_of(1, None)) as writer:
        with pytest.raises(ValueError, match="piece"):
            await writer.put(bad)


@pytest.mark.parametrize("key", ["", "a", "../" + "a" * 29, "A" * 32, "a" * 33])
async def test_what_is_no_key_becomes_no_path(pieces: Pieces, key: str) -> None:
    with pytest.raises(ValueError, match="not a session's key"):
        await pieces.sizes(key)


# --- something newer ---------------------------------------------------------------------------------------------


async def test_a_writer_ends_with_its_commit_and_with_its_abort(pieces: Pieces) -> None:
    intent = intent_of(1, None)
    async with await pieces.begin(intent) as writer:
        await writer.commit(manifest_of(intent, []))
        with pytest.raises(SnapshotVoidedError):
            await writer.commit(manifest_of(intent, []))
    await writer.abort()
    with pytest.raises(SnapshotVoidedError):
        await writer.put(piece(b"x"))


async def test_a_later_snapshot_voids_the_one_in_flight(pieces: Pieces) -> None:
    first, second = intent_of(1, None), intent_of(2, None)
    async with await pieces.begin(first) as older, await pieces.begin(second) as newer:
        await newer.put(piece(b"x"))
        with pytest.raises(SnapshotVoidedError):
            await older.put(piece(b"y"))
        with pytest.raises(SnapshotVoidedError):
            await older.commit(manifest_of(first, []))
        await older.abort()
        await newer.commit(manifest_of(second, [b"x"]))

    assert await sequences(pieces, 9) == [2]


async def test_a_snapshot_that_never_became_head_is_dropped_by_the_next(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"head"])
    await save(pieces, 2, 1, [b"never head"])

    await save(pieces, 3, 1, [b"next"])

    assert await sequences(pieces, 9) == [3, 1]
    with pytest.raises(SnapshotRefusedError):
        await save(pieces, 4, 3, [b"never head"], sent=[])


async def test_a_snapshot_no_newer_than_the_head_is_refused(pieces: Pieces) -> None:
    await save(pieces, 5, None, [b"head"])

    for late in (4, 5):
        with pytest.raises(SnapshotVoidedError):
            await pieces.begin(intent_of(late, 5))
    assert await sequences(pieces, 9) == [5]


async def test_what_an_aborted_snapshot_left_is_collected_by_the_next(pieces: Pieces) -> None:
    await save(pieces, 1, None, [b"head"])
    async with await pieces.begin(intent_of(2, 1)) as writer:
        for i in range(20):
            await writer.put(piece(bytes([i]) * MAX_PIECE_BYTES))
    assert (await pieces.sizes(KEY)).unreferenced > MAX_PIECE_BYTES

    await save(pieces, 3, 1, [b"next"])

    sizes = await pieces.sizes(KEY)
    assert (sizes.pieces, sizes.unreferenced) == (8, 0)


async def test_a_session_without_a_file_has_nothing(pieces: Pieces) -> None:
    assert await pieces.history(KEY, 1) == History((), ())
    assert await pieces.sizes(KEY) == StoredSizes(0, 0, 0, 0)
    assert not (await pieces.collect(KEY)).more
    assert await pieces.keys() == frozenset()
    assert await is_sound(pieces, None)
    assert not await is_sound(pieces, 1)


async def test_nothing_is_begun_after_the_close(open_again: Opener) -> None:
    async with open_again() as pieces:
        intent = intent_of(1, None)
        writer = await pieces.begin(intent)
    with pytest.raises(ShuttingDownError):
        await writer.commit(manifest_of(intent, []))
    with pytest.raises(ShuttingDownError):
        await pieces.begin(intent)
    await pieces.close()
