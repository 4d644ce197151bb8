"""The pipes that cells write to: one after another while nothing is left that writes late, else one for each."""

from _collections_abc import Callable  # collections is dear to import before the hello

from agent.capture import Capture
from agent.cell import Cell
from agent.reactor import Reactor

_MAX_LEFT_OVER = 16  # pipes of ended cells that something still writes to


class Outputs:
    """What cells write, and what was written after their end."""

    def __init__(self, reactor: Reactor, wrote: Callable[[Capture], None]) -> None:
        """`wrote` is called when something was read."""
        self._wrote = wrote
        self._reactor = reactor
        self._free: Capture | None = None  # its pipe has no writer but the worker: the next cell may have it
        self._left_over: list[Cell] = []
        self._late: list[str] = []  # what cells wrote after their end, of pipes that nobody holds any more

    def next(self) -> tuple[Capture, int | None]:
        """For a cell that begins; with the end to write to where the worker does not have it yet."""
        capture, self._free = self._free, None
        if capture is not None and not capture.closed:
            return capture, None
        made = Capture()
        self._reactor.watch(made.fileno(), lambda _events: self._read(made))
        return made, made.writing

    def ended(self, cell: Cell, *, alone: bool) -> None:
        """A cell has ended; whether nothing but the worker is left that could write."""
        if cell.capture is None:  # it was never started
            return
        if alone:
            self._free = cell.capture
        elif not cell.capture.closed:
            self._left_over.append(cell)
            while len(self._left_over) > _MAX_LEFT_OVER:
                self.drop(self._left_over.pop(0).capture)

    def late_notes(self) -> list[str]:
        """What was written late, told once."""
        notes = [*self._late, *(note for cell in self._left_over if (note := cell.late_note()))]
        self._late.clear()
        return notes

    def drop_all(self) -> None:
        """Every writer is ended."""
        for cell in self._left_over:
            self.drop(cell.capture)
        self._left_over.clear()
        self.drop(self._free)
        self._free = None

    def drop(self, capture: Capture | None) -> None:
        """Stop reading. Idempotent."""
        if capture is not None and not capture.closed:
            self._reactor.forget(capture.fileno())
            capture.close()

    def _read(self, capture: Capture) -> None:
        if capture.read():
            self._wrote(capture)
        if capture.ended:
            self.drop(capture)
            for cell in [cell for cell in self._left_over if cell.capture is capture]:
                self._left_over.remove(cell)
                note = cell.late_note()
                if note is not None and len(self._late) < _MAX_LEFT_OVER:
                    self._late.append(note)
