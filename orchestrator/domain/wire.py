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
from typing import Any, Final, NoReturn

VERSION: Final = 1
MAGIC: Final = b"SO"
PREFIX: Final = struct.Struct(">2sBxII")  # magic, version, one byte unused, header length, body length
MIN_HEADER: Final = 2
MAX_HEADER: Final = 64 * 1024
MAX_BODY: Final = 8 * 1024 * 1024
MAX_PARTS: Final = 64


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
    """Cuts a byte stream into frames. Holds at most one frame's worth of bytes beyond what it was just fed."""

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self._buffer = bytearray()
        self._max_body = max_body

    @property
    def wanted(self) -> int:
        """How many bytes the next frame lacks, as far as can be told: a reader that takes no more than these never
        reads beyond a frame.
        """
        if len(self._buffer) < PREFIX.size:
            return PREFIX.size - len(self._buffer)
        return sum(self._announced()) + PREFIX.size - len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes, each cut when it is asked for, so that a reader that stops at the first
        bad one pays for no more. Raises ProtocolViolationError; the decoder is then of no more use.
        """
        self._buffer += data
        return iter(self._next, None)

    def _announced(self) -> tuple[int, int]:
        magic, version, header_length, body_length = PREFIX.unpack_from(self._buffer)
        if magic != MAGIC or version != VERSION:
            raise ProtocolViolationError("not a frame of this protocol version")
        if not MIN_HEADER <= header_length <= MAX_HEADER or body_length > self._max_body:
            raise ProtocolViolationError(f"a frame announces {header_length} + {body_length} bytes")
        return header_length, body_length

    def _next(self) -> Frame | None:
        if len(self._buffer) < PREFIX.size:
            return None
        header_length, body_length = self._announced()
        body_start = PREFIX.size + header_length
        end = body_start + body_length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            header = _header(bytes(view[PREFIX.size : body_start]))
            parts = _parts(header, view[body_start:end])
        del self._buffer[:end]
        return Frame(header, parts)


def _header(encoded: bytes) -> dict[str, Any]:
    try:
        # Decoded here, since json.loads would also take UTF-16 and raw surrogates.
        header = _read_json(encoded.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError("a frame's header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolViolationError("a frame's header is not an object with a type")
    return header


def _parts(header: dict[str, Any], body: memoryview) -> tuple[bytes, ...]:
    lengths = header.pop("parts", [])
    if not isinstance(lengths, list) or len(lengths) > MAX_PARTS:
        raise ProtocolViolationError("a frame's parts are not a short list")
    if not all(type(length) is int and length >= 0 for length in lengths) or sum(lengths) != len(body):
        raise ProtocolViolationError("a frame's parts do not add up to its body")
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
