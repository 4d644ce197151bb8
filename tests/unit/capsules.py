"""Capsules to be read: one that is whole, and its records apart, so that a test can make one that is not."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.domain.capsule_reading import CapsuleReader, Item
from orchestrator.domain.capsules import HEAD, MAGIC, CapsuleWriter, Header
from orchestrator.domain.model import CellText, ExecutionRecord
from orchestrator.domain.snapshots import Encoding, Manifest, Piece, SavedFile, SavedName, Section

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
AT = datetime(2030, 1, 2, tzinfo=UTC)
MOST = 1_000_000
REST = json.dumps(
    {
        "status": "ok",
        "truncated": False,
        "value": "1",
        "displays": [["image/png", "89"]],
        "error": None,
        "duration_ms": 1.5,
        "bound": ["x"],
        "removed": [],
        "resumed_from": None,
        "memory_peak": 5,
        "notes": [],
        "cpu": None,
        "incarnation": 1,
    },
    separators=(",", ":"),
)
HEADER = Header("1.2.3", "s", AT, 2, 2, 77, KEY.public_key().public_bytes_raw().hex(), "installation k")
CELLS = (CellText(1, "x = 1", "\ud800out", 4, REST), CellText(2, "y", "", 0))
LEDGER = (ExecutionRecord(1, 0, "ok", AT, AT, ("x",), ()), ExecutionRecord(2, 0, "outcome_unknown", AT, None, (), ()))


def piece(content: bytes) -> Piece:
    return Piece(hashlib.blake2b(content, digest_size=16).hexdigest(), len(content), Encoding.RAW, content)


PIECES = (piece(b"one"), piece(b"two"), piece(b"three"))
MANIFEST = Manifest(
    sequence=4,
    incarnation=3,
    execution=2,
    environment="e" * 64,
    python="3.11",
    names=(SavedName("x", "value", "int", 28, "saved", None, None, "a" * 32),),
    files=(SavedFile("data/a.csv", "file", 12, 2, "b" * 32),),
    namespace=Section(b"body", (PIECES[0].raw_digest, PIECES[1].raw_digest)),
    workspace=Section(b"other", (PIECES[1].raw_digest, PIECES[2].raw_digest)),
)


def whole(
    *,
    header: Header = HEADER,
    manifest: Manifest = MANIFEST,
    pieces: Sequence[Piece] = PIECES,
    ledger: Sequence[ExecutionRecord] = LEDGER,
    cells: Sequence[CellText] = CELLS,
    key: Ed25519PrivateKey = KEY,
) -> bytes:
    """A capsule that is written and signed as it should be, whatever it holds."""
    writer = CapsuleWriter()
    written = [writer.header(header), writer.manifest(manifest), *map(writer.piece, pieces), writer.ledger(ledger)]
    written += map(writer.cell, cells)
    return b"".join((*written, writer.end(key.sign(writer.unsigned().message))))


def records_of(capsule: bytes) -> list[bytes]:
    """Its records, each with its head."""
    place, found = len(MAGIC), []
    while place < len(capsule):
        _, size = HEAD.unpack_from(capsule, place)
        found.append(capsule[place : place + HEAD.size + size])
        place += HEAD.size + size
    return found


def resealed(records: Sequence[bytes]) -> bytes:
    """Those records, digested and signed anew: what somebody makes who holds the key."""
    writer = CapsuleWriter()
    written = writer._hashed(MAGIC) + b"".join(map(writer._hashed, records[:-1]))
    return written + writer.end(KEY.sign(writer.unsigned().message))


def read(capsule: bytes, step: int | None = None, most: int = MOST) -> list[Item]:
    """What a reader says, fed in steps of so many bytes."""
    reader, items, step = CapsuleReader(most_bytes=most), [], step or max(1, len(capsule))
    for start in range(0, len(capsule), step):
        items += reader.feed(capsule[start : start + step])
    reader.finish()
    return items
