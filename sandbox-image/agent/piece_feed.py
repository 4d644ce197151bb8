"""The supervisor's end of the pipe to what restores: pieces as they come from the host, a few at a time."""

import os
from collections import deque
from collections.abc import Callable

from agent import piece_records as records
from agent.piece_records import ENCODINGS, HEADER, NO_DIGEST
from agent.reactor import WRITE, Reactor
from agent.save_pipe import enlarge
from agent.wire import Header

_MAX_REASON = 500


def record_of(header: Header, parts: list[bytes]) -> tuple[bytes, bytes]:
    """Header and data of the record for a `piece` or `damaged` frame. Raises ValueError and its kin."""
    if header["type"] == "damaged":
        data = str(header["reason"]).encode("utf-8", "replace")[:_MAX_REASON]
        return HEADER.pack(records.DAMAGED, 0, 0, len(data), NO_DIGEST), data
    (data,) = parts
    digest = bytes.fromhex(header["digest"])
    return HEADER.pack(records.PIECE, ENCODINGS.index(header["encoding"]), header["size"], len(data), digest), data


class PieceFeed:
    """Writes records whenever the other side reads; `passed` is told of each one that has gone."""

    def __init__(self, reactor: Reactor, passed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._passed = passed
        self.reading, self._fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        enlarge(self._fd)
        self._queue: deque[list[memoryview]] = deque()
        self._open = True

    def add(self, header: bytes, data: bytes) -> None:
        """Queue a record."""
        if self._open:
            self._queue.append([memoryview(header), memoryview(data)])
            self._write()

    def close(self, *, given: bool = True) -> None:
        """The other side reads an end; where it was not `given` its own, that is closed too."""
        if not given:
            os.close(self.reading)
        if self._open:
            self._open = False
            self._reactor.forget(self._fd)
            os.close(self._fd)

    def _write(self, _events: int = 0) -> None:
        while self._queue and self._open:
            views = self._queue[0]
            try:
                written = os.writev(self._fd, views)
            except BlockingIOError:
                break
            except OSError:
                self.close()  # nobody reads any more: the worker will say why, or has ended
                return
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if views:
                views[0] = views[0][written:]
                continue
            self._queue.popleft()
            self._passed()
        if self._open and self._queue:
            self._reactor.watch(self._fd, self._write, WRITE)
        else:
            self._reactor.forget(self._fd)
