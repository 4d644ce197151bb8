"""The agent's codec of PROTOCOL.md: frames, and the proofs of the handshake.

Used towards the host, and between supervisor and worker, where the worker's frames are hostile: sizes are checked
before anything is allocated for them.

What json and hmac wrap is imported, and not they: json brings re and enum, hmac loads OpenSSL, and both together take
longer than all else that the agent does before its hello. (Python's own random takes its digest from the same place for
the same reason.) The tests hold what is left to do here to what json and hmac do.
"""

import struct
from _collections_abc import Sequence
from _json import encode_basestring_ascii, make_encoder, make_scanner
from _operator import _compare_digest

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
        text = encoded.decode("utf-8").strip(" \t\n\r")
        header, end = _json_value(text, 0)
    except (ValueError, StopIteration, RecursionError) as error:
        raise ProtocolViolationError("a header that is not JSON") from error
    if end != len(text):
        raise ProtocolViolationError("a header with more behind its JSON")
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
    key = bytes.fromhex(secret).ljust(_DIGEST_BLOCK, b"\0")  # as RFC 2104 says; 32 bytes are never more than a block
    inner = sha256(key.translate(_INNER_PAD) + f"{role}:{nonce}".encode()).digest()
    outer: str = sha256(key.translate(_OUTER_PAD) + inner).hexdigest()
    return outer


def proven(secret: str, role: str, nonce: str, claimed: object) -> bool:
    """Whether `claimed` is that proof."""
    if not isinstance(claimed, str) or not claimed.isascii():
        return False
    return _compare_digest(proof(secret, role, nonce), claimed)
