"""Counts the locks on ranges of files that a sandbox holds, and has the worker ended where they are too many.

Such locks are memory of the kernel's that is in no cgroup and under no limit. /proc/locks would tell of them, but also
of the host's: how many there are, and files of those that belong to open files. What is read instead is the `fdinfo` of
each process's descriptors, which names the locks made through it. That these are all of them, the system calls see to:
a lock goes when its process closes the file, and the threads of a process have one table of descriptors, always.
"""

import os
import time
from _collections_abc import Callable, Collection, Iterator  # collections is dear to import before the hello

from agent.reactor import Reactor

MOST_LOCKS = 4096  # half a megabyte or so; databases hold a handful for each connection
TOO_MANY_LOCKS = (
    f"there were more than {MOST_LOCKS} locks on ranges of files in the sandbox, which no memory limit counts"
)
HIDDEN = "a process in the sandbox hid its descriptors for seconds, and with them how many locks on files it held"
_PAUSE = 1.0  # seconds between two walks
_BREATH = 0.005  # between two parts of a walk: it is the sandbox's own processor that many descriptors take
_PART = 512  # descriptors that are looked at without a pause
_HIDING = 5.0  # seconds; what is just forked from the zygote is hidden for a moment
_MANY_HIDING = 5  # walks, since a clock goes on while the sandbox has no turn
_LOCK = b": POSIX "  # no other kind comes in large numbers: those by flock are one for each open file
_GONE = (FileNotFoundError, ProcessLookupError)
_READ = 4096  # enough where there are few locks
_MORE = 65_536


class LockWatch:
    """`too_many` ends whatever holds them, and is called with the reason, in a clause; again as long as that lasts.
    `ours` are the processes that hide from cells.
    """

    def __init__(
        self,
        reactor: Reactor,
        too_many: Callable[[str], object],
        ours: Callable[[], Collection[int]],
        *,
        processes: str = "/proc",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._too_many = too_many
        self._ours = ours
        self._processes = processes
        self._now = now
        self._sees = False  # whether it can look into a worker that does not hide
        self._hiding: dict[int, tuple[float, int]] = {}  # since when, and at how many walks
        self._walk = self._look()
        reactor.after(_PAUSE, self._go_on)

    def look_into(self, worker: int | None) -> None:
        """A fresh worker, in which no cell has run: where a security module or another kernel forbids to look even into
        that, nobody is taken for hiding.
        """
        try:
            self._sees = bool(os.listdir(f"{self._processes}/{worker}/fdinfo"))
        except _GONE:
            pass
        except OSError:
            self._sees = False

    def _go_on(self) -> None:
        more = False
        try:
            more = self._part()
        finally:  # whatever happens, the next look comes
            self._reactor.after(_BREATH if more else _PAUSE, self._go_on)

    def _part(self) -> bool:
        """Whether the walk has more to look at."""
        if all(next(self._walk, None) is not None for _ in range(_PART)):
            return True
        self._walk = self._look()
        return False

    def _look(self) -> Iterator[int]:
        """One walk over all processes; the locks so far, after each descriptor."""
        locks, hidden = 0, set()
        for pid in _numbers(self._processes):
            if pid == 1 or pid in self._ours():
                continue
            try:
                for found in _locks_of(f"{self._processes}/{pid}"):
                    locks += found
                    if locks > MOST_LOCKS:
                        self._too_many(TOO_MANY_LOCKS)
                        return
                    yield locks
            except _GONE:
                pass
            except OSError:
                hidden.add(pid)
        self._heed(hidden)

    def _heed(self, hidden: set[int]) -> None:
        now, before = self._now(), self._hiding
        self._hiding = {pid: (since, walks + 1) for pid in hidden for since, walks in [before.get(pid, (now, 0))]}
        long = any(now - since >= _HIDING and walks >= _MANY_HIDING for since, walks in self._hiding.values())
        if long and self._sees:
            self._too_many(HIDDEN)


def _locks_of(process: str) -> Iterator[int]:
    """By descriptor. Raises OSError: one of `_GONE` for a process that has ended, others for one that hides."""
    directory = f"{process}/fdinfo"
    names = os.listdir(directory)
    if not names:  # a first thread that has ended has none, and the others may go on
        tables = (f"{process}/task/{thread}/fdinfo" for thread in _numbers(f"{process}/task"))
        directory, names = next(((path, some) for path in tables if (some := _listed(path))), (directory, names))
    for name in names:
        yield _locks_through(f"{directory}/{name}")


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except _GONE:
        return []  # that thread has ended


def _locks_through(path: str) -> int:
    """Not many more than too many are counted: each further read costs the kernel as much as the first."""
    try:
        with open(path, "rb", buffering=0) as file:
            told = more = file.read(_READ)
            if _LOCK not in told:
                return 0
            while more and told.count(_LOCK) <= MOST_LOCKS:
                more = file.read(_MORE)
                told += more
            return told.count(_LOCK)
    except FileNotFoundError:
        return 0  # it was closed, and what was locked through it is free


def _numbers(directory: str) -> list[int]:
    return [int(name) for name in os.listdir(directory) if name.isdigit()]
