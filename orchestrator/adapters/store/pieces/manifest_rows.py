"""Manifests as rows: what is stored of a snapshot, under the host's own digest of all of it."""

import json
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import chain
from typing import Final

from orchestrator.adapters.store.connection import microseconds, moment
from orchestrator.adapters.store.pieces.file import PieceFile
from orchestrator.domain.snapshots import (
    Encoding,
    Manifest,
    PieceReference,
    SavedFile,
    SavedName,
    Section,
    SnapshotIntent,
    SnapshotSummary,
    StoredSnapshot,
)

# Row id, sizes raw and stored, encoding, digests raw and host.
_REFERENCE: Final = struct.Struct(">QIIB16s16s")
Packed = tuple[int, int, int, int, bytes, bytes]
_ENCODINGS: Final = (Encoding.RAW, Encoding.ZSTD)
_COLUMNS: Final = (
    "summary, listing, namespace_body, workspace_body, namespace_references, workspace_references"  # as digested
)


class DamagedManifestError(Exception):
    """A manifest is not what was stored."""


@dataclass(frozen=True, slots=True)
class Located:
    """A piece's reference, and the row that holds the piece."""

    row: int
    reference: PieceReference


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A snapshot as it is stored."""

    summary: SnapshotSummary
    manifest: Manifest
    namespace: tuple[Located, ...]
    workspace: tuple[Located, ...]

    @property
    def located(self) -> Sequence[Located]:
        """The pieces of both sections, each once."""
        return list({piece.row: piece for piece in (*self.namespace, *self.workspace)}.values())

    @property
    def stored(self) -> StoredSnapshot:
        """What the domain calls it."""
        return StoredSnapshot(self.summary, self.manifest, tuple(piece.reference for piece in self.located))


def restated(source: Manifest, intent: SnapshotIntent, *, whole: bool) -> Manifest:
    """The same for another snapshot. Where all of it is restated, nothing that came later is missed."""
    behind = not whole or source.files_execution < source.execution
    return replace(
        source,
        sequence=intent.sequence,
        incarnation=intent.incarnation,
        execution=intent.execution,
        files_execution=min(source.files_execution, intent.execution) if behind else intent.execution,
    )


def insert(file: PieceFile, row: ManifestRow) -> None:
    """Store it, inside the caller's transaction."""
    parts = _parts(row)
    file.raw.execute(
        f"INSERT INTO manifests (sequence, digest, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - the names stand above
        (row.summary.sequence, file.digest(*parts), *parts),
    )


def sequences(file: PieceFile) -> list[int]:
    """All that are stored, newest first."""
    return [found[0] for found in file.raw.execute("SELECT sequence FROM manifests ORDER BY sequence DESC")]


def read(file: PieceFile, sequence: int) -> ManifestRow | None:
    """That snapshot, verified; None where it is not there. Raises DamagedManifestError."""
    parts = _verified(file, sequence)
    return None if parts is None else _row(parts)


def summary_of(file: PieceFile, sequence: int) -> SnapshotSummary | None:
    """The same, without building thousands of names that nobody asked for."""
    parts = _verified(file, sequence)
    return None if parts is None else _summary(parts[0])


def references_of(file: PieceFile, sequence: int) -> Iterable[Packed]:
    """The same of its pieces, as they are packed; none where it is not there."""
    parts = _verified(file, sequence)
    return () if parts is None else chain(_REFERENCE.iter_unpack(parts[4]), _REFERENCE.iter_unpack(parts[5]))


def located(reference: Packed) -> Located:
    """The reference that is packed so."""
    row, raw_size, stored_size, encoding, raw, host = reference
    return Located(row, PieceReference(raw.hex(), host.hex(), raw_size, stored_size, _ENCODINGS[encoding]))


def packed(piece: Located) -> Packed:
    """The other way round."""
    reference = piece.reference
    return (
        piece.row,
        reference.raw_size,
        reference.stored_size,
        _ENCODINGS.index(reference.encoding),
        bytes.fromhex(reference.raw_digest),
        bytes.fromhex(reference.host_digest),
    )


def _verified(file: PieceFile, sequence: int) -> Sequence[bytes] | None:
    try:
        found = file.raw.execute(
            f"SELECT digest, {_COLUMNS} FROM manifests WHERE sequence = ?",  # noqa: S608 - the names stand above
            (sequence,),
        ).fetchone()
    except sqlite3.DatabaseError as error:
        raise DamagedManifestError(str(error)) from error
    if found is None:
        return None
    digest, parts = found[0], tuple(found[1:])
    # What a damaged row holds need not be bytes.
    if not all(isinstance(part, bytes) for part in parts) or file.digest(*parts) != digest:
        raise DamagedManifestError("its digest does not fit")
    # The digest covers the number inside: a row that was moved to another number shows.
    if _summary(parts[0]).sequence != sequence:
        raise DamagedManifestError("it is that of another snapshot")
    return parts


def _parts(row: ManifestRow) -> tuple[bytes, ...]:
    summary, manifest = row.summary, row.manifest
    return (
        _json({**asdict(summary), "created_at": microseconds(summary.created_at)}),
        _json(
            {
                "files_execution": manifest.files_execution,
                "names": [astuple(name) for name in manifest.names],
                "unlisted_names": manifest.unlisted_names,
                "files": [astuple(file) for file in manifest.files],
                "unlisted_files": manifest.unlisted_files,
            }
        ),
        manifest.namespace.body,
        manifest.workspace.body,
        _packed(row.namespace),
        _packed(row.workspace),
    )


def _row(parts: Sequence[bytes]) -> ManifestRow:
    summary, listing = _summary(parts[0]), json.loads(parts[1])
    namespace, workspace = _unpacked(parts[4]), _unpacked(parts[5])
    manifest = Manifest(
        sequence=summary.sequence,
        incarnation=summary.incarnation,
        execution=summary.execution,
        environment=summary.environment,
        python=summary.python,
        files_execution=listing["files_execution"],
        names=tuple(SavedName(*name) for name in listing["names"]),
        unlisted_names=listing["unlisted_names"],
        files=tuple(SavedFile(*file) for file in listing["files"]),
        unlisted_files=listing["unlisted_files"],
        namespace=Section(parts[2], tuple(piece.reference.raw_digest for piece in namespace)),
        workspace=Section(parts[3], tuple(piece.reference.raw_digest for piece in workspace)),
    )
    return ManifestRow(summary, manifest, namespace, workspace)


def _summary(part: bytes) -> SnapshotSummary:
    fields = json.loads(part)
    return SnapshotSummary(**{**fields, "created_at": moment(fields["created_at"])})


def _packed(pieces: Iterable[Located]) -> bytes:
    return b"".join(_REFERENCE.pack(*packed(piece)) for piece in pieces)


def _unpacked(packed: bytes) -> tuple[Located, ...]:
    return tuple(map(located, _REFERENCE.iter_unpack(packed)))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
