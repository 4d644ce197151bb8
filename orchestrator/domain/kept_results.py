"""What is kept of an answer beside its output, as text: for who asks for it later. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, get_args

from orchestrator.domain.claims import MAX_MESSAGE, MAX_NOTE, clean, json_of, object_of
from orchestrator.domain.errors import Code
from orchestrator.domain.model import CellError, CellText, Display, Ending, ExecutionResult, Outcome, ResumedFrom, Rung
from orchestrator.domain.wire import ProtocolViolationError

ENDINGS: Final[frozenset[str]] = frozenset((*get_args(Outcome), "never_arrived", "outcome_unknown"))

_MOST_PICTURES: Final = 500_000  # bytes of figures of one answer
_MOST_TEXT: Final = 200_000  # characters of its value, and of its traceback
_MOST_REST: Final = 8_000_000  # bytes of all that
_MOST_NAMES: Final = 1_000
_MIME = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class KeptExecution:
    """What is known of an execution that was begun."""

    session_id: str
    execution: int
    outcome: Ending | None  # None: it runs, or nobody has asked its sandbox yet
    started_at: datetime | None
    finished_at: datetime | None
    result: ExecutionResult | None  # None while it runs, and where it is not kept any more


def rest_of(answer: ExecutionResult, *, pictures: bool) -> str:
    """All of an answer but its output, its code and its number; figures where they are wanted and not too large."""
    displays = answer.displays if pictures and sum(len(d.data) for d in answer.displays) <= _MOST_PICTURES else ()
    notes = list(answer.notes)
    if len(displays) < len(answer.displays):
        notes.append(f"{len(answer.displays)} figures of this answer are not kept.")
    error = answer.error
    fields: dict[str, Any] = {
        "status": answer.status,
        "truncated": answer.truncated,
        "value": None if answer.value is None else answer.value[:_MOST_TEXT],
        "displays": [[display.mime, display.data.hex()] for display in displays],
        "error": error and [error.code, error.type, error.message, (error.traceback or "")[:_MOST_TEXT], error.hint],
        "duration_ms": answer.duration_ms,
        "bound": list(answer.bound),
        "removed": list(answer.removed),
        "resumed_from": answer.resumed_from and [answer.resumed_from.rung, answer.resumed_from.execution],
        "memory_peak": answer.memory_peak,
        "notes": notes,
        "cpu": answer.cpu,
        "incarnation": answer.incarnation,
    }
    return json.dumps(fields, separators=(",", ":"))


def result_of_text(text: CellText, session_id: str) -> ExecutionResult | None:
    """The answer again, with what was kept of it; None where that is too little."""
    if not text.rest:
        return None
    fields: Mapping[str, Any] = json.loads(text.rest)
    error, resumed = fields["error"], fields["resumed_from"]
    return ExecutionResult(
        status=fields["status"],
        output=text.output,
        truncated=fields["truncated"],
        output_bytes=text.output_bytes,
        value=fields["value"],
        displays=tuple(Display(mime, bytes.fromhex(data)) for mime, data in fields["displays"]),
        error=error and CellError(error[0], error[1], error[2], error[3] or None, error[4]),
        execution=text.number,
        duration_ms=fields["duration_ms"],
        session_id=session_id,
        bound=tuple(fields["bound"]),
        removed=tuple(fields["removed"]),
        saved_through=None,
        resumed_from=resumed and ResumedFrom(resumed[0], resumed[1]),
        memory_peak=fields["memory_peak"],
        notes=(*fields["notes"], "This is the answer that the execution had; it was not run again."),
        cpu=fields["cpu"],
        incarnation=fields["incarnation"],
    )


def sound_rest(rest: str) -> str:
    """What `rest_of` has made in another installation, every field checked and capped, so that `result_of_text` can
    read it. Raises ProtocolViolationError.
    """
    if not rest:
        return ""
    try:
        fields = object_of(json_of(rest.encode(), limit=_MOST_REST), "answer")
        error, resumed = fields["error"], fields["resumed_from"]
        checked: dict[str, Any] = {
            "status": _one_of(fields["status"], ("ok", "error")),
            "truncated": _of_type(fields["truncated"], bool),
            "value": None if fields["value"] is None else _of_type(fields["value"], str)[:_MOST_TEXT],
            "displays": [_sound_display(*display) for display in _listed(fields["displays"])],
            "error": None if error is None else _sound_error(*error),
            "duration_ms": float(_of_type(fields["duration_ms"], (int, float))),
            "bound": [clean(name, _MOST_NAMES) for name in _listed(fields["bound"])],
            "removed": [clean(name, _MOST_NAMES) for name in _listed(fields["removed"])],
            "resumed_from": resumed and [_one_of(resumed[0], get_args(Rung)), _count(resumed[1])],
            "memory_peak": _count(fields["memory_peak"]) or 0,
            "notes": [clean(note, MAX_NOTE) for note in _listed(fields["notes"])],
            "cpu": None if fields["cpu"] is None else float(_of_type(fields["cpu"], (int, float))),
            "incarnation": _count(fields["incarnation"]),
        }
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as fault:
        raise ProtocolViolationError("what is kept of an answer is not as it should be") from fault
    return json.dumps(checked, separators=(",", ":"))


def _sound_display(mime: Any, data: Any) -> list[str]:  # noqa: ANN401 - checked here
    if _MIME.fullmatch(mime) is None:
        raise ValueError("a display's kind is none")
    return [mime, bytes.fromhex(data).hex()]


def _sound_error(code: Any, kind: Any, message: Any, traceback: Any, hint: Any) -> list[str | None]:  # noqa: ANN401 - checked here
    return [
        _one_of(code, get_args(Code)),
        None if kind is None else clean(kind, MAX_NOTE),
        clean(message, MAX_MESSAGE, lines=True),
        _of_type(traceback, str)[:_MOST_TEXT],
        None if hint is None else clean(hint, MAX_NOTE),
    ]


def _one_of(value: Any, choices: tuple[str, ...]) -> str:  # noqa: ANN401 - checked here
    return choices[choices.index(value)]


def _of_type(value: Any, kind: type | tuple[type, ...]) -> Any:  # noqa: ANN401 - checked here
    if not isinstance(value, kind):
        raise TypeError("a field is of another type")
    return value


def _count(value: Any) -> int | None:  # noqa: ANN401 - checked here
    if value is not None and (type(value) is not int or not 0 <= value < 2**63):
        raise ValueError("a count is none")
    return value


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - checked here
    return list(_of_type(value, list)[:_MOST_NAMES])
