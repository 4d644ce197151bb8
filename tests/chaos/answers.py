"""What an answer says of its session, read from the fields that every client gets."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.programs import MARK

Span = tuple[int, int]  # executions, both ends included

_LOST = re.compile(r"Lost: the effects of executions? (\d+)(?: to (\d+))?,")
_FILES_LOST = re.compile(r"Lost: what executions? (\d+)(?: to (\d+))? did to files")
_NOT_RESTORED = re.compile(r"Not restored: (.*)")
_HELD = re.compile(r"(?:^|; )(?:log|array) \(")
# Whoever kills a worker in the midst of a wake has it blame what it was loading. Apart from that nothing that these
# programs hold may be left out of a snapshot or of a wake, and nothing damages a file here.
_NEVER = re.compile(
    r"Not saved:|Saved only in part|Not restored(?!.*ended the process)|Files not restored|Snapshot \d+ "
)


@dataclass(frozen=True, slots=True)
class State:
    """What a step has printed: its session once its own number was in it."""

    numbers: Sequence[int]
    slots: Sequence[int]
    files: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a step. Whatever a field of it is missing for is a breach of its own."""

    execution: int | None  # None: not run
    code: str | None  # of the error; None: ok
    message: str
    state: State | None  # None: it did not come so far
    lost: Sequence[Span]
    files_lost: Sequence[Span]
    left_out: bool  # whether a wake names list or array as what it could not bring back
    resumed: bool  # whether the call has cost its process or its container
    resumed_from: int  # the execution that the session stands at then; 0: none
    saved_through: int
    strange: Sequence[str]  # notes that nothing explains
    value: str | None
    notes: Sequence[str]

    @property
    def summary(self) -> str:
        """For people."""
        parts = [f"execution {self.execution}", self.code or "ok", f"saved through {self.saved_through}"]
        if self.state is not None:
            parts.append(f"{self.state.numbers} {self.state.slots} files {self.state.files}")
        if self.resumed:
            parts.append(f"resumed from {self.resumed_from}")
        if self.message:
            parts.append(self.message)
        return "; ".join([*parts, *self.notes])


def answer_of(fields: Mapping[str, Any]) -> Answer:
    """From the structured content of a result."""
    error, notes = fields["error"] or {}, [str(note) for note in fields["notes"]]
    resumed = fields["resumed_from"]
    return Answer(
        execution=fields["execution"],
        code=error.get("code"),
        message=str(error.get("message", "")),
        state=_state(str(fields["output"])),
        lost=_spans(_LOST, notes),
        files_lost=_spans(_FILES_LOST, notes),
        left_out=any((found := _NOT_RESTORED.match(note)) and _HELD.search(found[1]) for note in notes),
        resumed=resumed is not None,
        resumed_from=0 if resumed is None else resumed["execution"] or 0,
        saved_through=fields["saved_through"] or 0,
        strange=[note for note in notes if _NEVER.match(note)],
        value=fields["value"],
        notes=notes,
    )


def _spans(pattern: re.Pattern[str], notes: Sequence[str]) -> list[Span]:
    found = [match for note in notes if (match := pattern.match(note)) is not None]
    return [(int(match[1]), int(match[2] or match[1])) for match in found]


def _state(output: str) -> State | None:
    for line in output.splitlines():
        if line.startswith(MARK):
            numbers, slots, files = json.loads(line.removeprefix(MARK))
            return State(numbers, slots, [int(number) for number in files])
    return None
