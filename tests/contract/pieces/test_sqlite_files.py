"""What is SQLite's own in the pieces: the file, a full disk, an rm from outside, another process."""

import errno
import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.store.pieces import file
from orchestrator.adapters.store.pieces.store import PiecesPolicy, SqlitePieces
from orchestrator.domain.errors import StoreFullError
from orchestrator.domain.snapshots import MAX_PIECE_BYTES, SnapshotNotFoundError, SnapshotVoidedError
from tests.contract.pieces.steps import (
    KEY,
    Opener,
    expected,
    intent_of,
    is_sound,
    manifest_of,
    piece,
    save,
    saved_contents,
    sequences,
)

BIG = [bytes([i]) * MAX_PIECE_BYTES for i in range(20)]


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "sessions" / f"{KEY}.pieces"


def make_empty(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()


def remove(path: Path) -> None:
    path.unlink()


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as raw:
        found: Sequence[object] = raw.execute(f"PRAGMA {name}").fetchone()
        return found[0]


async def test_nobody_else_can_read_the_file(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, [b"x"])

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}


async def test_the_file_is_set_up_as_it_was_measured(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, [b"x"])

    assert (pragma(path, "page_size"), pragma(path, "auto_vacuum")) == (65_536, 2)
    with file.opened(file.Place(path, 0, None)) as opened:
        settings = {
            name: opened.raw.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "trusted_schema")
        }
    assert settings == {"journal_mode": "truncate", "synchronous": 2, "secure_delete": 0, "trusted_schema": 0}


async def test_nothing_is_left_of_a_deleted_session(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, BIG)

    await sqlite.delete(KEY)

    assert list(path.parent.iterdir()) == []


async def test_a_file_that_was_made_and_never_filled_is_as_good_as_none(sqlite: SqlitePieces, path: Path) -> None:
    make_empty(path)

    with pytest.raises(SnapshotNotFoundError):
        await sqlite.open_snapshot(KEY, 1)
    await save(sqlite, 1, None, [b"x"])
    assert await is_sound(sqlite, 1)


# --- a full disk -------------------------------------------------------------------------------------------------


async def test_below_the_floor_nothing_is_stored_and_what_was_saved_is_read(open_again: Opener) -> None:
    async with open_again() as pieces:
        await save(pieces, 1, None, [b"x"])
    async with open_again(PiecesPolicy(floor_bytes=2**60)) as pieces:
        with pytest.raises(StoreFullError, match="Free some space") as refused:
            await pieces.begin(intent_of(2, 1))
        assert refused.value.retryable
        assert await saved_contents(pieces, 1) == expected(b"x")
        await pieces.restate(intent_of(3, 1, replaces=True), 1)
        assert await sequences(pieces, 3) == [3, 1], "a rollback stores nothing, so it goes on"


async def test_a_disk_that_falls_below_the_floor_ends_the_snapshot(
    sqlite: SqlitePieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(sqlite, 1, None, [b"x"])
    intent = intent_of(2, 1)
    async with await sqlite.begin(intent) as writer:
        await writer.put(piece(b"y"))
        usual = os.statvfs

        def nearly_full(path: str) -> os.statvfs_result:
            return os.statvfs_result((*tuple(usual(path))[:4], 0, *tuple(usual(path))[5:]))

        monkeypatch.setattr("orchestrator.adapters.store.pieces.file.os.statvfs", nearly_full)
        with pytest.raises(StoreFullError):
            await writer.commit(manifest_of(intent, [b"y"]))
        monkeypatch.undo()

    assert await sequences(sqlite, 9) == [1]
    await save(sqlite, 3, 1, [b"y"])


async def test_a_session_that_fills_its_file_is_told_and_keeps_what_it_had(open_again: Opener) -> None:
    async with open_again(PiecesPolicy(floor_bytes=0, limit_bytes=4 * MAX_PIECE_BYTES)) as pieces:
        await save(pieces, 1, None, BIG[:2])
        for sequence in (2, 3):
            with pytest.raises(StoreFullError):
                await save(pieces, sequence, 1, BIG)
        assert await saved_contents(pieces, 1) == expected(*BIG[:2])
        await save(pieces, 4, 1, [*BIG[:2], b"small"])
        assert await is_sound(pieces, 4)


async def test_an_error_of_the_disk_while_the_file_is_made_is_told(
    sqlite: SqlitePieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("orchestrator.adapters.store.pieces.file.os.open", full)

    with pytest.raises(StoreFullError):
        await sqlite.begin(intent_of(1, None))


# --- others ------------------------------------------------------------------------------------------------------


async def test_an_rm_from_outside_before_the_commit_is_no_success(sqlite: SqlitePieces, path: Path) -> None:
    intent = intent_of(1, None)
    async with await sqlite.begin(intent) as writer:
        await writer.put(piece(b"x"))
        remove(path)
        with pytest.raises(SnapshotVoidedError, match="deleted"):
            await writer.commit(manifest_of(intent, [b"x"]))


async def test_an_rm_from_outside_during_the_commit_is_no_success(
    sqlite: SqlitePieces, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(sqlite, 1, None, [b"x"])
    usual = file.PieceFile.digest

    def rm_first(opened: file.PieceFile, *parts: bytes) -> bytes:
        path.unlink(missing_ok=True)
        return usual(opened, *parts)

    intent = intent_of(2, 1)
    async with await sqlite.begin(intent) as writer:
        await writer.put(piece(b"y"))
        monkeypatch.setattr(file.PieceFile, "digest", rm_first)
        with pytest.raises(SnapshotVoidedError, match="deleted"):
            await writer.commit(manifest_of(intent, [b"y"]))


async def test_another_process_that_reads_is_waited_for(sqlite: SqlitePieces, path: Path) -> None:
    await save(sqlite, 1, None, [b"x"])
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM manifests").fetchone()
        intent = intent_of(2, 1)
        async with await sqlite.begin(intent) as writer:
            committing = sqlite._turns.take("end of the other", "read", lambda: other.execute("COMMIT"))
            await writer.commit(manifest_of(intent, []))
            await committing

    assert await sequences(sqlite, 2) == [2, 1]
