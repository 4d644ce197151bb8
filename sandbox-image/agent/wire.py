"""The agent's codec of PROTOCOL.md: frames, and the proofs of the handshake.

Used towards the host, and between supervisor and worker, where the worker's frames are hostile: sizes are checked
before anything is allocated for them.

What json and hmac wrap is imported, and not they: json brings re and enum, hmac loads OpenSSL, and both together take
longer than all else that the agent does before its hello. (Python's own random takes its digest from the same place for
the same reason.) The tests hold what is left to do here to what json and hmac do.
"""

import builtins
import struct
from _collections_abc import Sequence
from _io import BytesIO
from _json import encode_basestring_ascii, make_encoder, make_scanner
from _operator import _compare_digest

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

try:
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:  # before Python 3.12
    from _sha256 import sha256  # type: ignore[import-not-found]

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

_LARGE = 64 * 1024  # bytes of a body that is read to where it stays
_DIGEST_BLOCK = 64  # bytes
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

Header = dict[str, "Any"]
Frame = tuple[Header, list[bytes]]


class ProtocolViolationError(Exception):
    """The peer sent what PROTOCOL.md does not allow."""


def _refuse_constant(name: str) -> None:
    raise ProtocolViolationError(f"a header that holds {name}")


def _refuse_value(value: object) -> None:
    raise TypeError(f"a header with a {type(value).__name__}")


class _Reading:
    """How headers are read: as json.JSONDecoder(parse_constant=_refuse_constant) would."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


# As json.JSONEncoder(separators=(",", ":"), allow_nan=False) and json.JSONDecoder make theirs.
_json_texts = make_encoder(None, _refuse_value, encode_basestring_ascii, None, ":", ",", False, False, False)
_json_value = make_scanner(_Reading)  # type: ignore[arg-type]  # it reads these attributes, no more


def encode(header: Header, parts: Sequence[bytes] = ()) -> bytes:
    """The bytes of one frame. Raises ValueError where it would exceed the caps."""
    lengths = [len(part) for part in parts]
    fields = {**header, "parts": lengths} if parts else header
    encoded = "".join(_json_texts(fields, 0)).encode("ascii")
    body = sum(lengths)
    if len(encoded) > MAX_HEADER or body > MAX_BODY or len(parts) > MAX_PARTS:
        raise ValueError(f"a frame of {len(encoded)} + {body} bytes in {len(parts)} parts is over the protocol's caps")
    return b"".join((PREFIX.pack(MAGIC, VERSION, len(encoded), body), encoded, *parts))


def readdressed(frame: bytes, request: int) -> bytes:
    """A reply of ours once more, as the one to another request. Raises ValueError where that would exceed the caps."""
    _, _, header_length, body_length = PREFIX.unpack_from(frame)
    body_start = PREFIX.size + header_length
    header, _ = _json_value(frame[PREFIX.size : body_start].decode("ascii"), 0)
    encoded = "".join(_json_texts({**header, "id": request}, 0)).encode("ascii")
    if len(encoded) > MAX_HEADER:
        raise ValueError(f"a header of {len(encoded)} bytes is over the protocol's caps")
    return b"".join((PREFIX.pack(MAGIC, VERSION, len(encoded), body_length), encoded, memoryview(frame)[body_start:]))


class Decoder:
    """Cuts a byte stream into frames.

    What a large body lacks is best read to where it stays: into `room`, where that is not empty.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = BytesIO()  # of a large frame that is still arriving
        self._announced: tuple[Header, list[int]] = {}, []  # what its header says
        self.room = memoryview(b"")

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises ProtocolViolationError."""
        frames = []
        count = min(len(self.room), len(data))
        if count:
            self.room[:count] = data[:count]
            frames += self.filled(count)
        self._buffer += data[count:] if count else data
        while not self.room and (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def filled(self, count: int) -> list[Frame]:
        """The frame that is whole with `count` bytes in `room`."""
        rest = self.room[count:]
        # Whoever read into it may hold it still, and what is held is copied in the end.
        self.room.release()
        self.room = rest
        if rest:
            return []
        rest.release()
        self.room = memoryview(b"")
        header, lengths = self._announced
        body = self._body.getvalue()
        self._body = BytesIO()
        return [(header, [body] if len(lengths) == 1 else _cut(memoryview(body), lengths))]

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
        is_large = body_length >= _LARGE
        if len(self._buffer) < (body_start if is_large else end):
            return None
        with memoryview(self._buffer) as view:
            header = _header(bytes(view[PREFIX.size : body_start]))
            lengths = _lengths(header, body_length)
            if len(view) >= end:
                parts = _cut(view[body_start:end], lengths)
            else:
                self._begin_body(header, lengths, view[body_start:])
                end = len(view)
        del self._buffer[:end]
        return None if self.room else (header, parts)

    def _begin_body(self, header: Header, lengths: list[int], begun: memoryview) -> None:
        self._announced = header, lengths
        # Nobody else has these zeros, so that they are written into where they lie, and handed out without a copy.
        self._body = BytesIO(bytes(sum(lengths)))
        room = self._body.getbuffer()
        room[: len(begun)] = begun
        self.room = room[len(begun) :]
        room.release()


def _header(encoded: bytes) -> Header:
    try:
        # Decoded here, since json.loads would also take UTF-16 and raw surrogates.
        text = encoded.decode("utf-8").strip(" \t\n\r")
        header, end = _json_value(text, 0)
    except (ValueError, StopIteration, RecursionError) as error:
        raise ProtocolViolationError("a header that is not JSON") from error
    if end != len(text):
        raise ProtocolViolationError("a header with more behind its JSON")
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolViolationError("a header that is not an object with a type")
    return header


def _lengths(header: Header, body_length: int) -> list[int]:
    lengths = header.pop("parts", [])
    if not isinstance(lengths, list) or len(lengths) > MAX_PARTS:
        raise ProtocolViolationError("parts that are not a short list")
    if not all(type(length) is int and length >= 0 for length in lengths) or sum(lengths) != body_length:
        raise ProtocolViolationError("parts that do not add up to the body")
    return lengths


def _cut(body: memoryview, lengths: list[int]) -> list[bytes]:
    parts, start = [], 0
    for length in lengths:
        parts.append(bytes(body[start : start + length]))
        start += length
    return parts


def proof(secret: str, role: str, nonce: str) -> str:
    """HMAC-SHA256 over role and the other side's nonce, in hexadecimal."""
    key = bytes.fromhex(secret).ljust(_DIGEST_BLOCK, b"\0")  # as RFC 2104 says; 32 bytes are never more than a block
    inner = sha256(key.translate(_INNER_PAD) + f"{role}:{nonce}".encode()).digest()
    outer: str = sha256(key.translate(_OUTER_PAD) + inner).hexdigest()
    return outer


def proven(secret: str, role: str, nonce: str, claimed: object) -> bool:
    """Whether `claimed` is that proof."""
    if not isinstance(claimed, str) or not claimed.isascii():
        return False
    return _compare_digest(proof(secret, role, nonce), claimed)
