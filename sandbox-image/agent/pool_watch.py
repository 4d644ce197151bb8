"""Counts what the kernel has one pool of for all containers, and has the worker ended where its sandbox takes too many.

Terminals have a number of their own, `kernel.pty.max`. What waits in TCP and UDP sockets is memory that no limit of
cgroup v1 counts, out of `net.ipv4.tcp_mem` and `udp_mem`, which are the host's as well: a cell that fills these slows
down every connection of the host. How much each of the sockets holds, the container's spec bounds.
"""

import os
from collections.abc import Callable, Collection

from agent.lock_watch import LockWatch
from agent.reactor import Reactor

MOST_SOCKETS = 1024  # as many as one process may have open
MOST_TERMINALS = 64  # of some three thousand
TOO_MANY_SOCKETS = (
    f"there were more than {MOST_SOCKETS} TCP and UDP sockets in the sandbox, whose buffers no memory limit counts"
)
TOO_MANY_TERMINALS = f"there were more than {MOST_TERMINALS} terminals in the sandbox, of which all have one pool"
_LOOK = 0.25  # seconds between two looks
_SOCKETS = ("/proc/net/sockstat", "/proc/net/sockstat6")  # of this network namespace
_TERMINALS = "/dev/pts"  # of this container
_COUNTED = (b"TCP:", b"UDP:", b"TCP6:", b"UDP6:")
_MAX_FILE = 4096


def watch_pools(reactor: Reactor, too_many: Callable[[str], object], ours: Callable[[], Collection[int]]) -> LockWatch:
    """Sockets, terminals, and locks on files, as long as the reactor runs; both classes say what is given here."""
    PoolWatch(reactor, too_many)
    return LockWatch(reactor, too_many, ours)


class PoolWatch:
    """`too_many` ends whatever holds them, and is called with the reason, in a clause; again as long as that lasts."""

    def __init__(
        self,
        reactor: Reactor,
        too_many: Callable[[str], object],
        *,
        sockets: tuple[str, ...] = _SOCKETS,
        terminals: str = _TERMINALS,
    ) -> None:
        self._reactor = reactor
        self._too_many = too_many
        self._sockets = [fd for fd in map(_opened, sockets) if fd is not None]
        self._terminals = terminals
        self._tick()

    def _tick(self) -> None:
        self._reactor.after(_LOOK, self._tick)
        if sum(map(_sockets_told, self._sockets)) > MOST_SOCKETS:
            self._too_many(TOO_MANY_SOCKETS)
        elif _terminals_in(self._terminals) > MOST_TERMINALS:
            self._too_many(TOO_MANY_TERMINALS)


def _opened(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # another kernel's, which has no such pool
        return None


def _sockets_told(fd: int) -> int:
    """Those that are bound or connected; of others nothing waits anywhere."""
    try:
        lines = [line.split() for line in os.pread(fd, _MAX_FILE, 0).splitlines()]
        return sum(int(line[2]) for line in lines if line[:1] and line[0] in _COUNTED and line[1] == b"inuse")
    except (LookupError, OSError, ValueError):
        return 0


def _terminals_in(directory: str) -> int:
    try:
        return sum(name.isdigit() for name in os.listdir(directory))
    except OSError:
        return 0
