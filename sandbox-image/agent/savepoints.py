"""Savepoints in the supervisor's hands: copies of the worker that stand by, the newest of which takes over.

A copy is forked between two cells, after the answer has left. The one before it is ended when the new one has said that
it stands. Whatever a worker says of them is believed by nobody: at worst it costs that worker's own session.
"""

import os
import time
from collections.abc import Callable

from agent.cgroup import MemoryGauge
from agent.reactor import Reactor, Timer
from agent.savepoint_copy import MAX_PID, SavepointCopy
from agent.savepoint_policy import SavepointPolicy
from agent.standing import Standing
from agent.wire import Header
from agent.workers import Workers

_FORK_BOUND = 6.0  # seconds; a thread of the user's in a library's parallel region can hold a fork up for ever
_STAND_BOUND = 10.0  # seconds from the order to the copy's own word
_ARRIVAL = 2.0  # seconds to that word where the worker has ended meanwhile
_LITTLE, _LITTLE_PART = 8 * 1024 * 1024, 50  # bytes, and which part of the limit, that are not worth a savepoint
_LOOK_AGAIN = 1.0  # seconds
_HUNG = "its fork for a savepoint hung"


class Savepoints:
    """`free` says whether the worker has nothing to do; `released` is called when a fork lets go of it."""

    def __init__(
        self,
        reactor: Reactor,
        workers: Workers,
        gauge: MemoryGauge,
        *,
        free: Callable[[], Standing | None],
        released: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._gauge = gauge
        self._free, self._released = free, released
        self._policy = SavepointPolicy()
        self._coming: SavepointCopy | None = None  # until it has said that it stands, and the worker that it forked
        self._standing: SavepointCopy | None = None
        self._due = False  # something has changed since the last one
        self._fresh = False  # no cell has run since the last fork
        self._look: Timer | None = None
        self._arrived: Callable[[], None] | None = None  # who waits for the one that is coming
        self._faults = 0  # page faults of the worker so far, by its own word
        self._notes: list[str] = []

    @property
    def forking(self) -> bool:
        """Whether the worker is at it, and takes no cell."""
        return self._coming is not None and not self._coming.forked

    def tasks(self) -> int:
        """How many processes these are."""
        coming = self._coming is not None and self._coming is not self._standing and self._coming.forked
        return (self._standing is not None) + coming

    def pids(self) -> set[int]:
        """The processes of those that stand."""
        return {copy.pid for copy in (self._standing, self._coming) if copy is not None and copy.pid is not None}

    def notes(self) -> list[str]:
        """What is to be told, once."""
        notes, self._notes = self._notes, []
        return notes

    # when

    def changed(self) -> None:
        """The worker holds something that no savepoint has."""
        self._due = True

    def cell_ended(self, faults: object, duration: float) -> None:
        """A cell has ended by itself: what the savepoint beside it has cost, and whether it is kept."""
        self._due = True
        self._policy.cell_ended()
        before, self._faults = self._faults, faults if isinstance(faults, int) else 0
        used, limit = self._gauge.used(), self._gauge.limit
        if not self._policy.has_room(used, limit):
            self._gauge.look(older_than=_LOOK_AGAIN)
            used = self._gauge.used()
        if not self._policy.has_room(used, limit):
            self.drop()
            self._note(self._policy.no_room(used, limit))
        elif self._standing is not None:
            self._count_copies(self._standing, max(0, self._faults - before), duration)

    def _count_copies(self, copy: SavepointCopy, faults: int, duration: float) -> None:
        first, self._fresh = self._fresh, False
        if not self._policy.suspicious(faults, duration):
            self._policy.went_well(time.monotonic(), faults if first else 0, duration)
            return
        # A fault may have been for new memory: what the two do not share any more tells.
        copied = min(faults * os.sysconf("SC_PAGE_SIZE"), copy.newly_private())
        self._note(self._policy.copied(time.monotonic(), copied, duration))

    def consider(self) -> None:
        """Have one made if it is due and nothing speaks against it; else look again when it may be."""
        standing = self._free() if self._due and self._coming is None and not self._policy.paused else None
        if standing is None or standing.execution is None:
            return
        wait = self._policy.due(time.monotonic())
        if wait > 0:
            if self._look is None:
                self._look = self._reactor.after(wait, self._look_again)
        elif self._policy.has_room(self._gauge.used(), self._gauge.limit):
            self._begin(standing)

    def _look_again(self) -> None:
        self._look = None
        self.consider()

    # how

    def _begin(self, standing: Standing) -> None:
        self._due = False
        try:
            copy = self._coming = SavepointCopy(self._reactor, standing, self._copy_says, self._copy_ended)
        except OSError:
            return
        order = {"type": "savepoint", "execution": standing.execution}
        self._workers.send(order, descriptors=copy.passed())
        self._reactor.after(_FORK_BOUND, lambda: self._overdue(copy))
        self._reactor.after(_STAND_BOUND, lambda: self._overdue(copy))

    def _overdue(self, copy: SavepointCopy) -> None:
        if copy is not self._coming:
            return
        if self._workers.held:  # everything is stopped for a save
            self._reactor.after(_FORK_BOUND, lambda: self._overdue(copy))
        elif not copy.forked:
            self._failed("fork", "A savepoint's fork hung: the process was ended for it.")
            self._workers.kill(_HUNG)
        elif time.monotonic() - copy.began >= _STAND_BOUND:
            self._failed("fork", "A savepoint was given up: its process did not come up.")

    def worker_says(self, header: Header) -> None:
        """It has forked, or could not."""
        copy, skipped, processor = self._coming, header.get("skipped"), header.get("processor")
        if copy is None or copy.forked:
            pass  # it was given up meanwhile
        elif skipped == "threads":
            self._failed("threads", "No savepoint was made: a thread was busy in a library, where no fork is safe.")
        elif skipped is not None:
            self._failed("processes", "No savepoint was made: no process could be started for it.")
        else:
            copy.forked = self._fresh = True
            self._settle(copy)
            now = time.monotonic()
            spent = processor if isinstance(processor, float) and processor >= 0 else 0.0
            self._note(self._policy.made(now, now - copy.began, spent))
        self._released()

    def _copy_says(self, copy: SavepointCopy, header: Header, _parts: list[bytes]) -> None:
        pid = header.get("pid", 0)
        sound = isinstance(pid, int) and 1 < pid < MAX_PID and pid not in self._workers.ours()
        if copy is self._coming and copy.pid is None and header["type"] == "parked" and sound:
            older, self._standing = self._standing, copy
            copy.pid = pid
            self._workers.spare(copy.pid)  # before the older one ends
            if older is not None:
                older.end()
            self._settle(copy)
            self._arrival_is_over()

    def _settle(self, copy: SavepointCopy) -> None:
        """Copy and worker speak in any order: when both have, the next one may be made."""
        if copy.forked and copy.pid is not None:
            self._coming = None
            self.consider()  # something may have changed meanwhile

    def _copy_ended(self, copy: SavepointCopy) -> None:
        """Its pipe has closed, or has brought what no copy of ours says."""
        if copy is self._coming:
            forking = self.forking
            self._standing = None if self._standing is copy else self._standing
            self._failed("processes", "No savepoint was made: its process has ended.")
            if forking:
                self._released()
            self._arrival_is_over()
        elif copy is self._standing:
            self._standing = None
            copy.end()
            self._due = True
            self._failed("ended", "The savepoint was lost: its process was ended.")

    def process_ended(self, pid: int) -> None:
        """A process was reaped."""
        copy = self._standing
        if copy is not None and copy.pid == pid:
            copy.pid = None  # the number may be another process's soon
            self._copy_ended(copy)

    def was_killed(self) -> bool:
        """Whether the savepoint has just ended, as when memory ran out: that is told, and not as the cell's matter."""
        copy = self._standing
        if copy is None or not copy.has_ended():
            return False
        self._copy_ended(copy)
        return True

    def _failed(self, reason: str, text: str) -> None:
        now = time.monotonic()
        copy, self._coming = self._coming, None
        seconds = 0.0
        if copy is not None:
            seconds = now - copy.began
            self._due = True
            if copy is not self._standing:
                copy.end()
        self._note(self._policy.failed(now, seconds, reason, text))

    def _note(self, text: str | None) -> None:
        if text is not None:
            kept = self._standing
            which = "None stands." if kept is None else f"One stands, as of execution {kept.standing.execution}."
            self._notes.append(f"{text} {which}")

    # ends

    def await_arrival(self, then: Callable[[], None]) -> None:
        """The worker has ended: do that when it is known whether one stands that it may have forked last, or now."""
        self._arrived = then
        if self._coming is None or self._coming.pid is not None:
            self._arrival_is_over()
        else:
            self._reactor.after(_ARRIVAL, lambda: self._arrival_is_over(then))

    def _arrival_is_over(self, only: Callable[[], None] | None = None) -> None:
        then = self._arrived
        if then is not None and only in (None, then):
            self._arrived = None
            then()

    def take(self) -> SavepointCopy | None:
        """The one that takes over, if there is one; it is not among the savepoints any more."""
        copy, self._standing = self._standing, None
        self._coming = None if self._coming is copy else self._coming
        self.drop()
        if copy is not None:
            self._policy.taken_over(time.monotonic())
        self._due, self._faults = True, 0
        return copy

    def give_up(self) -> str | None:
        """Memory is short: what is to be told, if there was one whose end gives much of it back.

        What a cell takes anew no savepoint holds: where it is killed for that, the savepoint is worth its memory.
        """
        copy = self._standing
        if copy is None or copy.private() < max(_LITTLE, self._gauge.limit // _LITTLE_PART):
            return None
        self.drop()
        self._due = True
        return "Memory ran short: the savepoint was given up, so that the cell could go on."

    def drop(self) -> None:
        """None stands any more. Idempotent."""
        for copy in (self._coming, self._standing):
            if copy is not None:
                copy.end()
        self._coming = self._standing = self._arrived = None
