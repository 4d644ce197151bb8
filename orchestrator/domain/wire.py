"""Frames between host and agent, as sandbox-image/PROTOCOL.md lays down. Pure: bytes in, frames out.

The host treats every frame as hostile: sizes are checked before anything is allocated for them, and whatever does not
fit raises ProtocolViolationError, after which the sandbox is killed. The agent has a codec of its own
(sandbox-image/agent/wire.py); golden frames in the tests keep the two equal.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, NoReturn

VERSION: Final = 1
MAGIC: Final = b"SO"
PREFIX: Final = struct.Struct(">2sBxII")  # magic, version, one byte unused, header length, body length
MIN_HEADER: Final = 2
MAX_HEADER: Final = 64 * 1024
MAX_BODY: Final = 8 * 1024 * 1024
MAX_PARTS: Final = 64
# What a reader takes in before it knows of what frame: room for most headers, and little to copy of a large body.
READ_AHEAD: Final = 64 * 1024


class ProtocolViolationError(Exception):
    """The peer sent what PROTOCOL.md does not allow."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: a JSON object, and raw binary parts beside it."""

    header: Mapping[str, Any]
    parts: tuple[bytes, ...] = ()

    @property
    def type(self) -> str:
        """Which message this is; checked to be a string when the frame was decoded."""
        return str(self.header["type"])


def _refuse_constant(name: str) -> NoReturn:
    raise ProtocolViolationError(f"a frame's header holds {name}")


# Made once: json.dumps and json.loads would make them anew for each frame.
_write_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_read_json = json.JSONDecoder(parse_constant=_refuse_constant).decode


def encode(header: Mapping[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """The bytes of one frame. Raises ValueError where it would exceed what the peer accepts."""
    lengths = [len(part) for part in parts]
    fields = {**header, "parts": lengths} if parts else dict(header)
    encoded = _write_json(fields).encode("ascii")
    body = sum(lengths)
    if len(encoded) > MAX_HEADER or body > MAX_BODY or len(parts) > MAX_PARTS:
        raise ValueError(f"a frame of {len(encoded)} + {body} bytes in {len(parts)} parts is over the protocol's caps")
    return b"".join((PREFIX.pack(MAGIC, VERSION, len(encoded), body), encoded, *parts))


class FrameDecoder:
    """Cuts a byte stream into frames. Holds at most one frame's worth of bytes beyond what it was just given.

    A reader either feeds it, or has it say where the next bytes are to go (`room`) and how many came (`filled`). Then
    the body of a large frame of one part lies from the start where it stays: a snapshot's pieces are never copied.
    """

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._block = memoryview(bytearray(READ_AHEAD))
        self._start = self._end = 0  # of the block: what is in no frame yet
        self._body: _Body | None = None  # of the frame whose header was the last one in the block

    @property
    def wanted(self) -> int:
        """How many bytes the next frame lacks, as far as can be told: a reader that takes no more than these never
        reads beyond a frame.
        """
        if self._body is not None:
            return len(self._body.room)
        held = self._end - self._start
        return (PREFIX.size if held < PREFIX.size else PREFIX.size + sum(self._announced())) - held

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._body is not None:
            return self._body.room
        if self._end == len(self._block) or self._start + self._needed() > len(self._block):
            self._make_room()
        return self._block[self._end :]

    def filled(self, count: int) -> Iterator[Frame]:
        """The frames that `count` bytes in `room` complete, each cut when it is asked for, so that a reader that stops
        at the first bad one pays for no more. Raises ProtocolViolationError; the decoder is then of no more use.
        """
        if self._body is not None:
            self._body.take(count)
        else:
            self._end += count
        return iter(self._next, None)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes, in the same way; what is not asked for is not taken in."""
        rest = memoryview(data)
        while rest:
            room = self.room()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            yield from self.filled(count)

    def _make_room(self) -> None:
        """Move what is held to the front; into a larger block where a header needs one."""
        held = self._block[self._start : self._end]
        block = memoryview(bytearray(max(READ_AHEAD, self._needed(), len(held) + 1)))
        block[: len(held)] = held
        self._block, self._start, self._end = block, 0, len(held)

    def _needed(self) -> int:
        """How much of the next frame the block has to hold, as far as can be told."""
        if self._end - self._start < PREFIX.size:
            return PREFIX.size
        header_length, body_length = self._announced()
        whole = PREFIX.size + header_length + body_length
        return whole if whole <= READ_AHEAD else PREFIX.size + header_length

    def _announced(self) -> tuple[int, int]:
        magic, version, header_length, body_length = PREFIX.unpack_from(self._block, self._start)
        if magic != MAGIC or version != VERSION:
            raise ProtocolViolationError("not a frame of this protocol version")
        if not MIN_HEADER <= header_length <= MAX_HEADER or body_length > self._max_body:
            raise ProtocolViolationError(f"a frame announces {header_length} + {body_length} bytes")
        return header_length, body_length

    def _next(self) -> Frame | None:
        if self._body is not None:
            if self._body.room:
                return None
            body, self._body = self._body, None
            return Frame(body.header, body.parts())
        if self._end - self._start < self._needed():
            return None
        header_length, body_length = self._announced()
        body_start = self._start + PREFIX.size + header_length
        header = _header(bytes(self._block[self._start + PREFIX.size : body_start]))
        lengths = _lengths(header, body_length)
        end = body_start + body_length
        if end > self._end:
            self._body = _Body(header, lengths, self._block[body_start : self._end])
            self._start = self._end = 0
            return None
        parts = _cut(self._block[body_start:end], lengths)
        self._start, self._end = (end, self._end) if end < self._end else (0, 0)
        return Frame(header, parts)


class _Body:
    """The body of a frame that is still arriving, in memory of its own: it is allocated once its header was checked."""

    def __init__(self, header: dict[str, Any], lengths: Sequence[int], begun: memoryview) -> None:
        self.header = header
        self._lengths = lengths
        # Nobody else has these zeros, so that they are written into where they lie, and handed out without a copy.
        self._bytes = BytesIO(bytes(sum(lengths)))
        self.room = self._bytes.getbuffer()
        self.room[: len(begun)] = begun
        self.take(len(begun))

    def take(self, count: int) -> None:
        """So many bytes have come."""
        rest = self.room[count:]
        # Whoever read into it may hold it still, and what is held is copied in the end.
        self.room.release()
        self.room = rest

    def parts(self) -> tuple[bytes, ...]:
        """All of it has come."""
        self.room.release()
        whole = self._bytes.getvalue()
        if len(self._lengths) == 1:
            return (whole,)
        return _cut(memoryview(whole), self._lengths)


def _header(encoded: bytes) -> dict[str, Any]:
    try:
        # Decoded here, since json.loads would also take UTF-16 and raw surrogates.
        header = _read_json(encoded.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError("a frame's header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolViolationError("a frame's header is not an object with a type")
    return header


def _lengths(header: dict[str, Any], body_length: int) -> Sequence[int]:
    lengths = header.pop("parts", [])
    if not isinstance(lengths, list) or len(lengths) > MAX_PARTS:
        raise ProtocolViolationError("a frame's parts are not a short list")
    if not all(type(length) is int and length >= 0 for length in lengths) or sum(lengths) != body_length:
        raise ProtocolViolationError("a frame's parts do not add up to its body")
    return lengths


def _cut(body: memoryview, lengths: Sequence[int]) -> tuple[bytes, ...]:
    parts, start = [], 0
    for length in lengths:
        parts.append(bytes(body[start : start + length]))
        start += length
    return tuple(parts)


def proof(secret: str, role: str, nonce: str) -> str:
    """What shows knowledge of the secret: HMAC-SHA256 over role and the other side's nonce, in hexadecimal."""
    return hmac.new(bytes.fromhex(secret), f"{role}:{nonce}".encode(), hashlib.sha256).hexdigest()


def proven(secret: str, role: str, nonce: str, claimed: object) -> bool:
    """Whether `claimed` is that proof; compared in constant time."""
    if not isinstance(claimed, str) or not claimed.isascii():
        return False
    return hmac.compare_digest(proof(secret, role, nonce), claimed)


def socket_name(secret: str) -> str:
    """The name of the sandbox's socket: only who knows the secret can tell it from the directory's name."""
    return proof(secret, "socket", "")[:32]
