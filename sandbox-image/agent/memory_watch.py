"""Looks at the container's memory while a cell runs or something is saved, and gives up what it can spare of ours.

A copy of the worker costs memory where the worker writes. Before the limit kills a cell that takes more and more, what
goes on beside it ends in the order of what it is worth: the rehearsal of a snapshot, the snapshot, the savepoint. What
only a save takes is the save's own loss: the kernel ends that first.
"""

from collections.abc import Callable, Sequence

from agent.cgroup import MemoryGauge
from agent.reactor import Reactor, Timer

_LOOK, _CLOSE_LOOK = 0.02, 0.01  # seconds between two looks
_CLOSE = 0.75  # of the limit: from here on looks are closer
_TIGHT = 0.8  # of it: something is given up at each look
_GREEDY = 1 / 32  # of it: what the cell has taken since the first look
_FULL = 0.9  # of it: all is given up, and the cell is asked for its lines


class MemoryWatch:
    """`taken` counts up the bytes that the worker took; `reliefs` give something up, and return a note where there was
    something; `full` is called once for a cell.
    """

    def __init__(
        self,
        reactor: Reactor,
        gauge: MemoryGauge,
        *,
        wanted: Callable[[], bool],
        taken: Callable[[], int],
        reliefs: Sequence[Callable[[], str | None]],
        full: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._gauge = gauge
        self._wanted, self._taken = wanted, taken
        self._reliefs = reliefs
        self._full = full
        self._told_full = False
        self._in_cell = False
        self._taken_before: int | None = None  # at the first look at the present cell
        self._timer: Timer | None = None
        self._notes: list[str] = []

    def begin_cell(self) -> None:
        """The most that is used from here on is of interest."""
        self._told_full, self._in_cell, self._taken_before = False, True, None
        self._gauge.begin()
        self.watch()

    def end_cell(self) -> int:
        """The most that was used, in bytes."""
        self._in_cell = False
        return self._gauge.most()

    def watch(self) -> None:
        """Look, as long as that is wanted."""
        if self._timer is None:
            self._timer = self._reactor.after(_LOOK, self._tick)

    def notes(self) -> list[str]:
        """What was given up, told once."""
        notes, self._notes = self._notes, []
        return notes

    def _tick(self) -> None:
        self._timer = None
        if not self._wanted():
            return
        self._gauge.look()
        part = self._gauge.used() / self._gauge.limit if self._gauge.limit else 0.0
        if self._in_cell:
            self._look_at_cell(part)
        self._timer = self._reactor.after(_CLOSE_LOOK if part > _CLOSE else _LOOK, self._tick)

    def _look_at_cell(self, part: float) -> None:
        if self._taken_before is None:
            self._taken_before = self._taken()
        if part > _FULL and not self._told_full:
            self._told_full = True
            self._full()
        if part > _TIGHT and self._taken() - self._taken_before > self._gauge.limit * _GREEDY:
            self._relieve(everything=part > _FULL)

    def _relieve(self, *, everything: bool) -> None:
        for give_up in self._reliefs:
            note = give_up()
            if note is not None:
                self._notes.append(note)
                if not everything:
                    return
