"""Reads the frames of saving and restoring into the domain's records. Each field is checked for its type and capped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class SaveReply:
    """What a supervisor says of a save, and what the session says of it in the parts, unread."""

    files_read: bool
    cpu_seconds: float
    cpu_since: float
    remarks: tuple[tuple[str, str], ...]
    parts: tuple[bytes, ...]


def save_reply(frame: Frame) -> SaveReply:
    """A save's reply."""
    if len(frame.parts) != _SAVE_PARTS:
        raise ProtocolViolationError(f"a save's reply has {len(frame.parts)} parts")
    return SaveReply(
        files_read=claims.flag_in(frame.header, "files"),
        cpu_seconds=claims.seconds_in(frame.header, "cpu"),
        cpu_since=claims.seconds_in(frame.header, "since") if "since" in frame.header else 0.0,
        remarks=_rows(claims.list_in(frame.header, "remarks")[:MAX_REMARKS], "remarks"),
        parts=frame.parts,
    )


def save_report(reply: SaveReply, order: SaveOrder) -> SaveReport:
    """All of it read. Not for the loop: a manifest may take some 100 ms.

    Raises ProtocolViolationError where the manifest breaks its form: user code may have written it, so that nobody but
    this save is to suffer. Raises SnapshotRefusedError where it is of something else than what was ordered.
    """
    manifest = read_manifest(*reply.parts)
    _require_ordered(manifest, order)
    return SaveReport(manifest, reply.files_read, reply.cpu_seconds, reply.remarks, reply.cpu_since)


def crashed_group(frame: Frame) -> tuple[int, str] | None:
    """Which group ended the worker of a restore, and how."""
    match frame.header.get("crashed"):
        case None:
            return None
        case [int() as group, str(reason)] if claims.is_optional_count(group):
            return group, claims.clean(reason, MAX_REASON)
    raise ProtocolViolationError("what crashed a restore is not [group, reason]")


def restore_report(frame: Frame) -> RestoreReport:
    """What the agent says that came back of a section. Not for the loop."""
    restored, crashed = claims.count_in(frame.header, "restored"), crashed_group(frame)
    if crashed is not None:
        return RestoreReport(restored=restored, crashed=crashed, killed=frame.header.get("killed") is True)
    if len(frame.parts) != 1:
        raise ProtocolViolationError(f"a restore's reply has {len(frame.parts)} parts")
    try:
        told = claims.object_of(claims.json_of(frame.parts[0], limit=MAX_LOSSES_JSON, items=MAX_ITEMS), "the losses")
        lost, state_lost = _losses(told, "lost"), _losses(told, "state_lost")
    except ProtocolViolationError:
        # The worker wrote it, which has loaded what user code saved.
        return RestoreReport(restored=restored, lost=(("…", "the sandbox's list of what was lost cannot be read"),))
    return RestoreReport(restored=restored, lost=lost, state_lost=state_lost)


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
