"""When a savepoint is made, and when it is not worth what it costs. Decides only; it is told of times and sizes.

A savepoint costs twice: its fork, and the pages that the worker's next cells have to copy because the savepoint has
them, too. Both together may take a tenth of the time. A single cell may lose a tenth of its own time to them: beyond
that, and where forks are slow, none is made for one cell, and then for two, four and so on.
"""

_SHARE = 0.1  # of the time, for savepoints; of a cell's, for copying pages
_WHOLE = 3.0  # forks: the beginning of the copy, the end of the older one, and pages that both copy (measured: 1.8-3.6)
_PAGE_COST = 2e-6  # seconds to copy a page, the fault with it
_PAGE = 4096  # bytes
_UNFELT = 0.01  # seconds in a cell that nobody notices
_SLOW = 0.25  # seconds of processor time for a fork
_MOST_SKIPPED = 64  # cells
_ROOM = 0.5  # of the memory: in a fuller sandbox a copy costs cells their lives
_MIB = 1024 * 1024


class SavepointPolicy:
    """Of one sandbox. Times are monotonic and in seconds, sizes in bytes."""

    def __init__(self) -> None:
        self._free_at = 0.0  # what savepoints have cost so far is a tenth of the time by then
        self._skip = 0  # cells that pass without one
        self._step = 1  # how many the next time
        self._well = 0  # cells in a row that felt nothing
        self._told: str | None = None  # the reason that was told last

    def due(self, now: float) -> float:
        """Seconds until one may be made."""
        return max(0.0, self._free_at - now)

    @property
    def paused(self) -> bool:
        """Whether none is made until more cells have run."""
        return self._skip > 0

    def cell_ended(self) -> None:
        """One more cell has run."""
        self._skip = max(0, self._skip - 1)

    def made(self, now: float, seconds: float, processor: float) -> str | None:
        """A fork took so long, and so much of the processor: why the next ones wait, where they do and that is new."""
        self._spend(now, seconds * _WHOLE)
        if processor <= _SLOW:
            return None
        self._pause()
        return self._tell("slow", f"Savepoints are made less often: the last one took {processor:.2g} s.")

    def suspicious(self, faults: int, duration: float) -> bool:
        """Whether a cell with so many page faults may have spent too much of its time on copies."""
        cost = faults * _PAGE_COST
        return cost > _UNFELT and cost > duration * _SHARE

    def copied(self, now: float, size: int, duration: float) -> str | None:
        """A cell has copied so much: why the next savepoints wait, where they do and that is new."""
        cost = size / _PAGE * _PAGE_COST
        self._spend(now, cost)
        if not self.suspicious(size // _PAGE, duration):
            return None
        self._pause()
        return self._tell(
            "copies", f"Savepoints are made less often: beside one, the cell copied {size // _MIB} MiB of memory."
        )

    def went_well(self, now: float, faults: int, duration: float) -> None:
        """A cell has run beside a savepoint and has not felt it; after some in a row all is forgiven.

        `faults` are those of the first cell after the fork: what Python itself writes to is copied then.
        """
        self._spend(now, min(faults * _PAGE_COST, duration))
        if not self.paused:
            self._well += 1
            if self._well >= 2 * self._step:
                self._step = 1
                self._told = None

    def failed(self, now: float, seconds: float, reason: str, text: str) -> str | None:
        """None could be made, or it was lost: what is to be told, where that is new."""
        self._spend(now, seconds)
        self._pause()
        return self._tell(reason, text)

    def has_room(self, used: int, limit: int) -> bool:
        """Whether one is kept where so much of so much memory is used; without a limit it is."""
        return used <= limit * _ROOM or limit == 0

    def no_room(self, used: int, limit: int) -> str | None:
        """What is to be told of that, where it is new."""
        return self._tell(
            "memory",
            f"No savepoint is kept: {used // _MIB} MiB are used, more than half of the sandbox's {limit // _MIB} MiB.",
        )

    def _spend(self, now: float, seconds: float) -> None:
        self._free_at = max(self._free_at, now) + seconds * (1 / _SHARE - 1)

    def taken_over(self, now: float) -> None:
        """The only one that there was is the worker now: the next is due at once."""
        self._free_at = now
        self._skip = 0

    def _pause(self) -> None:
        self._well = 0
        self._skip = self._step
        self._step = min(_MOST_SKIPPED, self._step * 2)

    def _tell(self, reason: str, text: str) -> str | None:
        told, self._told = self._told, reason
        return text if told != reason else None
