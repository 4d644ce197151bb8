"""The zygote as the supervisor sees it."""

import os
import signal
import socket
import sys
from collections.abc import Callable

from agent.reactor import Reactor

_ENVIRONMENT_KEPT = ("PATH", "PYTHONHASHSEED", "LANG", "TZ")
_ENVIRONMENT_SET = {
    "HOME": "/workspace",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "TMPDIR": "/tmp",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/.matplotlib",
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_HIDDEN = b"hidden"  # its first message


class Zygote:
    """An exec'ed interpreter that forks workers; started again when it was killed.

    `rehearses` gets the process id of each rehearsal; `hidden` is called when nobody can look into it any more.
    """

    def __init__(
        self, reactor: Reactor, rehearses: Callable[[int], None], hidden: Callable[[], None], threads: int
    ) -> None:
        self._reactor = reactor
        self._threads = dict.fromkeys(_THREADS, str(threads))  # of libraries
        self._rehearses, self._hidden = rehearses, hidden
        self.pid: int | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start it if it does not run. The caller sees to it that no user code runs until it is hidden.

        Raises OSError where no process can be started.
        """
        if self.pid is not None:
            return
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: os.environ[name] for name in _ENVIRONMENT_KEPT if name in os.environ}
        command = [*_interpreter(), os.path.dirname(os.path.abspath(__file__)), "zygote", "3"]
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            raise
        if pid == 0:
            _become(its.fileno(), command, kept | _ENVIRONMENT_SET | self._threads)
        its.close()
        if self._socket is not None:
            self._reactor.forget(self._socket.fileno())
            self._socket.close()
        self.pid, self._socket = pid, ours
        ours.setblocking(False)
        self._reactor.watch(ours.fileno(), self._ready)

    def _ready(self, _events: int) -> None:
        # It runs no user code, so it may speak.
        if self._socket is None:
            return
        try:
            message = self._socket.recv(16)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it has ended with a request unread
            message = b""
        if message == _HIDDEN:
            self._hidden()
        elif message:
            self._rehearses(int(message))
        else:
            self._reactor.forget(self._socket.fileno())  # it has ended

    def ended(self) -> None:
        """It was reaped."""
        self.pid = None

    def ask(self, answers: int, crash_report: int) -> socket.socket:
        """Ask for a worker that writes to `answers` and at a crash to `crash_report`; our end of its socket.

        Raises OSError where the zygote does not take the request.
        """
        if self._socket is None:
            raise BrokenPipeError("there is no zygote")
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with its:
            try:
                socket.send_fds(self._socket, [b"worker"], [its.fileno(), answers, crash_report])
            except OSError:
                ours.close()
                raise
        return ours

    def rehearse(self, connection: int) -> None:
        """Ask for a rehearsal that is driven over `connection`. Raises OSError."""
        if self._socket is None or self.pid is None:
            raise BrokenPipeError("there is no zygote")
        socket.send_fds(self._socket, [b"rehearse"], [connection])
        os.kill(self.pid, signal.SIGCONT)  # a worker may have stopped it

    def kill(self) -> None:
        """Make way for another; it may be stopped, or stuck."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)


def _interpreter() -> list[str]:
    return [sys.executable, "-s", "-P"]


def _become(channel: int, command: list[str], environment: dict[str, str]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.setsid()
        os.dup2(channel, 3)
        os.closerange(4, 65_536)
        os.execve(command[0], command, environment)
    finally:
        os._exit(127)
