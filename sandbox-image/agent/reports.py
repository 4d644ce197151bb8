"""What a worker says of a cell that has ended: a frame, everything in it capped."""

from agent import plain_json, pristine
from agent.execution import MAX_TEXT, Report
from agent.wire import Header, encode

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_MAX_NAMES_BYTES = 200_000  # of the names in one report, as JSON
_MAX_DETAIL_TEXT = 4_000  # characters of a message or a note
_MAX_NOTES = 40
_MAX_NAME = 200


def described(report: Report, header: Header) -> bytes:
    """The frame that carries it, with what the header says besides."""
    notes = report.notes[:_MAX_NOTES]
    error = report.error and {"type": report.error[0][:_MAX_NAME], "message": report.error[1][:_MAX_DETAIL_TEXT]}
    detail = {
        "error": error,
        "bound": _capped_names(report.bound, "bound", notes),
        "removed": _capped_names(report.removed, "removed", notes),
        "displays": [display.mime for display in report.displays],
        "value": report.value is not None,
        "notes": [note[:_MAX_DETAIL_TEXT] for note in notes],
    }
    parts = [plain_json.write(detail), _capped(report.value or ""), _capped(report.traceback)]
    parts += [display.data for display in report.displays]
    return encode({"type": "done", "status": report.status, **header}, parts)


def _capped_names(names: list[str], how: str, notes: list[str]) -> list[str]:
    kept: list[str] = []
    size = 0
    for name in names:
        size += len(plain_json.write(name[:_MAX_NAME])) + 2
        if size > _MAX_NAMES_BYTES:
            notes.append(f"{len(names) - len(kept)} more names were {how} than are listed.")
            break
        kept.append(name[:_MAX_NAME])
    return kept


def _capped(text: str) -> bytes:
    """At most MAX_TEXT bytes, from the beginning and the end, with a line that says what was left out."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_TEXT:
        return data
    head, tail = data[: MAX_TEXT * 3 // 4], data[-MAX_TEXT // 5 :]
    left_out = len(data) - len(head) - len(tail)
    return head + f"\n… {left_out:,} of {len(data):,} bytes left out …\n".encode() + tail
