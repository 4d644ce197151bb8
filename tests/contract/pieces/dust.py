"""A process that puts so many tiny pieces into one snapshot and prints the most memory it ever used, in KiB."""

import asyncio
import sys
from pathlib import Path

from orchestrator.adapters.store.pieces.store import open_pieces
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.snapshots import Encoding, Piece
from tests.contract.pieces.steps import NO_FLOOR, intent_of, manifest_of, most_memory


async def _fill(directory: Path, pieces_sent: int) -> None:
    async with open_pieces(directory, SystemClock(), NO_FLOOR) as pieces:
        intent = intent_of(1, None)
        async with await pieces.begin(intent) as writer:
            for number in range(pieces_sent):
                await writer.put(Piece(f"{number:032x}", 4, Encoding.RAW, number.to_bytes(4, "big")))
            stored = await writer.commit(manifest_of(intent, [], []))
        assert stored.summary.new_bytes == 0


if __name__ == "__main__":
    asyncio.run(_fill(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(f"{most_memory()}\n")
