"""A process that ends itself with SIGKILL before the n-th statement that it would send to SQLite, for each n.

It makes `directory/base`, and then, for n = 1, 2, …, a copy of it in `directory/n` on which a child does a whole
sequence of snapshots until it is killed. A child that comes to the end is the last one.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.adapters.store.pieces import file, writer
from orchestrator.adapters.store.pieces.store import open_pieces
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.model import CellText
from orchestrator.domain.snapshots import MAX_PIECE_BYTES
from tests.contract.pieces.steps import KEY, NO_FLOOR, collect_all, intent_of, save

HEAD = [b"head" * 1000, b"stays" * 30_000]
NEXT = [b"next" * 1000, bytes(MAX_PIECE_BYTES), b"stays" * 30_000, b"more" * 20_000]
LAST = [b"last" * 1000]
CELLS = [CellText(number, "code" * 1000, "output" * 1000, 6000) for number in range(1, 4)]
BATCH_BYTES = 100_000  # so that a small snapshot is written in several turns


async def _make(directory: Path) -> None:
    async with open_pieces(directory, SystemClock(), NO_FLOOR) as pieces:
        await save(pieces, 1, None, [b"old" * 1000, *HEAD])
        await save(pieces, 2, 1, HEAD)


async def _live(directory: Path) -> None:
    async with open_pieces(directory, SystemClock(), NO_FLOOR) as pieces:
        await save(pieces, 3, 2, NEXT)
        await pieces.note_cells(KEY, CELLS)
        await collect_all(pieces)
        await pieces.restate(intent_of(4, 3, replaces=True), 2)
        for sequence in range(5, 10):
            await save(pieces, sequence, sequence - 1, LAST)
        await collect_all(pieces)
        await pieces.delete(KEY)


def _killed_before(statement: int) -> Callable[[str], None]:
    left = statement

    def count(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def _child(directory: Path, statement: int) -> None:
    usual, count = file._connect, _killed_before(statement)

    def connect(place: file.Place) -> sqlite3.Connection:
        raw = usual(place)
        raw.set_trace_callback(count)
        return raw

    file._connect = connect
    writer.BATCH_BYTES = BATCH_BYTES  # type: ignore[misc] # final for everybody else
    asyncio.run(_live(directory))


def main(directory: Path) -> None:
    """Make them all, and print how many were killed."""
    asyncio.run(_make(directory / "base"))
    for statement in range(1, 10_000):
        shutil.copytree(directory / "base", directory / str(statement))
        child = os.fork()
        if child == 0:
            _child(directory / str(statement), statement)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            sys.stdout.write(f"{statement - 1}\n")
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
