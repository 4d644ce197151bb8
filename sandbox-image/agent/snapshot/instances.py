"""How instances of the session's classes are taken apart.

pickle asks `__iter__` or `items` what an object holds, makes it by its `__new__` or by calling its class, with what the
base in C remembers, fills it by `append`, `extend`, `__setitem__` and `__setattr__`, and looks in the object itself for
a `__setstate__`, which a `__getattr__` answers. A class that overrides these gets arguments that are not its own, or
counts its objects twice, or loses or changes what they hold. Here the base in C reads, makes and fills them, unless the
class says itself how it is pickled.
"""

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent import pristine
from agent.snapshot import rebuild, rebuild_instances
from agent.snapshot.catalog import (
    Catalog,
    attributes_of,
    is_made_by_statement,
    is_named_in_workspace,
    mro_of,
)

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_REDUCES = frozenset({"__reduce__", "__reduce_ex__"})
_ARGUMENTS = frozenset({"__getnewargs__", "__getnewargs_ex__"})
_MAKES = frozenset({"__new__"})
_OF_ANY = frozenset({"__new__", "__setattr__", "__getattr__", "__getattribute__"})
_OF_CONTAINERS = _OF_ANY | {"__init__", "__iter__", "items", "__setitem__", "append", "extend"}


def handler_of(kind: type, catalog: Catalog) -> Callable[["Dump", Any], Any] | None:
    """Of a type's instances; None where pickle's own way is right."""
    if not is_made_by_statement(kind) or not _is_ours(kind, catalog):
        return None
    if any("__class__" in attributes_of(base) for base in mro_of(kind)[:-1]):
        return reduce_disguised
    reduces = _first_with(_REDUCES, kind)
    if reduces is None:
        return reduce_whole if _is_touched(kind, catalog) else None
    if is_made_by_statement(reduces) and _is_ours(reduces, catalog):
        return reduce_instance
    in_c = not is_made_by_statement(reduces) or reduces is collections.Counter
    return reduce_whole if in_c and _is_touched(kind, catalog) else reduce_with_attributes


def _is_ours(kind: type, catalog: Catalog) -> bool:
    return not catalog.is_importable(kind) or is_named_in_workspace(kind)


def _first_with(names: frozenset[str], kind: type) -> type | None:
    """The class that these attributes are inherited from, if that is not `object`."""
    return next((base for base in mro_of(kind)[:-1] if names & attributes_of(base).keys()), None)


def _is_touched(kind: type, catalog: Catalog) -> bool:
    """Whether code of the session would run while pickle reads, makes or fills an instance."""
    bases = mro_of(kind)
    ours = [one for one in bases if is_made_by_statement(one) and _is_ours(one, catalog)]
    overridden = {name for one in ours for name in _OF_CONTAINERS & attributes_of(one).keys()}
    if not any("__slots__" in attributes_of(one) for one in ours):
        overridden.discard("__setattr__")  # only slots are set through it: frozen dataclasses stay as fast as others
    by_hand = _first_with(_ARGUMENTS, kind)
    if by_hand is not None and by_hand in ours and not _is_outdated(by_hand, kind):
        return False
    if _base_of(kind) is object:
        return not overridden.isdisjoint(_OF_ANY)
    return bool(overridden)


def _is_outdated(by_hand: type, kind: type) -> bool:
    """Whether what a named tuple gives to its `__new__` would reach another one, in a class derived from it."""
    function = attributes_of(by_hand).get("__getnewargs__")
    generated = getattr(function, "__globals__", None) is vars(collections)
    return generated and _first_with(_MAKES, kind) is not by_hand


def _base_of(kind: type) -> Any:
    """The first base in C."""
    return next(base for base in mro_of(kind) if not is_made_by_statement(base))


def reduce_whole(_dump: "Dump", of: Any) -> Any:
    """Made and filled by its base in C."""
    kind: Any = type(of)
    base = _base_of(kind)
    arguments: tuple[Any, ...] = ()
    state = None
    if base in (set, frozenset):
        arguments = (list(base.__iter__(of)),)
    elif _REDUCES & attributes_of(base).keys() and base is not object:
        made = base.__reduce_ex__(of, 5)
        if not isinstance(made, tuple) or made[0] is not kind:
            return made
        arguments, state = made[1], made[2] if len(made) > 2 else None  # noqa: PLR2004
    elif "__getnewargs__" in attributes_of(base):
        arguments = base.__getnewargs__(of)
    first = rebuild_instances.whole, (base, kind, *arguments)
    items = _items_of(of, base)
    if state is None:
        state = kind.__getstate__(of)
    if items is None and state is None:
        return first
    return *first, (base, items, state), None, None, rebuild_instances.fill


def reduce_counter(dump: "Dump", of: Any) -> Any:
    """Whole where it has attributes, which its own pickling drops."""
    return reduce_whole(dump, of) if vars(of) else NotImplemented


def _items_of(of: Any, base: Any) -> list[Any] | None:
    if issubclass(base, dict):
        return list(base.items(of))
    return list(base.__iter__(of)) if issubclass(base, list | collections.deque) else None


def reduce_with_attributes(_dump: "Dump", of: Any) -> Any:
    """As a library's class says, and with the attributes that this leaves out."""
    made = of.__reduce_ex__(5)
    fields = getattr(of, "__dict__", None)
    if not isinstance(made, tuple) or not fields or (len(made) > 2 and made[2] is not None):  # noqa: PLR2004
        return made
    items, pairs = (*made[3:], None, None)[:2]
    return made[0], made[1], dict(fields), items, pairs, rebuild.set_dict


def reduce_disguised(_dump: "Dump", of: Any) -> Any:
    """An instance whose `__class__` is not its type, which pickle would not take."""
    made = object.__reduce_ex__(of, 2)
    if not isinstance(made, tuple):
        return NotImplemented
    return (rebuild.raw, (type(of), *made[1]), *made[2:])


def reduce_instance(_dump: "Dump", of: Any) -> Any:
    """An instance of a class that has a `__reduce__` of its own.

    A string means "the global of that name", which is not bound yet where it is loaded: such an object is saved whole.
    """
    made = of.__reduce_ex__(5)
    if not isinstance(made, str):
        return made
    fields = getattr(of, "__dict__", None)
    return (
        (rebuild.raw, (object, type(of)), fields, None, None, rebuild.set_dict)
        if fields
        else (rebuild.raw, (object, type(of)))
    )
