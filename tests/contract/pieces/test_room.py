"""What a failed snapshot left, and the room on the disk."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.adapters.store.pieces.store import PiecesPolicy
from orchestrator.domain.errors import StoreFullError
from orchestrator.domain.snapshots import MAX_PIECE_BYTES
from tests.contract.pieces.steps import KEY, OTHER, Opener, collect_all, expected, save, saved_contents


def _disk_with(monkeypatch: pytest.MonkeyPatch, directory: Path, total: int) -> None:
    """A disk of that many bytes, of which the sessions' files are all that is taken."""

    def statvfs(_path: Path) -> SimpleNamespace:
        taken = sum(path.stat().st_size for path in (directory / "sessions").glob("*"))
        return SimpleNamespace(f_bavail=total - taken, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)


async def test_what_a_failed_snapshot_left_is_given_back_before_the_room_on_the_disk_is_asked_for(
    open_again: Opener, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mebibyte = MAX_PIECE_BYTES
    _disk_with(monkeypatch, directory, 120 * mebibyte)
    async with open_again(PiecesPolicy(floor_bytes=20 * mebibyte)) as pieces:
        await save(pieces, 1, None, [b"head"])
        with pytest.raises(StoreFullError):
            await save(pieces, 2, 1, [i.to_bytes(4, "big") * (mebibyte // 4) for i in range(200)])
        left = (await pieces.sizes(KEY)).file
        assert left > 50 * mebibyte
        monkeypatch.undo()
        _disk_with(monkeypatch, directory, left + 10 * mebibyte)  # others took the rest

        await save(pieces, 3, 1, [b"next"])

        assert (await pieces.sizes(KEY)).file <= left - 9 * mebibyte
        await collect_all(pieces)
        assert (await pieces.sizes(KEY)).file < 8 * mebibyte


async def test_a_disk_that_others_have_filled_refuses_a_snapshot_as_ever(
    open_again: Opener, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_again(PiecesPolicy(floor_bytes=20 * MAX_PIECE_BYTES)) as pieces:
        await save(pieces, 1, None, [b"head"])
        _disk_with(monkeypatch, directory, 10 * MAX_PIECE_BYTES)
        with pytest.raises(StoreFullError):
            await save(pieces, 2, 1, [b"next"])
        with pytest.raises(StoreFullError):
            await save(pieces, 1, None, [b"first"], key=OTHER)
        assert await pieces.keys() == {KEY}
        assert await saved_contents(pieces, 1) == expected(b"head")
