"""What is kept of an answer beside its output, as text: for who asks for it later. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from orchestrator.domain.model import CellError, CellText, Display, Ending, ExecutionResult, ResumedFrom

_MOST_PICTURES: Final = 500_000  # bytes of figures of one answer
_MOST_TEXT: Final = 200_000  # characters of its value, and of its traceback


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
