"""What PID 1 does as such: it lets go of its standard streams, and waits for every process that ends."""

import os
import signal
import socket
from collections.abc import Callable

from agent.processes import reap
from agent.reactor import Reactor


class Init:
    """`reaped` gets (pid, wait status) of what has ended."""

    def __init__(self, reactor: Reactor, reaped: Callable[[list[tuple[int, int]]], None]) -> None:
        self._reaped = reaped
        self._reading, self._writing = socket.socketpair()
        for end in (self._reading, self._writing):
            end.setblocking(False)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        reactor.watch(self._reading.fileno(), self._child_ended)

    def _child_ended(self, _events: int) -> None:
        try:
            self._reading.recv(4096)
        except BlockingIOError:
            return
        self._reaped(reap())


def let_go_of_standard_streams() -> None:
    """They lead nowhere from here on; the attach connector has copies of its own."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
