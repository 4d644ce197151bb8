"""The supervisor's end of the pipe from what saves: its pieces go to the host as frames, read straight into them.

User code can write to that pipe: every record is checked before anything is allocated for it, and the first that breaks
a rule ends the save. While the host has no room for another piece nothing is read, so that what saves waits.
"""

import os
from collections.abc import Callable

from agent import piece_records as records
from agent.piece_records import ENCODINGS, HEADER, MAX_PIECE
from agent.reactor import Reactor
from agent.refused_rows import MAX_BYTES as MAX_REFUSED
from agent.wire import MAGIC, MAX_BODY, PREFIX, VERSION

CREDIT = 8  # pieces that may be on their way to the host
_MAX_TEXT = 64 * 1024
_MAX_SIZES = {
    records.FROZEN: 0,
    records.REHEARSE: 0,
    records.FAILED: _MAX_TEXT,
    records.MANIFEST: MAX_BODY,
    records.NAMESPACE_BODY: MAX_BODY,
    records.WORKSPACE_BODY: MAX_BODY,
    records.NAMESPACE_DIGESTS: MAX_BODY,
    records.WORKSPACE_DIGESTS: MAX_BODY,
    records.REHEARSED: MAX_BODY,
    records.REMARKS: _MAX_TEXT,
    records.REFUSED: MAX_REFUSED,
    records.DONE: _MAX_TEXT,
}
_ROOM_FOR_HEADER = 512


class SavePipe:
    """Reads until it is closed. `took` gets each record but pieces; `broke` why there will be no more of them."""

    def __init__(
        self,
        reactor: Reactor,
        number: int,
        send: Callable[[memoryview], None],
        took: Callable[[bytes, int, bytes], None],
        broke: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._number = number
        self._send, self._took, self._broke = send, took, broke
        self._fd, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        enlarge(self._fd)
        # A place is free again when the host has taken the piece in it: their number is the credit.
        self._places = [bytearray() for _ in range(CREDIT)]
        self._aside = bytearray()  # where data go that go nowhere
        self._sent = self._taken = 0
        self._digests: set[bytes] = set()  # of what was sent: a second child may come to the same pieces
        self._header = memoryview(bytearray(HEADER.size))
        self._header_left = self._header
        self._record: tuple[bytes, int, bytes] | None = None  # kind, flag, digest of the one that is being read
        self._data = self._data_left = memoryview(b"")
        self._frame: memoryview | None = None  # of that record, where it is a piece for the host
        self.progress = 0  # records that were read
        self.discarding = False  # pieces are of no use
        self.open = True
        reactor.watch(self._fd, self._ready)

    @property
    def waiting_for_host(self) -> bool:
        """Whether a piece is there that the host has no room for."""
        return self.open and self._record is None and not self._header_left

    def taken(self, count: object) -> None:
        """The host has room for so many more."""
        if type(count) is int and 0 < count <= self._sent - self._taken:
            self._taken += count
            self.resume()

    def resume(self) -> None:
        """Go on where a piece waited, if it may go now."""
        if self.waiting_for_host and self._begin():
            self._reactor.watch(self._fd, self._ready)

    def close(self) -> None:
        """Whoever still writes gets EPIPE. Idempotent."""
        if self.open:
            self.open = False
            self._reactor.forget(self._fd)
            os.close(self._fd)

    def _ready(self, _events: int) -> None:
        try:
            count = os.readv(self._fd, [view for view in (self._data_left, self._header_left) if view])
        except BlockingIOError:
            return
        if not count:
            self._end("what saves has ended")
            return
        filled = min(count, len(self._data_left))
        self._data_left = self._data_left[filled:]
        self._header_left = self._header_left[count - filled :]
        if self._record is not None and not self._data_left:
            self._complete(*self._record)
        if self.open and self._record is None and not self._header_left and not self._begin() and self.open:
            self._reactor.forget(self._fd)

    def _begin(self) -> bool:
        """Take up the record whose header is there; False where it has to wait, or is none."""
        kind, encoding, flag, length, digest = HEADER.unpack(self._header)
        if not _sound(kind, encoding, flag, length):
            self._end("what saves broke the rules")
            return False
        if kind == records.PIECE and not self.discarding and digest not in self._digests:
            if self._sent - self._taken >= CREDIT:
                return False
            self._data = self._place(digest, flag, ENCODINGS[encoding], length)
        elif kind == records.PIECE:
            self._aside = self._aside or bytearray(MAX_PIECE)
            self._data = memoryview(self._aside)[:length]
        else:
            self._data = memoryview(bytearray(length))
        self._data_left = self._data
        self._header_left = self._header
        self._record = kind, flag, digest
        if not length:
            self._complete(*self._record)
        return self.open

    def _place(self, digest: bytes, size: int, encoding: str, length: int) -> memoryview:
        """Where the piece's data go: behind the header of the frame that carries them."""
        header = (
            f'{{"type":"piece","save":{self._number},"digest":"{digest.hex()}","size":{size},'
            f'"encoding":"{encoding}","parts":[{length}]}}'
        ).encode()
        start = PREFIX.size + len(header)
        index = self._sent % CREDIT
        if not self._places[index]:
            self._places[index] = bytearray(_ROOM_FOR_HEADER + MAX_PIECE)
        place = memoryview(self._places[index])[: start + length]
        place[:start] = PREFIX.pack(MAGIC, VERSION, len(header), length) + header
        self._frame = place
        return place[start:]

    def _complete(self, kind: bytes, flag: int, digest: bytes) -> None:
        data, self._data = self._data, memoryview(b"")
        self._record = None
        self.progress += 1
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self._sent += 1
            self._digests.add(digest)
            self._send(frame)
        elif kind != records.PIECE:
            self._took(kind, flag, bytes(data))
        # Where it broke meanwhile nothing more is read.

    def _end(self, why: str) -> None:
        self.close()
        self._broke(why)


def _sound(kind: bytes, encoding: int, flag: int, length: int) -> bool:
    if kind == records.PIECE:
        # The host ends a sandbox that sends what is no piece.
        fits = 0 < flag <= MAX_PIECE and 0 < length <= MAX_PIECE
        return fits and encoding < len(ENCODINGS) and (ENCODINGS[encoding] != "raw" or flag == length)
    return length <= _MAX_SIZES.get(kind, -1) and encoding == 0 and flag <= 1


def enlarge(fd: int) -> None:
    """Give a pipe room for a whole piece, where that is allowed; only speed depends on it."""
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, MAX_PIECE)
    except OSError:
        pass
