"""One execution in the supervisor's hands."""

import time
from dataclasses import dataclass

from agent.capture import Capture
from agent.reactor import Timer

_LATE_KEPT = 1_000  # bytes of what is written after a cell has ended


@dataclass(eq=False)
class Cell:
    """What was ordered, and how far it is."""

    request: int
    number: int
    code: bytes
    limit: float  # seconds
    grace: float  # seconds
    head: int  # bytes of output to keep from its beginning
    tail: int  # and from its end
    verdict: str | None = None  # why it was asked to stop
    started: float | None = None
    timer: Timer | None = None
    capture: Capture | None = None

    def start(self, capture: Capture) -> None:
        """The clock runs from now on, and what comes through `capture` is its output."""
        self.started = time.monotonic()
        self.capture = capture
        capture.begin_anew(self.head, self.tail)

    def drain(self) -> None:
        """Take in what was written up to now."""
        if self.capture is not None:
            self.capture.drain()

    def output(self) -> tuple[bytes, bytes, int]:
        """Head, tail, and how many bytes were written in all; what comes later counts as late."""
        if self.capture is None:
            return b"", b"", 0
        kept = bytes(self.capture.head), self.capture.tail(), self.capture.total
        self.capture.begin_anew(_LATE_KEPT, 0)
        return kept

    def late_note(self) -> str | None:
        """What was written since the cell ended, or since this was asked last."""
        if self.capture is None or not self.capture.total:
            return None
        text = bytes(self.capture.head).decode("utf-8", "replace")
        note = f"Execution {self.number} wrote {self.capture.total} more bytes after it had ended: {text}"
        self.capture.begin_anew(_LATE_KEPT, 0)
        return note

    def duration(self) -> float:
        """Seconds since it was started."""
        return 0.0 if self.started is None else time.monotonic() - self.started
