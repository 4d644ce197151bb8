"""The supervisor's worker: made by the zygote, fed, ended."""

import os
import signal
import socket
from collections.abc import Sequence

from agent.framestream import FrameStream
from agent.processes import LOST_CHANNEL, continue_all, kill_all_but, set_oom_score, stop_all_but
from agent.reactor import Reactor, Timer
from agent.wire import Header
from agent.zygote_process import Zygote

TYPE_CHECKING = False  # typing is dear to import
MAX_PID = 2**22  # of Linux
_READY_BOUND = 10.0  # seconds from asking the zygote to the worker's hello
_TRIES = 3
_MOST_REVIVALS = 8  # of a zygote that is killed again and again, beside one worker
_DYING = 0.05  # seconds
_EXPENDABLE = 1000  # the kernel's greatest score
_MAX_CRASH_REPORT = 64 * 1024
_CRASH_LINES = (b"Fatal Python error", b"Stack (most", b"  File ")
_OURS = (b'"/opt/agent/', b"<frozen runpy>")
_LOST_CHANNEL = "it closed or misused the descriptor that the agent works through"


if TYPE_CHECKING:
    from typing import Protocol

    class Owner(Protocol):
        """Who is told of them."""

        def worker_ready(self) -> None:
            """A fresh one waits for work."""

        def worker_says(self, header: Header, parts: list[bytes]) -> None:
            """A frame from it."""

        def worker_replaced(self) -> None:
            """It and all that it started are about to be ended, for a fresh one."""

        def worker_died(self, how: str) -> None:
            """It has ended, how in a clause."""

        def rehearsing(self, pid: int) -> None:
            """A rehearsal has begun."""

        def process_ended(self, pid: int, status: int) -> None:
            """Another process was reaped."""


class Workers:
    """At most one worker at a time, always a fresh one after a death, and what goes on beside it."""

    def __init__(self, reactor: Reactor, owner: "Owner") -> None:
        self._reactor = reactor
        self._owner = owner
        self._zygote = Zygote(reactor, owner.rehearsing, self._go_on_after_revival)
        self._revivals = 0
        self._revival: Timer | None = None  # everything is stopped until a new zygote is hidden
        self.held = False  # everything is stopped for a save
        self._stream: FrameStream | None = None
        self._overdue: Timer | None = None
        self._tries = 0
        self._crash_report = -1
        self._misused = False  # whether it was killed for the loss of its channel
        self.pid: int | None = None
        self.ready = False

    def begin(self) -> None:
        """Have a fresh worker made, after ending whatever an earlier one left."""
        self._owner.worker_replaced()
        self._forget_worker()
        self._end_revival()
        self._revivals = 0
        self._handle_ended(kill_all_but([self._zygote.pid] if self._zygote.pid else []))
        self._zygote.start()
        self._tries += 1
        if self._tries > _TRIES:
            os._exit(70)  # nothing can run here any more: the host sees the sandbox end
        self._close_crash_report()
        self._crash_report, crash_writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        answers, answers_writing = os.pipe2(os.O_CLOEXEC)
        try:
            connection = self._zygote.ask(answers_writing, crash_writing)
        except OSError:
            os.close(answers)
            self._overdue = self._reactor.after(0.05, self._begin_anew)
            return
        finally:
            os.close(crash_writing)
            os.close(answers_writing)
        # Nothing is read from the socket: descriptors that user code passes over it are refused by the kernel.
        connection.shutdown(socket.SHUT_RD)
        writing = connection.detach()
        self._stream = FrameStream(self._reactor, answers, writing, self._frame, self._channel_broken)
        self._overdue = self._reactor.after(_READY_BOUND, self._begin_anew)

    def send(self, header: Header, parts: Sequence[bytes] = (), descriptors: Sequence[int] = ()) -> None:
        """To the worker; descriptors go along and are closed here."""
        if self._stream is not None:
            self._stream.send(header, parts, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)

    def ours(self) -> set[int]:
        """The processes that nothing a worker says may end."""
        return {pid for pid in (self.pid, self._zygote.pid) if pid is not None}

    def zygotes(self) -> set[int]:
        """What forks workers and rehearsals."""
        return {self._zygote.pid} if self._zygote.pid is not None else set()

    def rehearse(self, connection: int) -> None:
        """Have a rehearsal begun that is driven over `connection`. Raises OSError."""
        self._zygote.rehearse(connection)

    def go_on(self) -> None:
        """What was stopped for a save may run."""
        self.held = False
        if self._revival is None:
            continue_all()
            self._revive_zygote()

    def _revive_zygote(self) -> None:
        """Make another where it was killed, as a worker can: rehearsals need it.

        It is exec'ed, and can be looked into until it has hidden itself: so long nothing of the session's runs.
        """
        due = self._zygote.pid is None and self.ready and self._revival is None and not self.held
        if not due or self._revivals == _MOST_REVIVALS:
            return
        self._revivals += 1
        stop_all_but(())
        try:
            self._zygote.start()
        except OSError:  # no process can be started
            continue_all()
            return
        self._revival = self._reactor.after(_READY_BOUND, self._zygote.kill)

    def _go_on_after_revival(self) -> None:
        """Nobody can look into the zygote any more, or it has ended."""
        if self._end_revival() and not self.held:
            continue_all()

    def _end_revival(self) -> bool:
        revival, self._revival = self._revival, None
        if revival is not None:
            revival.cancel()
        return revival is not None

    def expend(self, pid: int) -> None:
        """What is forked from it goes with it before all others where memory runs out."""
        set_oom_score(_EXPENDABLE, pid)

    def kill_stranger(self, pid: int) -> None:
        """End a process whose purpose is gone."""
        if 1 < pid < MAX_PID and pid not in self.ours():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def tasks(self) -> int:
        """How many processes live in the sandbox when no cell has left any."""
        return 1 + (self.pid is not None) + (self._zygote.pid is not None)

    def interrupt(self, execution: int) -> None:
        """SIGINT, and word of which execution it is for: the signal may come before its cell."""
        self.send({"type": "stop", "execution": execution})
        self._signal(signal.SIGINT)

    def nudge(self) -> None:
        """A signal that does nothing but end a blocking system call, so that an earlier one is heeded."""
        self._signal(signal.SIGURG)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def reaped(self, ended: Sequence[tuple[int, int]]) -> None:
        """Processes that were waited for: a death of the worker is told."""
        self._handle_ended(ended)
        self._revive_zygote()

    def crash_traceback(self) -> bytes:
        """The lines that ran when the last worker met a fatal signal, or nothing."""
        try:
            report = os.read(self._crash_report, _MAX_CRASH_REPORT)
        except (BlockingIOError, OSError):
            return b""
        lines = [
            line
            for line in report.split(b"\n")
            if line.startswith(_CRASH_LINES) and not any(ours in line for ours in _OURS)
        ]
        return b"\n".join(lines)

    def _close_crash_report(self) -> None:
        if self._crash_report >= 0:
            os.close(self._crash_report)
            self._crash_report = -1

    def _begin_anew(self) -> None:
        self._zygote.kill()
        self.begin()

    def _frame(self, header: Header, parts: list[bytes]) -> None:
        try:
            self._take(header, parts)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            # User code has written what no worker of ours would.
            self._channel_broken("")

    def _take(self, header: Header, parts: list[bytes]) -> None:
        if header["type"] == "ready" and not self.ready and isinstance(header.get("pid"), int):
            self.pid = header["pid"]
            self.ready = True
            self._tries = 0
            if self._overdue is not None:
                self._overdue.cancel()
            self._owner.worker_ready()
        else:
            self._owner.worker_says(header, parts)

    def _channel_broken(self, _reason: str) -> None:
        # Without it no result can arrive. A worker that is just dying has closed it too, and is given time to.
        pid = self.pid

        def kill() -> None:
            if pid is not None and self.pid == pid:
                self._misused = True
                os.kill(pid, signal.SIGKILL)

        self._reactor.after(_DYING, kill)

    def _forget_worker(self) -> None:
        self.ready = self._misused = False
        self.pid = None
        if self._overdue is not None:
            self._overdue.cancel()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _handle_ended(self, ended: Sequence[tuple[int, int]]) -> None:
        for pid, status in ended:
            if pid == self._zygote.pid:
                self._zygote.ended()
                self._go_on_after_revival()
            elif pid == self.pid:
                how = _LOST_CHANNEL if self._misused else _how(status)
                self._forget_worker()
                self._owner.worker_died(how)
            else:
                self._owner.process_ended(pid, status)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"its process was ended by {name}"
    code = os.waitstatus_to_exitcode(status)
    if code == LOST_CHANNEL:
        return _LOST_CHANNEL
    return f"its process ended itself with exit code {code}"
