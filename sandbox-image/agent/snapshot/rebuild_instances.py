"""What saved bytes call to make instances of the session's classes. Names and arguments are part of the format."""

from typing import Any

from agent import pristine
from agent.snapshot.rebuild import interned

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]


def whole(base: Any, kind: type, *arguments: Any) -> Any:
    """An instance made by its base in C, whatever `kind` has of its own."""
    made = base.__new__(kind, *arguments)
    if "__init__" in vars(base):
        base.__init__(made, *arguments)
    return made


def fill(made: Any, state: tuple[Any, list[Any] | None, Any]) -> None:
    """Its items, by the base in C, and then its state, as pickle sets it but for a `__setattr__` of the class."""
    base, items, fields = state
    if items is not None and issubclass(base, dict):
        for key, value in items:
            base.__setitem__(made, key, value)
    elif items is not None:
        base.extend(made, items)
    if fields is None:
        return
    kind: Any = type(made)
    if any("__setstate__" in vars(one) for one in kind.__mro__):
        kind.__setstate__(made, fields)
        return
    fields, slots = fields if isinstance(fields, tuple) and len(fields) == 2 else (fields, None)  # noqa: PLR2004
    if fields:
        object.__getattribute__(made, "__dict__").update(interned(fields))
    for name, value in (slots or {}).items():
        object.__setattr__(made, name, value)
