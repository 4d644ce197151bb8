"""The transactions that decide what a session's history is. Each call is one turn."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from orchestrator.adapters.store.pieces import manifest_rows, rows
from orchestrator.adapters.store.pieces.file import PieceFile, Place, opened, require_room
from orchestrator.adapters.store.pieces.known import Known, in_either
from orchestrator.adapters.store.pieces.manifest_rows import DamagedManifestError, Located, ManifestRow
from orchestrator.domain.snapshots import (
    Collected,
    Manifest,
    Piece,
    Section,
    SnapshotDamagedError,
    SnapshotIntent,
    SnapshotNotFoundError,
    SnapshotRefusedError,
    SnapshotSummary,
    SnapshotVoidedError,
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a new snapshot may build on."""

    head: AbstractSet[bytes]  # raw digests that its manifest may refer to without sending them
    history: Known  # what need not be stored again when it is sent
    newest_row: int  # of all that the history refers to: what is stored for the new snapshot comes after it

    def of_head(self, raw_digest: str) -> Located | None:
        """Where that piece of the head lies."""
        return self.history.get(raw_digest) if bytes.fromhex(raw_digest) in self.head else None


NOTHING: Final = Ground(frozenset(), Known(), 0)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much history a commit leaves."""

    snapshots: int
    is_read: Callable[[int], bool]  # by a reader that is open: stays beyond that


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that the last turn of a snapshot needs."""

    intent: SnapshotIntent
    manifest: Manifest
    rest: Sequence[Piece]  # the last batch: a small snapshot is one transaction
    sent: Known
    ground: Ground
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Copy:
    """What a restated snapshot takes from another one."""

    intent: SnapshotIntent
    source: int | None
    namespace: bool
    workspace: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Stamp:
    """What of a summary stands in no manifest."""

    created_at: datetime
    seed: int  # of the raw digests: those of a restated snapshot keep the one that they were made under
    newest_row: int | None = None  # pieces after this one were stored for it; None: nothing was


def begin(place: Place, intent: SnapshotIntent) -> tuple[Ground, Collected]:
    """Make the file where there is none, and drop what never became head: as much of it as one turn may.

    The room on the disk is asked for after that, since what is dropped may be what it lacks.
    """
    if not place.path.exists():
        require_room(place, 0)
    with opened(place, create=True) as file:
        _drop_newer(file, intent)
        ground, referenced = _ground(file, intent.head)
        return ground, rows.clear(file, referenced)


def commit(place: Place, parcel: Parcel, keeping: Keeping) -> ManifestRow:
    """Make the snapshot visible, whole."""
    require_room(place, sum(len(piece.data) for piece in parcel.rest))
    with opened(place) as file, file.transaction():
        _require_newest(file, parcel.intent)
        row = _row(parcel, rows.put(file, parcel.rest, in_either(parcel.sent, parcel.ground.history)))
        # What was sent was put in this snapshot's own turns; what is shared must still lie there.
        if not rows.are_all_there(file, row.located):
            raise SnapshotRefusedError("The file lacks pieces that a snapshot shares with the head.")
        manifest_rows.insert(file, row)
        _trim(file, keeping)
        return row


def restate(place: Place, copy: Copy, keeping: Keeping) -> ManifestRow:
    """Commit again what a snapshot of the file holds; no piece is stored, and those shared lie there still."""
    with opened(place, create=copy.source is None) as file:
        # Read first: the source may itself be one that never became head.
        source = None if copy.source is None else _intact(file, copy.source)
        row = _restated(copy, source)
        _drop_newer(file, copy.intent)
        with file.transaction():
            manifest_rows.insert(file, row)
            _trim(file, keeping)
    return row


def find(place: Place, sequence: int, since: int | None) -> tuple[ManifestRow, tuple[int, ...]]:
    """That snapshot, or the newest intact one before it; and those passed over."""
    with opened(place) as file:
        stored = manifest_rows.sequences(file)
        skipped = [] if sequence in stored else [sequence]
        lowest = sequence if since is None else since
        for candidate in stored:
            if not lowest <= candidate <= sequence:
                continue
            try:
                row = manifest_rows.read(file, candidate)
            except DamagedManifestError:
                skipped.append(candidate)
                continue
            if row is not None:
                return row, tuple(skipped)
    raise damaged(skipped) if set(skipped) & set(stored) else absent(sequence)


def damaged(sequences: Sequence[int]) -> SnapshotDamagedError:
    """What to say of manifests that do not fit their digests."""
    return SnapshotDamagedError(
        f"Damaged manifests of snapshots: {', '.join(map(str, sequences))}.",
        hint="Restore the file from a backup, or roll back to another snapshot.",
    )


def absent(sequence: int) -> SnapshotNotFoundError:
    """What to say of a snapshot that is not there."""
    return SnapshotNotFoundError(f"There is no snapshot {sequence} of this session.")


def history(place: Place, head: int) -> tuple[list[SnapshotSummary], list[int]]:
    """The snapshots up to the head, newest first; and those that are damaged."""
    intact: list[SnapshotSummary] = []
    refused: list[int] = []
    with opened(place) as file:
        for sequence in manifest_rows.sequences(file):
            if sequence > head:
                continue
            try:
                summary = manifest_rows.summary_of(file, sequence)
            except DamagedManifestError:
                refused.append(sequence)
                continue
            if summary is not None:
                intact.append(summary)
    return intact, refused


def _intact(file: PieceFile, sequence: int) -> ManifestRow:
    try:
        row = manifest_rows.read(file, sequence)
    except DamagedManifestError as error:
        raise damaged([sequence]) from error
    if row is None:
        raise absent(sequence)
    return row


def _restated(copy: Copy, source: ManifestRow | None) -> ManifestRow:
    intent = copy.intent
    if source is None:
        empty = Manifest(
            intent.sequence, intent.incarnation, intent.execution, "", "", files_execution=intent.execution
        )
        return _summed(empty, (), (), Stamp(copy.created_at, intent.seed))
    kept = manifest_rows.restated(source.manifest, intent, whole=copy.namespace and copy.workspace)
    namespace, workspace = source.namespace, source.workspace
    if not copy.namespace:
        namespace, kept = (), replace(kept, names=(), unlisted_names=0, namespace=Section())
    if not copy.workspace:
        workspace, kept = (), replace(kept, files=(), unlisted_files=0, workspace=Section())
    return _summed(kept, namespace, workspace, Stamp(copy.created_at, source.summary.seed))


def _drop_newer(file: PieceFile, intent: SnapshotIntent) -> None:
    """Forget snapshots that were committed here and never became head: nothing may come back from them."""
    head = intent.head or 0
    if intent.sequence <= head:
        raise SnapshotVoidedError(f"Snapshot {intent.sequence} is not newer than the head.")
    if any(sequence > head for sequence in manifest_rows.sequences(file)):
        with file.transaction():
            file.raw.execute("DELETE FROM manifests WHERE sequence > ?", (head,))


def _require_newest(file: PieceFile, intent: SnapshotIntent) -> None:
    newest = next(iter(manifest_rows.sequences(file)), 0)
    if newest >= intent.sequence:
        raise SnapshotVoidedError(f"Snapshot {intent.sequence} came after snapshot {newest}.")


def _ground(file: PieceFile, head: int | None) -> tuple[Ground, set[int] | None]:
    """Also which rows manifests refer to; None where a damaged one hides what it needs, which is then sent again."""
    history, kept, of_head = Known(), set[int](), set[bytes]()
    is_whole = True
    for sequence in manifest_rows.sequences(file):  # newest first: where a digest lies twice, the later place counts
        try:
            references = manifest_rows.references_of(file, sequence)
        except DamagedManifestError:
            is_whole = False
            continue
        for packed in references:
            history.add(packed)
            kept.add(packed[0])
            if sequence == head:
                of_head.add(packed[4])
    return Ground(of_head, history, max(kept, default=0)), kept if is_whole else None


def _row(parcel: Parcel, last: Mapping[str, Located]) -> ManifestRow:
    intent, manifest = parcel.intent, parcel.manifest
    claimed, wanted = (manifest.sequence, manifest.incarnation), (intent.sequence, intent.incarnation)
    if claimed != wanted or manifest.execution > intent.execution:
        raise SnapshotRefusedError("The sandbox sent another snapshot than the one that it was asked for.")
    ground = parcel.ground

    def find(raw_digest: str) -> Located | None:
        return parcel.sent.get(raw_digest) or last.get(raw_digest) or ground.of_head(raw_digest)

    namespace, workspace = ([*map(find, half.pieces)] for half in (manifest.namespace, manifest.workspace))
    wanted_pieces = (*manifest.namespace.pieces, *manifest.workspace.pieces)
    missing = [
        raw_digest for raw_digest, found in zip(wanted_pieces, (*namespace, *workspace), strict=True) if found is None
    ]
    if missing:
        raise SnapshotRefusedError(
            f"A snapshot refers to {len(missing)} pieces that were neither sent nor in its head.", missing=missing
        )
    stamp = Stamp(parcel.created_at, intent.seed, ground.newest_row)
    return _summed(manifest, _found(namespace), _found(workspace), stamp)


def _found(pieces: Sequence[Located | None]) -> tuple[Located, ...]:
    return tuple(piece for piece in pieces if piece is not None)


def _summed(
    manifest: Manifest,
    namespace: tuple[Located, ...],
    workspace: tuple[Located, ...],
    stamp: Stamp,
) -> ManifestRow:
    pieces = {located.row: located.reference for located in (*namespace, *workspace)}
    summary = SnapshotSummary(
        sequence=manifest.sequence,
        incarnation=manifest.incarnation,
        execution=manifest.execution,
        environment=manifest.environment,
        python=manifest.python,
        created_at=stamp.created_at,
        seed=stamp.seed,
        names=len(manifest.names) + manifest.unlisted_names,
        refused=sum(name.status == "refused" for name in manifest.names),
        raw_bytes=sum(reference.raw_size for reference in pieces.values()),
        stored_bytes=sum(reference.stored_size for reference in pieces.values()),
        new_bytes=sum(
            reference.stored_size
            for row, reference in pieces.items()
            if stamp.newest_row is not None and row > stamp.newest_row
        ),
    )
    return ManifestRow(summary, manifest, namespace, workspace)


def _trim(file: PieceFile, keeping: Keeping) -> None:
    old = manifest_rows.sequences(file)[keeping.snapshots :]
    file.raw.executemany(
        "DELETE FROM manifests WHERE sequence = ?",
        [(sequence,) for sequence in old if not keeping.is_read(sequence)],
    )
