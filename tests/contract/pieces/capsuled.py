"""A process that exports a session of so many MiB and imports it again, and prints the most memory it used, in KiB."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from orchestrator.domain.import_ports import Arrival
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.snapshots import MAX_PIECE_BYTES, Encoding, Manifest, Piece, Section
from tests.contract.pieces.steps import most_memory
from tests.unit.pretended_engine import IMAGE, house


def _digests(count: int) -> Iterator[str]:
    return (f"{i:032x}" for i in range(count))


async def _carry(directory: Path, mebibytes: int) -> None:
    async with house(directory) as opened:
        intent = replace(await opened.records.imports.plan_import(0, 99), execution=0)
        async with await opened.pieces.begin(intent) as writer:
            for digest in _digests(mebibytes):
                await writer.put(Piece(digest, MAX_PIECE_BYTES, Encoding.RAW, os.urandom(MAX_PIECE_BYTES)))
            section = Section(b"", tuple(_digests(mebibytes)))
            manifest = Manifest(1, 0, 0, IMAGE.environment, "3.11", namespace=section)
            stored = await writer.commit(manifest)
        assert await opened.records.imports.import_session(Arrival(LOCAL_TENANT, "s", intent, stored, ()), most=None)

        async def chunks() -> AsyncIterator[bytes]:
            async with aclosing(opened.tenancy.capsules.exports.export("s", sequence=1)) as stream:
                async for chunk in stream:
                    yield chunk

        report = await opened.tenancy.capsules.imports.bring_in("t", chunks())
        assert report.stored_bytes == mebibytes * MAX_PIECE_BYTES


if __name__ == "__main__":
    asyncio.run(_carry(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(f"{most_memory()}\n")
