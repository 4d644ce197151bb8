"""Frames over non-blocking descriptors, for the supervisor: towards the host, and towards the worker."""

import os
from _collections import deque  # type: ignore[import-not-found]  # collections is dear to import before the hello
from _collections_abc import Callable, Sequence

from agent.reactor import READ, WRITE, Reactor
from agent.wire import Decoder, Frame, Header, ProtocolViolationError, encode

READ_SIZE = 64 * 1024
MAX_QUEUED = 32 * 1024 * 1024


class FrameStream:
    """Frames both ways. `closed` is called once, with the reason, when it breaks by itself.

    Where `reading` is None, somebody else reads and hands the bytes to `take`.
    """

    def __init__(
        self,
        reactor: Reactor,
        reading: int | None,
        writing: int,
        arrived: Callable[[Header, list[bytes]], None],
        closed: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._reading, self._writing = reading, writing
        self._arrived, self._closed = arrived, closed
        self._decoder = Decoder()
        self._queue: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._queued = 0
        self.open = True
        for fd in self._descriptors():
            os.set_blocking(fd, False)
        self._watch()

    def send(self, header: Header, parts: Sequence[bytes] = (), descriptors: Sequence[int] = ()) -> None:
        """Queue a frame; descriptors are passed along with it and closed here.

        Raises ValueError where it would exceed the caps.
        """
        try:
            encoded = encode(header, parts)
        except ValueError:
            _close_all(descriptors)
            raise
        self.send_encoded(encoded, descriptors)

    def send_encoded(self, data: bytes | memoryview, descriptors: Sequence[int] = ()) -> None:
        """Queue the bytes of a whole frame; they must stay as they are until they are out."""
        if not self.open or self._queued > MAX_QUEUED:
            _close_all(descriptors)
            if self.open:
                self._break("the other side does not read")
            return
        self._queue.append((memoryview(data), descriptors))
        self._queued += len(data)
        self._write()

    def close(self) -> None:
        """Stop without a call to `closed`; the descriptors are closed. Idempotent."""
        if self.open:
            self.open = False
            for _, descriptors in self._queue:
                _close_all(descriptors)
            self._queue.clear()
            for fd in self._descriptors():
                self._reactor.forget(fd)
                os.close(fd)

    def take(self, data: bytes) -> None:
        """Decode what was read."""
        try:
            frames = self._decoder.feed(data)
        except ProtocolViolationError as error:
            self._break(str(error))
            return
        self._hand_on(frames)

    def _hand_on(self, frames: list[Frame]) -> None:
        for header, parts in frames:
            if self.open:
                self._arrived(header, parts)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if self.open and events & ~WRITE:
            self._read()

    def _read(self) -> None:
        room = self._decoder.room
        try:
            if room:
                count = os.readv(self._reading or 0, [room])
            else:
                data = os.read(self._reading or 0, READ_SIZE)
                count = len(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(str(error))
            return
        if not count:
            self._break("the other side closed the connection")
        elif room:
            self._hand_on(self._decoder.filled(count))
        else:
            self.take(data)

    def _write(self) -> None:
        while self._queue and self.open:
            data, descriptors = self._queue[0]
            try:
                written = self._write_some(data, descriptors)
            except BlockingIOError:
                break
            except OSError as error:
                self._break(str(error))
                return
            self._queued -= written
            if written == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = (data[written:], ())
        if self.open:
            self._watch()

    def _write_some(self, data: memoryview, descriptors: Sequence[int]) -> int:
        if not descriptors:
            return os.write(self._writing, data)
        # They ride on the frame's first byte; once that is out, they are no longer ours.
        import array
        import socket  # dear, and not needed before the hello

        borrowed = socket.socket(fileno=os.dup(self._writing))
        with borrowed:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            written = borrowed.sendmsg([data], rights)
        _close_all(descriptors)
        return written

    def _watch(self) -> None:
        wanted = dict.fromkeys(self._descriptors(), 0)
        if self._reading is not None:
            wanted[self._reading] |= READ
        if self._queue:
            wanted[self._writing] |= WRITE
        for fd, events in wanted.items():
            if events:
                self._reactor.watch(fd, self._ready, events)
            else:
                self._reactor.forget(fd)

    def _descriptors(self) -> set[int]:
        return {self._writing} if self._reading is None else {self._reading, self._writing}

    def _break(self, reason: str) -> None:
        if self.open:
            self.close()
            self._closed(reason)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
