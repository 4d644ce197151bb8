"""A copy of the worker as the supervisor sees it, from the order for its fork to its end."""

import os
import signal
import socket
import time
from collections.abc import Callable

from agent.framestream import FrameStream
from agent.reactor import Reactor
from agent.standing import Standing
from agent.wire import Header

MAX_PID = 2**22  # of Linux
_PRIVATE = (b"Private_Clean", b"Private_Dirty")
_KIB = 1024


class SavepointCopy:
    """Its own socket and pipe, which are the worker's once it has taken over."""

    def __init__(
        self,
        reactor: Reactor,
        standing: Standing,
        said: Callable[["SavepointCopy", Header, list[bytes]], None],
        ended: Callable[["SavepointCopy"], None],
    ) -> None:
        """Raises OSError."""
        self.standing = standing.copy()
        self.began = time.monotonic()
        self.forked = False  # the worker goes on; the copy itself may yet have to say that it stands
        self.pid: int | None = None  # once it has said so
        self._private = 0
        self._said, self._ended = said, ended
        self._its, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        answers, self._answers = os.pipe2(os.O_CLOEXEC)
        # Nothing is read from the socket: descriptors that user code passes over it are refused by the kernel.
        ours.shutdown(socket.SHUT_RD)
        self.stream = FrameStream(reactor, answers, ours.detach(), self._frame, self._broken)

    def passed(self) -> list[int]:
        """The descriptors that the worker is sent for it; whoever sends them closes them."""
        return [self._its.detach(), self._answers]

    def becomes_worker(self, said: Callable[[Header, list[bytes]], None], broken: Callable[[str], None]) -> FrameStream:
        """From here on what it says is a worker's word."""
        self._said = lambda _copy, header, parts: said(header, parts)
        self._ended = lambda _copy: broken("")
        return self.stream

    def end(self) -> None:
        """It is of no use any more. Idempotent."""
        self.stream.close()
        if self.pid is not None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def has_ended(self) -> bool:
        """Whether its process is a dead one, which has yet to be reaped."""
        if self.pid is None:
            return False
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def private(self) -> int:
        """Bytes that it shared with the worker and does not any more: what its end would give back. Dear to ask for."""
        try:
            with open(f"/proc/{self.pid}/smaps_rollup", "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith(_PRIVATE))

    def newly_private(self) -> int:
        """How much of it since this was asked last."""
        before, self._private = self._private, self.private()
        return max(0, self._private - before)

    def _frame(self, header: Header, parts: list[bytes]) -> None:
        self._said(self, header, parts)

    def _broken(self, _reason: str) -> None:
        self._ended(self)


def notes_of(resumed: Header) -> list[str]:
    """What a takeover has not kept, by the copy's own word."""
    threads, tasks = (resumed.get(name) for name in ("threads", "tasks"))
    notes = []
    if isinstance(threads, int) and threads > 0:
        which = "1 thread" if threads == 1 else f"{threads} threads"
        notes.append(f"Not kept: {which} of the session's; locks that they held stay held.")
    if isinstance(tasks, int):
        undone = "" if tasks < 1 else f"; tasks of it that were not done: {tasks}"
        notes.append(f"Not kept: asyncio's event loop, which is made anew{undone}.")
    return notes
