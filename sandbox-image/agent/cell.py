"""One execution in the supervisor's hands."""

import time

from agent.capture import Capture
from agent.reactor import Timer
from agent.wire import Header

_MAX_OUTPUT = 1024 * 1024  # bytes that an order may ask to keep
_LATE_KEPT = 1_000  # bytes of what is written after a cell has ended


class Cell:
    """What was ordered, and how far it is."""

    def __init__(self, request: int, order: Header, code: bytes) -> None:
        self.request = request
        self.code = code
        self.number: int = order["execution"]
        self.limit = float(order["limit"])  # seconds
        self.grace = float(order["grace"])  # seconds
        # Bytes of output to keep from its beginning and from its end.
        self.head, self.tail = min(order["head"], _MAX_OUTPUT), min(order["tail"], _MAX_OUTPUT)
        self.told = order.get("told") is True  # whether the host wants to hear what it writes while it runs
        self.verdict: str | None = None  # why it was asked to stop
        self.started: float | None = None
        self.ended: float | None = None
        self.timer: Timer | None = None
        self.capture: Capture | None = None

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

    def end(self) -> None:
        """It does not run any more. Idempotent."""
        if self.timer is not None:
            self.timer.cancel()
        self.ended = self.ended or time.monotonic()

    def duration(self) -> float:
        """Seconds that it ran."""
        if self.started is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.started


def is_order(header: Header, parts: list[bytes]) -> bool:
    """Whether an `execute` request has all that it needs."""
    numbers = [header.get(name) for name in ("execution", "limit", "grace", "head", "tail")]
    return len(parts) == 1 and all(isinstance(number, int | float) and number >= 0 for number in numbers)
