"""Where inside a variable the object is that can not be saved, and the words for why. Asked only after a failure."""

import time
from collections import deque
from collections.abc import Iterator
from types import CellType, FunctionType
from typing import Any

from agent import pristine
from agent.snapshot.dump import TooLargeError
from agent.snapshot.oddities import RefusedError

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_BOUND = 0.2  # seconds
_MOST_OBJECTS = 200_000
_MAX_REASON = 400  # characters
_LEAVES = frozenset({int, float, complex, str, bytes, bool, type(None)})


def path_to(root: Any, target: Any, name: str) -> str | None:
    """Such as `holder['deep'][1]`; None where it was not found in time."""
    deadline = time.monotonic() + _BOUND
    pending: deque[tuple[Any, str]] = deque([(root, name)])
    seen = {id(root)}
    alive = [root]
    while pending and len(seen) < _MOST_OBJECTS and time.monotonic() < deadline:
        one, path = pending.popleft()
        if one is target:
            return path
        try:
            for step, child in _children(one):
                if child is target:
                    return path + step
                if type(child) not in _LEAVES and id(child) not in seen:
                    seen.add(id(child))
                    alive.append(child)
                    pending.append((child, path + step))
        except Exception:  # noqa: S112 - an object that can not be looked into is passed by
            continue
    return None


def _children(of: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(of, dict):
        for key, value in dict.items(of):
            yield f"[{key!r}]" if type(key) in (str, int) else "[…]", value
            yield ".keys()", key
    elif isinstance(of, list | tuple):
        for index, value in enumerate(of):
            yield f"[{index}]", value
    elif isinstance(of, set | frozenset):
        for value in of:
            yield "{…}", value
    elif type(of) is CellType:
        yield "", of.cell_contents
    elif type(of) is FunctionType:
        yield from _parts_of_function(of)
    for name, value in _fields(of):
        yield f".{name}", value


def _parts_of_function(of: FunctionType) -> Iterator[tuple[str, Any]]:
    for variable, cell in zip(of.__code__.co_freevars, of.__closure__ or (), strict=False):
        yield f".<{variable}>", cell
    yield ".__defaults__", of.__defaults__
    yield ".__kwdefaults__", of.__kwdefaults__


def _fields(of: Any) -> Iterator[tuple[str, Any]]:
    try:
        fields = vars(of) if isinstance(of, type) else object.__getattribute__(of, "__dict__")
        yield from dict(fields).items()
    except AttributeError:
        pass
    for kind in type.__dict__["__mro__"].__get__(type(of)):
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            descriptor = vars(kind).get(name)
            if descriptor is not None:
                try:
                    yield name, descriptor.__get__(of, type(of))
                except AttributeError:
                    continue


def words_for(error: BaseException) -> str:
    """Why a value is not saved, in a clause."""
    if isinstance(error, TooLargeError):
        return "too large"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "not enough memory to save it"
    try:
        text = str.__str__(str(error))
    except BaseException:
        text = "its text could not be had"
    text = " ".join(text.split())[:_MAX_REASON]
    if isinstance(error, RefusedError) or (isinstance(error, TypeError) and text.startswith("cannot pickle")):
        return text
    return f"pickling raised {type(error).__name__}: {text}" if text else f"pickling raised {type(error).__name__}"
