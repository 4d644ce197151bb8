"""The agent's codec of PROTOCOL.md: frames, and the proofs of the handshake.

Used towards the host, and between supervisor and worker, where the worker's frames are hostile: sizes are checked
before anything is allocated for them.
"""

import hmac
import json
import struct
from collections.abc import Sequence

TYPE_CHECKING = False  # typing is dear to import before the hello
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
MAGIC = b"SO"
PREFIX = struct.Struct(">2sBxII")
MIN_HEADER = 2
MAX_HEADER = 64 * 1024
MAX_BODY = 8 * 1024 * 1024
MAX_PARTS = 64

Header = dict[str, "Any"]
Frame = tuple[Header, list[bytes]]


class ProtocolViolationError(Exception):
    """The peer sent what PROTOCOL.md does not allow."""


def _refuse_constant(name: str) -> None:
    raise ProtocolViolationError(f"a header that holds {name}")


# Made once: json.dumps and json.loads would make them anew for each frame.
_write_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_read_json = json.JSONDecoder(parse_constant=_refuse_constant).decode


def encode(header: Header, parts: Sequence[bytes] = ()) -> bytes:
    """The bytes of one frame. Raises ValueError where it would exceed the caps."""
    lengths = [len(part) for part in parts]
    fields = {**header, "parts": lengths} if parts else header
    encoded = _write_json(fields).encode("ascii")
    body = sum(lengths)
    if len(encoded) > MAX_HEADER or body > MAX_BODY or len(parts) > MAX_PARTS:
        raise ValueError(f"a frame of {len(encoded)} + {body} bytes in {len(parts)} parts is over the protocol's caps")
    return b"".join((PREFIX.pack(MAGIC, VERSION, len(encoded), body), encoded, *parts))


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises ProtocolViolationError."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._buffer) < PREFIX.size:
            return None
        magic, version, header_length, body_length = PREFIX.unpack_from(self._buffer)
        if magic != MAGIC or version != VERSION:
            raise ProtocolViolationError("not a frame of this protocol version")
        if not MIN_HEADER <= header_length <= MAX_HEADER or body_length > MAX_BODY:
            raise ProtocolViolationError("a frame over the caps")
        body_start = PREFIX.size + header_length
        end = body_start + body_length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            header = _header(bytes(view[PREFIX.size : body_start]))
            parts = _parts(header, view[body_start:end])
        del self._buffer[:end]
        return header, parts


def _header(encoded: bytes) -> Header:
    try:
        # Decoded here, since json.loads would also take UTF-16 and raw surrogates.
        header = _read_json(encoded.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError("a header that is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolViolationError("a header that is not an object with a type")
    return header


def _parts(header: Header, body: memoryview) -> list[bytes]:
    lengths = header.pop("parts", [])
    if not isinstance(lengths, list) or len(lengths) > MAX_PARTS:
        raise ProtocolViolationError("parts that are not a short list")
    if not all(type(length) is int and length >= 0 for length in lengths) or sum(lengths) != len(body):
        raise ProtocolViolationError("parts that do not add up to the body")
    parts, start = [], 0
    for length in lengths:
        parts.append(bytes(body[start : start + length]))
        start += length
    return parts


def proof(secret: str, role: str, nonce: str) -> str:
    """HMAC-SHA256 over role and the other side's nonce, in hexadecimal."""
    return hmac.new(bytes.fromhex(secret), f"{role}:{nonce}".encode(), "sha256").hexdigest()


def proven(secret: str, role: str, nonce: str, claimed: object) -> bool:
    """Whether `claimed` is that proof."""
    if not isinstance(claimed, str) or not claimed.isascii():
        return False
    return hmac.compare_digest(proof(secret, role, nonce), claimed)
