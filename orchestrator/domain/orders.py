"""What an operator can order: the fields that orders take, checked, and the parts that answers are made of. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from orchestrator.domain.errors import InvalidRequestError

MAX_CHUNK_BYTES: Final = 256 * 1024  # of a stream, in either direction
_MOST_TEXT: Final = 4_096  # characters, where a field does not say otherwise
_MOST_TEXTS: Final = 10_000

Kind = Literal["text", "integer", "number", "flag", "texts", "time", "numbers"]
_WORDS: Final[Mapping[Kind, str]] = {
    "text": "a text",
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "texts": "a list of texts",
    "time": "a time in ISO 8601",
    "numbers": "an object whose values are numbers or null",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an order. `least` and `most` bound a number, `most` the length of a text or list; both ends belong."""

    kind: Kind
    required: bool = False
    default: object = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long order is: `done` of `total` (None: nobody knows) in `unit`, such as files or bytes."""

    what: str
    done: int
    total: int | None
    unit: str


Answer = Mapping[str, Any] | Progress | bytes
"""A part of an answer: an object, how far it is, or a piece of the stream that the order gives."""


def checked(order: str, takes: Mapping[str, Field], given: Mapping[str, object]) -> dict[str, Any]:
    """Every field that the order takes, given or by default. Raises InvalidRequestError naming what is wrong."""
    for name in given:
        if name not in takes:
            raise InvalidRequestError(f"The order {order!r} takes no field {name[:64]!r}.", hint=_takes(takes))
    return {name: _value(order, name, field, given.get(name)) for name, field in takes.items()}


def _value(order: str, name: str, field: Field, value: object) -> object:
    if value is None:
        if field.required:
            raise InvalidRequestError(f"The order {order!r} needs the field {name!r}.")
        return field.default
    found = _typed(field, value)
    if found is None:
        raise InvalidRequestError(f"The field {name!r} of {order!r} must be {_WORDS[field.kind]}.")
    if field.choices and any(one not in field.choices for one in (value if isinstance(value, list) else [value])):
        raise InvalidRequestError(
            f"The field {name!r} of {order!r} must be one of what there is.", hint=f"There are: {_list(field.choices)}."
        )
    _bounded(order, name, field, found)
    return found


def _typed(field: Field, value: object) -> object | None:
    """The value as it is used; None where it is of another kind."""
    is_number = _is_number_or_none(value)
    match field.kind:
        case "time":
            return _moment(value) if isinstance(value, str) else None
        case "number":
            return float(value) if is_number and isinstance(value, int | float) and math.isfinite(value) else None
        case "integer":
            fits = is_number and isinstance(value, int)
        case "texts":
            fits = isinstance(value, list) and all(isinstance(one, str) for one in value)
        case "numbers":
            fits = isinstance(value, dict) and all(map(_is_number_or_none, value.values()))
        case kind:
            fits = isinstance(value, str if kind == "text" else bool)
    return value if fits else None


def _is_number_or_none(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or is_number


def _moment(text: str) -> datetime | None:
    """In UTC, unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _bounded(order: str, name: str, field: Field, value: object) -> None:
    if isinstance(value, bool | datetime):
        return
    if isinstance(value, int | float):
        if (field.least is not None and value < field.least) or (field.most is not None and value > field.most):
            ends = {"at least": field.least, "at most": field.most}
            span = " and ".join(f"{word} {end:.15g}" for word, end in ends.items() if end is not None)
            raise InvalidRequestError(f"The field {name!r} of {order!r} is {value:.15g}; it must be {span}.")
        return
    most = field.most or (_MOST_TEXT if isinstance(value, str) else _MOST_TEXTS)
    if isinstance(value, str | list | dict) and len(value) > most:
        raise InvalidRequestError(f"The field {name!r} of {order!r} is too long: {len(value)}, of at most {most:g}.")


def _takes(takes: Mapping[str, Field]) -> str:
    return f"It takes: {_list(takes)}." if takes else "It takes none."


def _list(names: Mapping[str, Field] | tuple[str, ...]) -> str:
    return ", ".join(names)
