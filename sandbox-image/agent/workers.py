"""The supervisor's worker: made by the zygote, fed, ended."""

import os
import signal
import socket
from collections.abc import Sequence

from agent import oom_score
from agent.cgroup import CpuCounter, MemoryGauge
from agent.crash_report import LINES_SIGNAL, CrashReport
from agent.framestream import FrameStream
from agent.processes import CHANNEL_LOST, catches, how_ended, kill_all_but, memory_taken, signal_one
from agent.reactor import Reactor, Timer
from agent.savepoint_copy import MAX_PID, SavepointCopy
from agent.wire import Header
from agent.zygote_process import Zygote
from agent.zygote_revival import ZygoteRevival

TYPE_CHECKING = False  # typing is dear to import
_READY_BOUND = 10.0  # seconds from asking the zygote to the worker's hello
_TRIES = 3
_CHECK_BOUND = 2.0  # seconds for a savepoint to find out whether it can go on
_DYING = 0.05  # seconds
_UNUSABLE = 70  # exit code of a sandbox in which nothing can run any more
OUT_OF_MEMORY = 71  # and of one whose memory stays full though everything in it was ended


if TYPE_CHECKING:
    from typing import Protocol

    class Owner(Protocol):
        """Who is told of them."""

        def worker_ready(self) -> None:
            """A fresh one waits for work."""

        def worker_resumed(self, copy: SavepointCopy, header: Header) -> None:
            """A savepoint has taken over and waits for work."""

        def worker_unfit(self, why: str) -> None:
            """It could not."""

        def savepoints(self) -> set[int]:
            """The processes that stand by."""

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

    def __init__(self, reactor: Reactor, owner: "Owner", gauge: MemoryGauge, threads: int) -> None:
        self._reactor = reactor
        self._owner = owner
        self._gauge = gauge
        self._revival = ZygoteRevival(reactor)
        self._zygote = Zygote(reactor, owner.rehearsing, self._revival.over, threads)
        self._stream: FrameStream | None = None
        self._overdue: Timer | None = None
        self.cpu = CpuCounter()  # as of what the host was told last
        self._tries = 0
        self._crash_report: CrashReport | None = None
        self._killed_for: str | None = None  # why, where we had to end it
        self._adopted: SavepointCopy | None = None  # it has taken over, and is finding out whether it can go on
        self.pid: int | None = None
        self.ready = False

    def begin(self, *, oom: bool = False) -> None:
        """Have a fresh worker made, after ending whatever an earlier one left; `oom`: for lack of memory."""
        self._owner.worker_replaced()
        self._forget_worker()
        self._revival.forget()
        self._handle_ended(kill_all_but(self.zygotes()))
        if oom and not self._gauge.has_room():
            os._exit(OUT_OF_MEMORY)
        self._tries += 1
        if self._tries > _TRIES:
            os._exit(_UNUSABLE)  # nothing can run here any more: the host sees the sandbox end
        self._close_crash_report()
        self._crash_report = CrashReport()
        answers, answers_writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._zygote.start()
            connection = self._zygote.ask(answers_writing, self._crash_report.writing)
        except OSError:
            os.close(answers)
            self._overdue = self._reactor.after(0.05, self._begin_anew)
            return
        finally:
            self._crash_report.close_writing()
            os.close(answers_writing)
        # Nothing is read from the socket: descriptors that user code passes over it are refused by the kernel.
        connection.shutdown(socket.SHUT_RD)
        writing = connection.detach()
        self._stream = FrameStream(self._reactor, answers, writing, self._frame, self._channel_broken)
        self._overdue = self._reactor.after(_READY_BOUND, self._begin_anew)

    def adopt(self, copy: SavepointCopy, *, oom: bool) -> None:
        """Let a savepoint be the worker, after ending all else; whether it can is told."""
        self._owner.worker_replaced()
        self._forget_worker()
        self.pid, self._adopted = copy.pid, copy
        self._stream = copy.becomes_worker(self._frame, self._channel_broken)
        # A zygote that is just being made again can be looked into: another one is made when the copy stands.
        spared = set() if self._revival.forget() else self.zygotes()
        self._handle_ended(kill_all_but({*spared, copy.pid or 0}))
        if self._adopted is not copy:  # it was a dead one
            return
        oom_score.give(oom_score.WORKER, copy.pid or 0)
        if oom and not self._gauge.has_room():
            self._unfit("there is no memory left for it")
        else:
            self._overdue = self._reactor.after(_CHECK_BOUND, lambda: self._unfit("it did not come back in time"))
            self.send({"type": "resume"})

    def _unfit(self, why: str) -> None:
        self._forget_worker()
        self._owner.worker_unfit(why)

    def kill(self, why: str) -> None:
        """End a worker that is of no use any more; its death is told with this reason."""
        if self.pid is not None:
            self._killed_for = self._killed_for or why  # one that takes long to die loses its channel meanwhile
            self._signal(signal.SIGKILL)

    def send(self, header: Header, parts: Sequence[bytes] = (), descriptors: Sequence[int] = ()) -> None:
        """To the worker; descriptors go along and are closed here."""
        if self._stream is not None:
            self._stream.send(header, parts, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)

    def ours(self) -> set[int]:
        """The processes that nothing a worker says may end."""
        return {pid for pid in (self.pid, self._zygote.pid) if pid is not None} | self._owner.savepoints()

    def zygotes(self) -> set[int]:
        """What forks workers and rehearsals."""
        return {self._zygote.pid} if self._zygote.pid is not None else set()

    def rehearse(self, connection: int) -> None:
        """Have a rehearsal begun that is driven over `connection`. Raises OSError."""
        self._zygote.rehearse(connection)

    @property
    def held(self) -> bool:
        """Whether everything is stopped for a save."""
        return self._revival.held

    def hold(self) -> None:
        """Everything is being stopped for a save, until `go_on`."""
        self._revival.held = True

    def go_on(self) -> None:
        """What was stopped for a save may run."""
        self._revival.release()
        self._revival.begin(self._zygote, ready=self.ready)

    def expend(self, pid: int) -> None:
        """What is forked from it goes with it before all others where memory runs out."""
        oom_score.give(oom_score.EXPENDABLE, pid)

    def spare(self, pid: int) -> None:
        """A savepoint goes after it."""
        oom_score.give(oom_score.STANDING_BY, pid)

    def kill_stranger(self, pid: int) -> None:
        """End a process whose purpose is gone."""
        if 1 < pid < MAX_PID and pid not in self.ours():
            signal_one(pid, signal.SIGKILL)

    def taken(self) -> int:
        """Bytes that the worker has had so far, those that it gave back and took again with them."""
        return 0 if self.pid is None else memory_taken(self.pid)

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
            signal_one(self.pid, number)

    def reaped(self, ended: Sequence[tuple[int, int]]) -> None:
        """Processes that were waited for: a death of the worker is told."""
        self._handle_ended(ended)
        self._revival.begin(self._zygote, ready=self.ready)

    def ask_for_lines(self) -> bool:
        """Have the worker's C code say which lines run; whether it will."""
        if self._crash_report is None or self.pid is None or not catches(self.pid, LINES_SIGNAL):
            return False
        self._crash_report.asked = True
        self._signal(LINES_SIGNAL)
        return True

    def lines_are_waited_for(self) -> bool:
        """Whether it has not said them yet."""
        return self._crash_report is not None and self._crash_report.waits()

    def lines(self) -> bytes:
        """The lines that ran when it was asked last, or met a fatal signal; or nothing."""
        return b"" if self._crash_report is None else self._crash_report.lines()

    def forget_lines(self) -> None:
        """What was said of them is past."""
        if self._crash_report is not None:
            self._crash_report.forget()

    def _close_crash_report(self) -> None:
        if self._crash_report is not None:
            self._crash_report.close()
            self._crash_report = None

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
        copy = self._adopted
        if self.ready:
            self._owner.worker_says(header, parts)
        elif copy is None and header["type"] == "ready" and isinstance(header.get("pid"), int):
            self.pid = header["pid"]
            self._is_ready()
            self._owner.worker_ready()
        elif copy is not None and header["type"] == "resumed":
            self._is_ready()
            self._owner.worker_resumed(copy, header)
            self._revival.begin(self._zygote, ready=self.ready)

    def _is_ready(self) -> None:
        self.ready, self._adopted = True, None
        self._tries = 0
        if self._overdue is not None:
            self._overdue.cancel()

    def _channel_broken(self, _reason: str) -> None:
        # Without it no result can arrive. A worker that is just dying has closed it too, and is given time to.
        pid = self.pid

        def kill() -> None:
            if pid is not None and self.pid == pid:
                self.kill(CHANNEL_LOST)

        self._reactor.after(_DYING, kill)

    def _forget_worker(self) -> None:
        self.ready = False
        self.pid = self._killed_for = self._adopted = None
        if self._overdue is not None:
            self._overdue.cancel()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _handle_ended(self, ended: Sequence[tuple[int, int]]) -> None:
        for pid, status in ended:
            if pid == self._zygote.pid:
                self._zygote.ended()
                self._revival.over()
            elif pid == self.pid:
                how = self._killed_for or how_ended(status)
                if self._adopted is not None:
                    self._unfit(how)
                    continue
                self._forget_worker()
                self._owner.worker_died(how)
            else:
                self._owner.process_ended(pid, status)
