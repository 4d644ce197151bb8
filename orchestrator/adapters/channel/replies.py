"""Reads what an agent replies into the domain's records. Each field is checked for its type and capped.

A reply that an agent of ours could not have sent raises ProtocolViolationError; what user code can bring about (long
names, strange types, displays that are none) is cut or left out, and said in a note.
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from orchestrator.domain import claims
from orchestrator.domain.model import CellOrder, CellReport, Display, Namespace, Outcome, Variable
from orchestrator.domain.ports import AgentHello
from orchestrator.domain.wire import Frame, ProtocolViolationError

MAX_REPORT_JSON: Final = 1024 * 1024
MAX_LIST_JSON: Final = 8 * 1024 * 1024
MAX_NAMES_IN_REPORT: Final = 1_000
MAX_NAMES_IN_LIST: Final = 10_000
MAX_VALUE: Final = 1024 * 1024
MAX_TRACEBACK: Final = 256 * 1024
MAX_RECENT: Final = 1_000  # bytes of output, told while a cell runs
MAX_DISPLAYS: Final = 32
MAX_MIME: Final = 100
FIXED_PARTS: Final = 5  # JSON, head, tail, value, traceback; then the displays

# By signature, so that nothing is handed on under a name that it does not bear.
_SIGNATURES: Final = {"image/png": b"\x89PNG\r\n\x1a\n"}
# What becomes of a cell through the host (lost, deleted) is not an agent's to say.
_AGENT_OUTCOMES: Final = frozenset(get_args(Outcome)) - {"sandbox_lost", "deleted"}
_MAX_CHARACTER_BYTES: Final = 4


def agent_hello(frame: Frame) -> AgentHello:
    """The agent's hello, its proof being checked already."""
    header = frame.header
    return AgentHello(
        agent=claims.text_in(header, "agent", claims.MAX_NAME),
        python=claims.text_in(header, "python", claims.MAX_NAME),
        incarnation=claims.count_in(header, "incarnation"),
        last_execution=claims.count_in(header, "last_execution"),
        running=claims.optional_count_in(header, "running"),
        last_request=claims.count_in(header, "last_request"),
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was turned down."""

    code: str
    message: str
    resumed: int | None = None  # of `lost`: the execution that a savepoint stood at which has taken over


def landlock(frame: Frame) -> int | None:
    """Which version of Landlock the worker is locked in with, by a claim's reply; older agents do not say."""
    return claims.count_in(frame.header, "landlock") if "landlock" in frame.header else None


def refusal(frame: Frame) -> Refusal | None:
    """What a reply says that is not ok, else None."""
    if claims.flag_in(frame.header, "ok"):
        return None
    error = claims.object_of(frame.header.get("error"), "error")
    code = claims.text_in(error, "code", claims.MAX_NAME)
    resumed = claims.optional_count_in(error, "resumed") if code == "lost" else None
    return Refusal(code, claims.text_in(error, "message", claims.MAX_MESSAGE), resumed)


def cell_report(frame: Frame, order: CellOrder) -> CellReport:
    """What the agent says became of that cell."""
    header, parts = frame.header, frame.parts
    if len(parts) < FIXED_PARTS:
        raise ProtocolViolationError(f"a result has {len(parts)} parts")
    if claims.count_in(header, "execution") != order.execution:
        raise ProtocolViolationError("a result is that of another execution")
    worker = _worker_report(parts[0])
    notes = _Notes()
    displays = _displays(worker, parts[FIXED_PARTS:], notes)
    bound = _names(worker, "bound", notes)
    removed = _names(worker, "removed", notes)
    head, tail, written, left_out = _output(frame, order)
    error_type, error_message = _error(worker, claims.optional_text_in(header, "cause", claims.MAX_NOTE))
    value = _text(parts[3], MAX_VALUE, "value", notes)
    traceback = _text(parts[4], MAX_TRACEBACK, "traceback", notes)
    notes.take(worker, header)
    return CellReport(
        outcome=_outcome(header),
        output_head=head,
        output_tail=tail,
        output_bytes=written,
        output_left_out=left_out,
        value=value if claims.flag_in(worker, "value") else None,
        displays=displays,
        error_type=error_type,
        error_message=error_message,
        traceback=traceback or None,
        bound=bound,
        removed=removed,
        variable_count=claims.count_in(header, "variables"),
        duration=claims.seconds_in(header, "duration"),
        namespace_kept=claims.flag_in(header, "namespace_kept"),
        resumed=_resumed(header, order),
        memory_peak=claims.count_in(header, "memory_peak"),
        cpu=claims.seconds_in(header, "cpu") if "cpu" in header else None,
        notes=notes.all(),
    )


def output_by_now(frame: Frame) -> tuple[int, str]:
    """How many bytes a cell has written, and the last of them."""
    if len(frame.parts) != 1 or len(frame.parts[0]) > MAX_RECENT:
        raise ProtocolViolationError("a frame of output is not one short part")
    text = frame.parts[0].decode("utf-8", "replace")
    return claims.count_in(frame.header, "total"), claims.clean(text, MAX_RECENT, lines=True)


def namespace(frame: Frame) -> Namespace:
    """What the agent says the namespace holds."""
    if len(frame.parts) != 1:
        raise ProtocolViolationError(f"a listing has {len(frame.parts)} parts")
    listing = claims.object_of(claims.json_of(frame.parts[0], limit=MAX_LIST_JSON), "the listing")
    notes = _Notes()
    variables = _variables(listing, "variables", notes)
    imports = _variables(listing, "imports", notes)
    notes.take(listing)
    return Namespace(variables, imports, notes.all())


def _outcome(header: Mapping[str, Any]) -> Outcome:
    outcome = header.get("outcome")
    if not isinstance(outcome, str) or outcome not in _AGENT_OUTCOMES:
        raise ProtocolViolationError("a result has no known outcome")
    return cast("Outcome", outcome)


def _resumed(header: Mapping[str, Any], order: CellOrder) -> int | None:
    resumed = claims.optional_count_in(header, "resumed")
    if resumed is not None and (header.get("namespace_kept") is not False or resumed >= order.execution):
        raise ProtocolViolationError("a savepoint took over that there cannot have been")
    return resumed


def _worker_report(raw: bytes) -> Mapping[str, Any]:
    if not raw:  # the worker was killed and has reported nothing
        return {"bound": [], "removed": [], "displays": [], "value": False, "notes": []}
    return claims.object_of(claims.json_of(raw, limit=MAX_REPORT_JSON), "the report")


class _Notes:
    """Notes in the order in which they came, ours first, so that no flood of a sandbox's hides them."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._left_out = 0

    def add(self, text: str) -> None:
        self._texts.append(text)

    def take(self, *sources: Mapping[str, Any]) -> None:
        for fields in sources:
            room = max(0, claims.MAX_NOTES - len(self._texts))
            texts, left_out = claims.texts_in(fields, "notes", most=room, limit=claims.MAX_NOTE)
            self._texts += texts
            self._left_out += left_out

    def all(self) -> tuple[str, ...]:
        if self._left_out:
            return (*self._texts, f"{self._left_out} more notes were left out.")
        return tuple(self._texts)


def _names(worker: Mapping[str, Any], field: str, notes: _Notes) -> tuple[str, ...]:
    names, left_out = claims.texts_in(worker, field, most=MAX_NAMES_IN_REPORT, limit=claims.MAX_NAME)
    if left_out:
        notes.add(f"{left_out} more names were {field}; only the first {MAX_NAMES_IN_REPORT} are listed.")
    return names


def _error(worker: Mapping[str, Any], cause: str | None) -> tuple[str | None, str | None]:
    if worker.get("error") is None:
        return None, cause
    error = claims.object_of(worker["error"], "error")
    return (
        claims.text_in(error, "type", claims.MAX_NAME),
        claims.text_in(error, "message", claims.MAX_MESSAGE, lines=True),
    )


def _output(frame: Frame, order: CellOrder) -> tuple[str, str, int, int]:
    head, tail = frame.parts[1], frame.parts[2]
    written = claims.count_in(frame.header, "output_bytes")
    if len(head) > order.output_head or len(tail) > order.output_tail or written < len(head) + len(tail):
        raise ProtocolViolationError("a result's output does not fit what was asked for")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    if written == len(head) + len(tail):
        # Nothing is missing between them: a character cut in two by the seam belongs to the tail.
        return decoder.decode(head), decoder.decode(tail, final=True), written, 0
    start = 0
    while start < min(len(tail), _MAX_CHARACTER_BYTES - 1) and tail[start] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's own
        start += 1
    # Characters cut in two at the edges of what was left out belong to it.
    text = decoder.decode(head)
    left_out = written - len(head) - len(tail) + start + len(decoder.getstate()[0])
    return text, tail[start:].decode("utf-8", "replace"), written, left_out


def _text(raw: bytes, limit: int, what: str, notes: _Notes) -> str:
    if len(raw) > limit:
        notes.add(f"The {what} has {len(raw)} bytes; only the first {limit} are shown.")
    return raw[:limit].decode("utf-8", "replace")


def _displays(worker: Mapping[str, Any], parts: tuple[bytes, ...], notes: _Notes) -> tuple[Display, ...]:
    mimes, _ = claims.texts_in(worker, "displays", most=len(parts), limit=MAX_MIME)
    if len(claims.list_in(worker, "displays")) != len(parts):
        raise ProtocolViolationError("a result's displays are not as many as its parts")
    shown: list[Display] = []
    for mime, data in zip(mimes, parts, strict=True):
        signature = _SIGNATURES.get(mime)
        if signature is None or not data.startswith(signature):
            notes.add(f"A display that calls itself {mime!r} was left out: it is not of a kind that can be shown.")
        elif len(shown) < MAX_DISPLAYS:
            shown.append(Display(mime, data))
    if len(parts) > MAX_DISPLAYS:
        notes.add(f"Only the first {MAX_DISPLAYS} of {len(parts)} displays are shown.")
    return tuple(shown)


def _variables(listing: Mapping[str, Any], field: str, notes: _Notes) -> tuple[Variable, ...]:
    rows = claims.list_in(listing, field)
    if len(rows) > MAX_NAMES_IN_LIST:
        notes.add(f"Only the first {MAX_NAMES_IN_LIST} of {len(rows)} {field} are listed.")
    return tuple(_variable(row) for row in rows[:MAX_NAMES_IN_LIST])


def _variable(row: object) -> Variable:
    match row:
        case [str(name), str(kind), None | int() as size] if claims.is_optional_count(size):
            return Variable(claims.clean(name, claims.MAX_NAME), claims.clean(kind, claims.MAX_NAME), size)
    raise ProtocolViolationError("a listing's row is not [name, type, size]")
