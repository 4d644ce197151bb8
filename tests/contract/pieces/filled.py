"""A process that saves and reads back a snapshot of so many MiB, and prints the most memory it ever used, in KiB."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

from orchestrator.adapters.store.pieces.store import open_pieces
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.snapshots import MAX_PIECE_BYTES, Encoding, Manifest, Piece, Section
from tests.contract.pieces.steps import KEY, NO_FLOOR, OTHER, intent_of, most_memory


def _digests(count: int) -> Iterator[str]:
    return (f"{i:032x}" for i in range(count))


async def _fill(directory: Path, mebibytes: int) -> None:
    async with open_pieces(directory, SystemClock(), NO_FLOOR) as pieces:
        async with await pieces.begin(intent_of(1, None)) as writer:
            for digest in _digests(mebibytes):
                await writer.put(Piece(digest, MAX_PIECE_BYTES, Encoding.RAW, os.urandom(MAX_PIECE_BYTES)))
            await writer.commit(Manifest(1, 1, 1, "e", "3.11", namespace=Section(b"", tuple(_digests(mebibytes)))))
        async with await pieces.open_snapshot(KEY, 1) as reader, aclosing(reader.pieces()) as stream:
            read = [type(piece) async for piece in stream]
        assert read == [Piece] * mebibytes
        await pieces.fork(KEY, 1, intent_of(1, None, key=OTHER, replaces=True))
        assert not (await pieces.check(OTHER, 1)).problems


if __name__ == "__main__":
    asyncio.run(_fill(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(f"{most_memory()}\n")
