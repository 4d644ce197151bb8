"""Reads the frames of saving and restoring into the domain's records. Each field is checked for its type and capped."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.domain import claims
from orchestrator.domain.manifests import MAX_ITEMS, MAX_REASON, is_digest, read_manifest
from orchestrator.domain.snapshots import (
    MAX_PIECE_BYTES,
    Encoding,
    Manifest,
    Piece,
    RestoreReport,
    SaveOrder,
    SaveReport,
    SnapshotRefusedError,
)
from orchestrator.domain.wire import Frame, ProtocolViolationError

MAX_REMARKS: Final = 100
MAX_LOSSES_JSON: Final = 8 * 1024 * 1024
MAX_LOSSES: Final = 10_000
MAX_LOST_NAME: Final = 400  # a name, or a path
_SAVE_PARTS: Final = 3  # the manifest, and the two bodies

_ENCODINGS: Final = {str(encoding): encoding for encoding in Encoding}
_Rows = tuple[tuple[str, str], ...]


def piece(frame: Frame) -> Piece:
    """A piece that a save sends."""
    header = frame.header
    digest, size, encoding = header.get("digest"), claims.count_in(header, "size"), header.get("encoding")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ProtocolViolationError("a piece's digest is none")
    if not isinstance(encoding, str) or encoding not in _ENCODINGS:
        raise ProtocolViolationError("a piece has no known encoding")
    if len(frame.parts) != 1:
        raise ProtocolViolationError(f"a piece has {len(frame.parts)} parts")
    data = frame.parts[0]
    if size > MAX_PIECE_BYTES or len(data) > MAX_PIECE_BYTES:
        raise ProtocolViolationError(f"a piece of {len(data)} bytes for {size} is over its cap")
    if encoding == Encoding.RAW and len(data) != size:
        raise ProtocolViolationError(f"a raw piece has {len(data)} bytes instead of {size}")
    return Piece(digest, size, _ENCODINGS[encoding], data)


def save_report(frame: Frame, order: SaveOrder, *, files_read: bool) -> SaveReport:
    """What the agent says that a save made. Not for the loop: a manifest may take some 100 ms.

    Raises SnapshotRefusedError where it is of something else than what was ordered.
    """
    if len(frame.parts) != _SAVE_PARTS:
        raise ProtocolViolationError(f"a save's reply has {len(frame.parts)} parts")
    if claims.flag_in(frame.header, "files") is not files_read:
        raise ProtocolViolationError("a save's reply and its frozen moment differ")
    manifest = read_manifest(*frame.parts)
    _require_ordered(manifest, order)
    return SaveReport(
        manifest=manifest,
        files_read=files_read,
        cpu_seconds=claims.seconds_in(frame.header, "cpu"),
        remarks=_rows(claims.list_in(frame.header, "remarks")[:MAX_REMARKS], "remarks"),
    )


def restore_report(frame: Frame) -> RestoreReport:
    """What the agent says that came back of a section. Not for the loop."""
    header, parts = frame.header, frame.parts
    if "crashed" in header:
        match header["crashed"]:
            case [int() as group, str(reason)] if claims.is_optional_count(group):
                return RestoreReport(crashed=(group, claims.clean(reason, MAX_REASON)))
        raise ProtocolViolationError("what crashed a restore is not [group, reason]")
    if len(parts) != 1:
        raise ProtocolViolationError(f"a restore's reply has {len(parts)} parts")
    told = claims.object_of(claims.json_of(parts[0], limit=MAX_LOSSES_JSON, items=MAX_ITEMS), "the losses")
    return RestoreReport(
        restored=claims.count_in(header, "restored"), lost=_losses(told, "lost"), state_lost=_losses(told, "state_lost")
    )


def _require_ordered(manifest: Manifest, order: SaveOrder) -> None:
    intent = order.intent
    for what, said, ordered in (
        ("sequence", manifest.sequence, intent.sequence),
        ("incarnation", manifest.incarnation, intent.incarnation),
        ("execution", manifest.execution, intent.execution),
        ("environment", manifest.environment, order.environment),
    ):
        if said != ordered:
            raise SnapshotRefusedError(f"The agent saved {what} {said} instead of {ordered}.")


def _losses(told: Mapping[str, Any], field: str) -> _Rows:
    listed = claims.list_in(told, field)
    rows = _rows(listed[:MAX_LOSSES], field)
    if len(listed) > MAX_LOSSES:
        # No loss goes untold, and no flood of them fills the memory.
        rows = (*rows, ("…", f"{len(listed) - MAX_LOSSES} more were lost, which are not listed"))
    return rows


def _rows(listed: Sequence[object], what: str) -> _Rows:
    return tuple(_row(row, what) for row in listed)


def _row(row: object, what: str) -> tuple[str, str]:
    match row:
        case [str(name), str(text)]:
            return claims.clean(name, MAX_LOST_NAME), claims.clean(text, MAX_REASON)
    raise ProtocolViolationError(f"{what!r} holds something that is not [name, text]")
