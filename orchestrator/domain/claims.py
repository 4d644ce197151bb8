"""What a sandbox says is a claim: capped, cleaned and never believed. Pure.

Text that is shown beside our own words (names, types, messages, notes) must not be able to reorder, hide or forge
them: every control, format and separator character becomes visible as an escape.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, TypeGuard

from orchestrator.domain.wire import ProtocolViolationError

MAX_NAME: Final = 200
MAX_MESSAGE: Final = 4_000
MAX_NOTE: Final = 1_000
MAX_NOTES: Final = 50
MAX_COUNT: Final = 2**53  # what every JSON reader holds exactly
# Each of these makes at least one Python object; what fits in a frame could make millions and stop the loop for long.
MAX_JSON_ITEMS: Final = 200_000

# One that never ends reaches to the end of the text, so that no start is tried in vain.
_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_SUSPECT = re.compile(r"[^\x20-\x7e]")
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_LAST_LATIN_1 = 0xFF
_LAST_OF_PLANE_0 = 0xFFFF
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def clean(text: str, limit: int, *, lines: bool = False) -> str:
    """`text` with what could disguise itself escaped, cut to `limit` characters. `lines` leaves line ends and tabs."""
    # Cut first: an escape is at most ten characters, so the work is bounded by the limit and not by the claim.
    cut = text[: limit + 1]
    escaped = _SUSPECT.sub(lambda found: _visible(found[0], lines=lines), cut)
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def _visible(character: str, *, lines: bool) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES or (lines and character in "\n\t"):
        return character
    point = ord(character)
    if point <= _LAST_LATIN_1:
        return _SHORT_ESCAPES.get(character, f"\\x{point:02x}")
    return f"\\u{point:04x}" if point <= _LAST_OF_PLANE_0 else f"\\U{point:08x}"


def json_of(raw: bytes, *, limit: int, items: int = MAX_JSON_ITEMS) -> Any:  # noqa: ANN401 - callers check each field
    """The JSON in `raw`. Raises ProtocolViolationError where it is too long, too rich, or no JSON."""
    if len(raw) > limit:
        raise ProtocolViolationError(f"a part of {len(raw)} bytes of JSON is over its cap of {limit}")
    if _items(raw) > items and _items(_JSON_STRING.sub(b"", raw)) > items:
        raise ProtocolViolationError(f"a part of JSON holds more than {items} items")
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError("a part that should be JSON is not") from error


def _items(raw: bytes) -> int:
    return sum(map(raw.count, (b",", b"[", b"{")))


def _refuse_constant(name: str) -> NoReturn:
    raise ProtocolViolationError(f"a part of JSON holds {name}")


def text_in(fields: Mapping[str, Any], name: str, limit: int, *, lines: bool = False) -> str:
    """The cleaned text in that field."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise _wrong(name, "text")
    return clean(value, limit, lines=lines)


def optional_text_in(fields: Mapping[str, Any], name: str, limit: int) -> str | None:
    """The cleaned text in that field, which may be null."""
    return None if name in fields and fields[name] is None else text_in(fields, name, limit)


def count_in(fields: Mapping[str, Any], name: str) -> int:
    """The whole number in that field: 0 or more."""
    value: object = fields.get(name)
    if not _is_count(value):
        raise _wrong(name, "a count")
    return value


def optional_count_in(fields: Mapping[str, Any], name: str) -> int | None:
    """The whole number in that field, which may be null."""
    return None if name in fields and fields[name] is None else count_in(fields, name)


def seconds_in(fields: Mapping[str, Any], name: str) -> float:
    """The duration in that field."""
    value: object = fields.get(name)
    # bool is an int, and 1e999 parses as infinity.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < MAX_COUNT:
        raise _wrong(name, "a duration")
    return float(value)


def flag_in(fields: Mapping[str, Any], name: str) -> bool:
    """The truth value in that field."""
    value = fields.get(name)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def object_of(value: object, what: str) -> Mapping[str, Any]:
    """`value`, being a JSON object."""
    if not isinstance(value, dict):
        raise _wrong(what, "an object")
    return value


def list_in(fields: Mapping[str, Any], name: str) -> Sequence[Any]:
    """The list in that field."""
    value = fields.get(name)
    if not isinstance(value, list):
        raise _wrong(name, "a list")
    return value


def texts_in(fields: Mapping[str, Any], name: str, *, most: int, limit: int) -> tuple[tuple[str, ...], int]:
    """The first `most` cleaned texts in that field, and how many were left out."""
    listed = list_in(fields, name)
    if not all(isinstance(text, str) for text in listed):
        raise _wrong(name, "a list of texts")
    return tuple(clean(text, limit) for text in listed[:most]), max(0, len(listed) - most)


def is_optional_count(value: object) -> bool:
    """Whether `value` is null or a whole number of 0 or more."""
    return value is None or _is_count(value)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _wrong(name: str, expected: str) -> ProtocolViolationError:
    return ProtocolViolationError(f"{name!r} is not {expected}")
