"""Every implementation of the pieces runs through the same suite; a new one is a line in the table here."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from orchestrator.adapters.store.pieces.store import PiecesPolicy, SqlitePieces, open_pieces
from orchestrator.domain.ports import Clock
from orchestrator.domain.snapshot_ports import Pieces
from tests.contract.pieces.steps import NO_FLOOR, Opener
from tests.manual_clock import ManualClock


@asynccontextmanager
async def _sqlite(directory: Path, clock: Clock, policy: PiecesPolicy) -> AsyncIterator[SqlitePieces]:
    async with open_pieces(directory, clock, policy) as pieces:
        yield pieces
        assert not pieces._reading, "a snapshot is still kept for a reader"
    assert not _left()


def _left() -> list[str]:
    """Threads and open files of the pieces; the thread that reported the end of the others is given its own."""
    for thread in threading.enumerate():
        if thread.name == "pieces-close":
            thread.join(timeout=5)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("pieces-")]
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            left += [str(target) for target in [entry.readlink()] if ".pieces" in target.name]
    return left


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The data directory."""
    return tmp_path / "data"


@pytest.fixture(params=[pytest.param(_sqlite, id="sqlite")])
def open_again(request: pytest.FixtureRequest, directory: Path, clock: ManualClock) -> Opener:
    return lambda policy=NO_FLOOR: request.param(directory, clock, policy)


@pytest.fixture
async def pieces(open_again: Opener) -> AsyncIterator[Pieces]:
    async with open_again() as opened:
        yield opened


@pytest.fixture
async def sqlite(directory: Path, clock: ManualClock) -> AsyncIterator[SqlitePieces]:
    async with _sqlite(directory, clock, NO_FLOOR) as opened:
        yield opened
