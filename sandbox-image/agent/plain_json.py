"""JSON as it was before any cell ran: cells set attributes on `json`, on its encoder and on its decoder.

For what runs where cells have run. It is made of what `json` wraps, which nobody can set attributes on.
"""

import builtins
from _json import encode_basestring_ascii, make_encoder, make_scanner
from json import JSONDecodeError
from typing import Any

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

_SPACE = " \t\n\r"
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _refuse(value: object) -> None:
    raise TypeError(f"JSON has no {type(value).__name__}")


class _Reading:
    """As json.JSONDecoder is by itself."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _CONSTANTS.__getitem__


_texts = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
_value = make_scanner(_Reading)  # type: ignore[arg-type]  # it reads these attributes, no more


def write(value: Any) -> bytes:
    """In ASCII, without a space. Raises TypeError, ValueError."""
    return "".join(_texts(value, 0)).encode("ascii")


def read(data: bytes) -> Any:
    """One value. Raises ValueError."""
    text = data.decode("utf-8", "surrogatepass").strip(_SPACE)
    try:
        value, end = _value(text, 0)
    except StopIteration as error:
        raise JSONDecodeError("no JSON", text, 0) from error
    if end != len(text):
        raise JSONDecodeError("more than one value", text, end)
    return value
