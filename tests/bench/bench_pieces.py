"""Snapshots on disk beside a plain file: write speed by page, row, journal and batch, then the store itself.

Run by `make bench`; needs no engine. Everything is measured in one run, in turns, so that the machine's drift hits all
alike; 1.00 is the speed of writing the same bytes into a plain file and syncing it once.
"""

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.store.pieces.store import PiecesPolicy, SqlitePieces, open_pieces
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.snapshots import Encoding, Manifest, Piece, Section, SnapshotIntent

MIB = 1024 * 1024
SIZE = 128 * MIB
ROUNDS = 5
KEY = "0" * 32


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to write blobs into SQLite; sizes in bytes."""

    page: int = 65_536
    row: int = MIB
    batch: int = 16 * MIB
    journal: str = "TRUNCATE"
    synchronous: str = "FULL"

    def __str__(self) -> str:
        batch = "all" if self.batch >= SIZE else f"{self.batch // MIB} MiB"
        page, row = self.page // 1024, self.row // 1024
        return f"{self.journal:8} {self.synchronous:6} page {page:2} KiB, rows {row:4} KiB, {batch}"


OURS = Shape()
SHAPES = (
    OURS,
    *(Shape(batch=batch) for batch in (4 * MIB, 8 * MIB, 32 * MIB, SIZE)),
    *(Shape(row=row) for row in (64 * 1024, 256 * 1024, 4 * MIB)),
    *(Shape(page=page) for page in (4_096, 16_384)),
    Shape(journal="DELETE"),
    Shape(journal="WAL"),
    Shape(journal="WAL", synchronous="NORMAL"),
)


def plain(path: Path, data: memoryview) -> None:
    """The floor: the same bytes in a file, synced."""
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), MIB):
            file.write(data[start : start + MIB])
        os.fsync(file.fileno())


def connected(path: Path, shape: Shape) -> sqlite3.Connection:
    """A connection as the shape has it."""
    raw = sqlite3.connect(path, isolation_level=None)
    for pragma in (
        f"page_size = {shape.page}",
        "auto_vacuum = INCREMENTAL",
        f"journal_mode = {shape.journal}",
        f"synchronous = {shape.synchronous}",
        "secure_delete = OFF",
    ):
        raw.execute(f"PRAGMA {pragma}").fetchall()
    return raw


def blobs(path: Path, data: memoryview, shape: Shape) -> None:
    """The same bytes as rows, in batches, the file opened for each."""
    with closing(connected(path, shape)) as raw:
        raw.execute("CREATE TABLE pieces (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
    for start in range(0, len(data), shape.batch):
        batch = data[start : start + shape.batch]
        with closing(connected(path, shape)) as raw:
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(
                "INSERT INTO pieces (data) VALUES (?)",
                ((batch[row : row + shape.row],) for row in range(0, len(batch), shape.row)),
            )
            raw.execute("COMMIT")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def fresh() -> Iterator[Path]:
    """A directory beside the real data, so on the same disk and not in memory."""
    with tempfile.TemporaryDirectory(prefix="bench-pieces-", dir=Path.cwd()) as directory:
        yield Path(directory)


def shares(data: memoryview) -> float:
    """Print each shape's share of the plain file's speed; returns the plain file's time."""
    times: dict[Shape | None, list[float]] = {shape: [] for shape in (None, *SHAPES)}
    for _ in range(ROUNDS):
        for shape, taken in times.items():
            with fresh() as directory:
                path = directory / "data"
                taken.append(
                    seconds(lambda: plain(path, data) if shape is None else blobs(path, data, shape))  # noqa: B023 - called at once
                )
    floor = statistics.median(times[None])
    print(f"plain file + fsync, {SIZE // MIB} MiB: {SIZE / MIB / floor:.0f} MiB/s = 1.00")
    for shape in SHAPES:
        share = floor / statistics.median(times[shape])
        print(f"  {shape!s:58} {share:.2f}{'   <- ours' if shape is OURS else ''}")
    return floor


def intent_of(sequence: int) -> SnapshotIntent:
    """Each snapshot follows the one before it."""
    return SnapshotIntent(KEY, sequence, 1, sequence, sequence, sequence - 1 or None, replaces=False, seed=1)


async def save(pieces: SqlitePieces, sequence: int, sent: list[Piece], digests: list[str]) -> None:
    """One snapshot, as the service will make it."""
    async with await pieces.begin(intent_of(sequence)) as writer:
        for piece in sent:
            await writer.put(piece)
        await writer.commit(
            Manifest(sequence, 1, sequence, "environment", "3.11", namespace=Section(b"", tuple(digests)))
        )


async def read(pieces: SqlitePieces, sequence: int) -> None:
    """All of it, verified."""
    async with await pieces.open_snapshot(KEY, sequence) as reader, aclosing(reader.pieces()) as stream:
        async for _ in stream:
            pass


async def store(data: memoryview, floor: float) -> None:
    """Print what the store itself takes: hashing, checking and manifests included."""
    whole = [
        Piece(f"{start:032x}", MIB, Encoding.RAW, bytes(data[start : start + MIB]))
        for start in range(0, len(data), MIB)
    ]
    digests = [piece.raw_digest for piece in whole]
    times: dict[str, list[float]] = {"saved": [], "one piece of 128 changed": [], "read and verified": [], "10 kB": []}
    for _ in range(ROUNDS):
        with fresh() as directory:
            async with open_pieces(directory, SystemClock(), PiecesPolicy(floor_bytes=0)) as pieces:
                marks = [time.perf_counter()]
                await save(pieces, 1, whole, digests)
                marks.append(time.perf_counter())
                await save(pieces, 2, [Piece("f" * 32, MIB, Encoding.RAW, whole[0].data)], [*digests[1:], "f" * 32])
                marks.append(time.perf_counter())
                await read(pieces, 2)
                marks.append(time.perf_counter())
        with fresh() as directory:
            async with open_pieces(directory, SystemClock(), PiecesPolicy(floor_bytes=0)) as pieces:
                await save(pieces, 1, [], [])
                marks.append(time.perf_counter())
                await save(pieces, 2, [Piece("f" * 32, 10_000, Encoding.RAW, bytes(10_000))], ["f" * 32])
                marks.append(time.perf_counter())
        for name, began, ended in zip(times, (0, 1, 2, 4), (1, 2, 3, 5), strict=True):
            times[name].append(marks[ended] - marks[began])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"store: {name:26} {median * 1000:7.1f} ms   {median / floor:5.2f} times the plain file")


def main() -> None:
    """Print the ratios."""
    data = memoryview(os.urandom(SIZE))
    floor = shares(data)
    asyncio.run(store(data, floor))


if __name__ == "__main__":
    main()
