"""What a cell writes: all of it read and counted, its head and its tail kept."""

import fcntl
import os

READ_SIZE = 256 * 1024


class Capture:
    """The reading end of a pipe that cells write to."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe2(os.O_CLOEXEC)
        self._fd = reading
        os.set_blocking(reading, False)
        try:
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, READ_SIZE)
        except OSError:
            pass  # a user over the pipe quota keeps the default size; only speed depends on it
        self.closed = False
        self.ended = False  # nobody holds the writing end any more
        self.begin_anew(0, 0)

    def begin_anew(self, head: int, tail: int) -> None:
        """Forget what was read and count from here."""
        self._head_limit, self._tail_limit = head, tail
        self.head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._fd

    def read(self) -> bool:
        """Take in what is there, up to one pipe's worth; False when nothing was left to read."""
        if self.closed or self.ended:
            return False
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self.ended = True
            return False
        self.total += len(data)
        space = self._head_limit - len(self.head)
        if space > 0:
            self.head += data[:space]
            data = data[space:]
        self._tail += data
        # Cut now and then, not at each read: the tail is at most twice its limit and one read.
        if len(self._tail) > 2 * self._tail_limit + READ_SIZE:
            del self._tail[: -self._tail_limit or None]
        return True

    def drain(self) -> None:
        """Take in all that was written before this call; bounded, since others may still be writing."""
        taken = 0
        while taken <= READ_SIZE:
            before = self.total
            if not self.read():
                return
            taken += self.total - before

    def tail(self) -> bytes:
        """The end of what was written after the head."""
        return bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""

    def recent(self, size: int) -> bytes:
        """The last of what was read, at most so many bytes."""
        return bytes((self.head[-size:] + self._tail[-size:])[-size:])

    def close(self) -> None:
        """Stop reading; whoever still writes gets EPIPE. Idempotent."""
        if not self.closed:
            self.closed = True
            os.close(self._fd)
