"""A session in one file: the format, written. Pure; docs/capsule.md describes it, capsule_reading.py reads it.

A stream of records after a magic: a letter, the length of what follows (4 bytes, big-endian), and that. Their order is
fixed: header, manifest, two bodies, pieces in the manifest's order, ledger, cells, end. The end holds the SHA-256 of
all bytes before it, and a signature of that.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from typing import Final

from orchestrator.domain.manifests import MAX_BODY_BYTES, MAX_MANIFEST_BYTES, VERSION
from orchestrator.domain.model import CellText, ExecutionRecord
from orchestrator.domain.snapshots import MAX_PIECE_BYTES, Encoding, Manifest, Piece

FORMAT: Final = 1
MAGIC: Final = b"\x89SOCAP1\n"
HEAD: Final = struct.Struct(">cI")
PIECE: Final = struct.Struct(">16sBI32s")  # raw digest, encoding, raw size, SHA-256 of the stored bytes
CELL: Final = struct.Struct(">QQIII")  # number, bytes of output, bytes of code, of kept output, and of the rest
ENCODINGS: Final = (Encoding.RAW, Encoding.ZSTD)
KEPT: Final = 200  # executions, and cells with their text: what an installation keeps of a session
MAX_CELL_BYTES: Final = 10_000_000  # what it keeps of their text, in all
END_BYTES: Final = 32 + 64

HEADER, MANIFEST, NAMESPACE, WORKSPACE, PIECES, LEDGER, CELLS, END = b"H", b"M", b"N", b"W", b"P", b"L", b"C", b"E"
# The most bytes of a record of each kind: known before anything is allocated for it.
MOST: Final = {
    HEADER: 16 * 1024,
    MANIFEST: MAX_MANIFEST_BYTES,
    NAMESPACE: MAX_BODY_BYTES,
    WORKSPACE: MAX_BODY_BYTES,
    PIECES: PIECE.size + MAX_PIECE_BYTES,
    LEDGER: 8 * 1024 * 1024,
    CELLS: CELL.size + MAX_CELL_BYTES,
    END: END_BYTES,
}
_SIGNED: Final = b"session-orchestrator capsule 1\0"  # so that no signature of ours for something else fits


@dataclass(frozen=True, slots=True)
class Header:
    """What a capsule says of itself first."""

    product: str  # its version
    session_id: str  # in the installation that wrote it
    created_at: datetime
    executions: int  # that the session has had
    files_execution: int  # the last one before the files were read
    seed: int = field(repr=False)  # of the raw digests: without it nobody can verify them
    signer: str  # public key, 64 hexadecimal characters
    signer_name: str  # what the signer calls itself: a claim


@dataclass(frozen=True, slots=True)
class End:
    """The last record, and the SHA-256 of all before it as it was computed here."""

    digest: bytes
    signature: bytes

    @property
    def message(self) -> bytes:
        """What was signed."""
        return _SIGNED + self.digest


class CapsuleWriter:
    """Makes the bytes of one capsule, record by record; the caller keeps the order."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def header(self, header: Header) -> bytes:
        """The first bytes."""
        fields = {
            "format": FORMAT,
            "product": header.product,
            "session_id": header.session_id,
            "created_at": header.created_at.isoformat(),
            "executions": header.executions,
            "files_execution": header.files_execution,
            "seed": str(header.seed),  # beyond what every JSON reader holds exactly
            "signer": header.signer,
            "signer_name": header.signer_name,
        }
        return self._hashed(MAGIC) + self._record(HEADER, _json(fields))

    def manifest(self, manifest: Manifest) -> bytes:
        """It, and its two bodies, as an agent sends them."""
        fields = {
            "version": VERSION,
            "sequence": manifest.sequence,
            "incarnation": manifest.incarnation,
            "execution": manifest.execution,
            "environment": manifest.environment,
            "python": manifest.python,
            "names": [astuple(name) for name in manifest.names],
            "unlisted_names": manifest.unlisted_names,
            "files": [astuple(file) for file in manifest.files],
            "unlisted_files": manifest.unlisted_files,
            "namespace": manifest.namespace.pieces,
            "workspace": manifest.workspace.pieces,
        }
        # Not escaped, as an agent's is not: it must fit under the same cap. What it holds was cleaned of surrogates.
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        written = self._record(MANIFEST, text), self._record(NAMESPACE, manifest.namespace.body)
        return b"".join((*written, self._record(WORKSPACE, manifest.workspace.body)))

    def piece(self, piece: Piece) -> bytes:
        """One piece, as it is stored."""
        head = PIECE.pack(
            bytes.fromhex(piece.raw_digest),
            ENCODINGS.index(piece.encoding),
            piece.raw_size,
            hashlib.sha256(piece.data).digest(),
        )
        return self._record(PIECES, head, piece.data)

    def ledger(self, executions: Sequence[ExecutionRecord]) -> bytes:
        """Executions that have ended, oldest first."""
        rows = [
            [
                row.number,
                row.outcome,
                row.started_at.isoformat(),
                None if row.finished_at is None else row.finished_at.isoformat(),
                row.bound,
                row.removed,
            ]
            for row in executions
        ]
        return self._record(LEDGER, _json(rows))

    def cell(self, cell: CellText) -> bytes:
        """What one execution was, and all that is kept of its answer."""
        texts = [text.encode("utf-8", "surrogatepass") for text in (cell.code, cell.output, cell.rest)]
        return self._record(CELLS, CELL.pack(cell.number, cell.output_bytes, *map(len, texts)), *texts)

    def unsigned(self) -> End:
        """What is to be signed, when everything else was written."""
        return End(self._whole.digest(), b"")

    def end(self, signature: bytes) -> bytes:
        """The last bytes."""
        return self._record(END, self._whole.digest(), signature)

    def _record(self, kind: bytes, *parts: bytes) -> bytes:
        size = sum(map(len, parts))
        if size > MOST[kind]:
            raise ValueError(f"a record {kind!r} of {size} bytes is over its cap of {MOST[kind]}")
        return self._hashed(b"".join((HEAD.pack(kind, size), *parts)))

    def _hashed(self, written: bytes) -> bytes:
        self._whole.update(written)
        return written


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
