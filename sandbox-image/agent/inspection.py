"""Describes a namespace to a pipe: what `list` shows. Runs in a forked child, since objects may do anything when asked.

First lines with what can be had without running any code of theirs; then, for each object that has a figure of its
own, its position before it is asked and the figure after. A child that is killed on the way has cost one object its
figure.
"""

import sys
from typing import Any

from agent import plain_json, pristine
from agent.names import countable, is_module

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

MAX_NAMES = 10_000
_ROWS_IN_LINE = 500
_MAX_NAME = 200  # characters of a name, and of a type's
_MAX_SIZE = 2**53  # what every JSON reader holds exactly, and the most that the host takes
_FIGURES = ("nbytes", "memory_usage")  # numpy and its like; pandas

# type's own slots: a metaclass can lie about all of these.
_name_of = type.__dict__["__name__"].__get__
_mro_of = type.__dict__["__mro__"].__get__
_attributes_of = type.__dict__["__dict__"].__get__


def describe(namespace: dict[str, Any], skip: int, pipe: int) -> None:
    """Write the lines; the first `skip` objects that would have to be asked are not asked."""
    named = [(name, value) for name, value in namespace.items() if type(name) is str and countable(name)]
    _write(pipe, {"count": len(named)})
    shown = named[:MAX_NAMES]
    for start in range(0, len(shown) if skip == 0 else 0, _ROWS_IN_LINE):
        rows = shown[start : start + _ROWS_IN_LINE]
        _write(pipe, {"names": [_row(name, value) for name, value in rows], "start": start})
    asking = [position for position, (_, value) in enumerate(shown) if _must_be_asked(type(value))]
    for ordinal, position in enumerate(asking):
        if ordinal >= skip:
            _write(pipe, {"asking": position, "ordinal": ordinal})
            size = _figure(shown[position][1])
            if size is not None:
                _write(pipe, {"size": size, "position": position})
    _write(pipe, {"end": True})


def _row(name: str, value: object) -> list[object]:
    return [name[:_MAX_NAME], _name_of(type(value))[:_MAX_NAME], _plain_size(value), is_module(value)]


def _write(pipe: int, line: dict[str, Any]) -> None:
    data = memoryview(plain_json.write(line) + b"\n")
    while data:
        data = data[pristine.write(pipe, data) :]


def _slot(kind: type, name: str) -> object:
    return next((_attributes_of(base)[name] for base in _mro_of(kind) if name in _attributes_of(base)), None)


def _plain_size(value: object) -> int | None:
    """By the type's own C code; None where a class brings a `__sizeof__` in Python."""
    if type(_slot(type(value), "__sizeof__")) is not type(object.__sizeof__):
        return None
    return _checked(sys.getsizeof(value))


def _must_be_asked(kind: type) -> bool:
    if type(_slot(kind, "__sizeof__")) is not type(object.__sizeof__):
        return True
    return any(_slot(kind, name) is not None for name in _FIGURES)


def _figure(value: Any) -> int | None:
    try:
        if _slot(type(value), "nbytes") is not None:
            return _checked(value.nbytes)
        if _slot(type(value), "memory_usage") is not None:
            usage = value.memory_usage(deep=True)
            return _checked(usage if type(usage) is int else int(usage.sum()))
        return _checked(sys.getsizeof(value))
    except BaseException:
        return None


def _checked(size: object) -> int | None:
    return size if type(size) is int and 0 <= size < _MAX_SIZE else None
