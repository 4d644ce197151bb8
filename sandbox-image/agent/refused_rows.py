"""Values that hung or ended what saves, as rows that go to the supervisor and come back with the next save.

A row is a key, why, and the identities of the value and of its type, by which the next save sees whether it still is
that value. User code can write such rows too: they are bounded where they are made, and again where they are noted.
"""

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from agent import plain_json

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

MAX_BYTES = 256 * 1024  # of the JSON
_MAX_ROWS = 1000
_MAX_KEY = 100  # characters; a longer label goes by its digest
_MAX_REASON = 300
_MAX_IDENTITY = 2**64
_NOWHERE = (0, 0)  # the identities of a part of the process's state

Row = list[Any]


def packed(refused: Mapping[str, str], namespace: Mapping[Any, Any]) -> bytes:
    """Labels and reasons as JSON, as many as fit."""
    values = _by_label(namespace)
    rows: list[Row] = []
    room = MAX_BYTES - 2
    for label, why in refused.items():
        if label in values:
            identity = (id(values[label]), id(type(values[label])))
        elif label.startswith("state "):
            identity = _NOWHERE
        else:
            continue
        row = [_key_of(label), why[:_MAX_REASON], *identity]
        room -= len(plain_json.write(row)) + 2
        if room < 0 or len(rows) == _MAX_ROWS:
            break
        rows.append(row)
    return plain_json.write(rows)


def unpacked(data: bytes, namespace: Mapping[Any, Any]) -> dict[str, str]:
    """The labels that still are what they were, and why they are not tried."""
    rows = rows_in(data)
    if not rows:
        return {}
    keys = {_key_of(label): (label, (id(value), id(type(value)))) for label, value in _by_label(namespace).items()}
    keys |= {row[0]: (row[0], _NOWHERE) for row in rows if row[0].startswith("state ")}
    return {keys[key][0]: why for key, why, *identity in rows if key in keys and keys[key][1] == tuple(identity)}


def rows_in(data: bytes) -> list[Row]:
    """What a process that saves claims. Raises ValueError."""
    rows = plain_json.read(data)
    listed: list[Row] = rows[:_MAX_ROWS] if isinstance(rows, list) else [rows]
    for row in listed:
        _require_row(row)
    return listed


def _require_row(row: object) -> None:
    if not isinstance(row, list) or [type(one) for one in row] != [str, str, int, int]:
        raise ValueError("a row of another form")
    key, why, *identity = row
    if not key.isascii() or len(key) > _MAX_KEY or len(why) > _MAX_REASON:
        raise ValueError("a row that is too long")
    if not all(0 <= number < _MAX_IDENTITY for number in identity):
        raise ValueError("an identity that is none")


def _by_label(namespace: Mapping[Any, Any]) -> dict[str, Any]:
    # A key that is no text may run user code where it is compared.
    return {f"name {name}": value for name, value in namespace.items() if type(name) is str}


def _key_of(label: str) -> str:
    if label.isascii() and len(label) <= _MAX_KEY:
        return label
    import hashlib  # dear, and seldom needed

    return "#" + hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()


def fitting(digests: bytes, room: int, size: int) -> bytes:
    """As many digests of `size` bytes, side by side, as have room: pieces of the others are only sent again."""
    return digests[: max(0, room) // size * size]


def joined(rows: Sequence[Row]) -> bytes:
    """Rows that were noted, as JSON."""
    return plain_json.write(rows)
