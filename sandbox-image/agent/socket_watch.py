"""Counts the TCP and UDP sockets of this sandbox, and has its worker ended where they are too many.

What waits in them is memory of the kernel's that no limit of cgroup v1 counts, out of one pool for all sandboxes and
the host (`net.ipv4.tcp_mem`, `udp_mem`): a cell that fills it slows down every connection of the host. How much each of
them holds, the container's spec bounds.
"""

import os
from collections.abc import Callable

from agent.reactor import Reactor

MOST = 1024  # sockets: as many as one process may have open
_LOOK = 0.25  # seconds between two looks
_FILES = ("/proc/net/sockstat", "/proc/net/sockstat6")  # of this network namespace
_COUNTED = (b"TCP:", b"UDP:", b"TCP6:", b"UDP6:")
_MAX_FILE = 4096
WHY = f"there were more than {MOST} TCP and UDP sockets in the sandbox, whose buffers no memory limit counts"


class SocketWatch:
    """`too_many` ends whatever holds them, and is called with the reason, in a clause; again as long as that lasts."""

    def __init__(self, reactor: Reactor, too_many: Callable[[str], object], files: tuple[str, ...] = _FILES) -> None:
        self._reactor = reactor
        self._too_many = too_many
        self._files = [fd for fd in map(_opened, files) if fd is not None]
        self._tick()

    def _tick(self) -> None:
        self._reactor.after(_LOOK, self._tick)
        if sum(map(_counted, self._files)) > MOST:
            self._too_many(WHY)


def _opened(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # another kernel's, which has no such pool
        return None


def _counted(fd: int) -> int:
    """Those that are bound or connected; of others nothing waits anywhere."""
    try:
        lines = [line.split() for line in os.pread(fd, _MAX_FILE, 0).splitlines()]
        return sum(int(line[2]) for line in lines if line[:1] and line[0] in _COUNTED and line[1] == b"inuse")
    except (LookupError, OSError, ValueError):
        return 0
