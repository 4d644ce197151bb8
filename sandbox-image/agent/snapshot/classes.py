"""How the session's classes and their enum members are taken apart."""

import _collections_abc
import builtins
import enum
import sys
import types
from abc import ABCMeta
from collections.abc import Iterator
from types import FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from agent import pristine
from agent.snapshot import rebuild
from agent.snapshot.catalog import (
    attributes_of,
    bases_of,
    is_made_by_statement,
    is_named_in_workspace,
    module_of,
    name_of,
    qualified_name_of,
)
from agent.snapshot.oddities import C_TYPES, RefusedError

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_METHODS = (FunctionType, staticmethod, classmethod, property)
_BY_CREATION = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__module__",
        "__qualname__",
        "_abc_impl",
        "__abstractmethods__",
        "__annotations_cache__",
        "__slotnames__",  # which pickling an instance leaves there
    }
)
# A class may have these as attributes for its instances, but on the class itself they are type's own.
_UNSETTABLE = (
    "__class__",
    "__name__",
    "__mro__",
    "__bases__",
    "__base__",
    "__flags__",
    "__basicsize__",
    "__itemsize__",
)


class Call:
    """Pickled as the result of a call, which is made where it stands in the bytes."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments


def reduce_call(_dump: "Dump", of: Call) -> Any:
    """What was asked for."""
    return of.function, of.arguments


def reduce_class(dump: "Dump", of: type) -> Any:
    """By name where it can be imported, by slot where another group has it, else whole."""
    if not is_made_by_statement(of):
        found = _named_elsewhere().get(of)
        return NotImplemented if found is None else (rebuild.attribute, found)
    if dump.catalog.is_importable(of):
        dump.plain = dump.plain and not is_named_in_workspace(of)
        return NotImplemented
    if not dump.inlines(of):
        return dump.refer(of)
    if isinstance(of, C_TYPES):
        raise RefusedError("a ctypes type of the session cannot be saved")
    dump.plain = False  # a metaclass may have a say in what bases and attributes do
    attributes = {name: value for name, value in attributes_of(of).items() if _is_ours(of, name, value)}
    if "__doc__" in attributes:
        attributes = {"__doc__": attributes.pop("__doc__"), **attributes}  # where creation puts it
    methods = {name: value for name, value in attributes.items() if isinstance(value, _METHODS)}
    for value in methods.values():
        for function in _functions_in(value):
            dump.inline_method(function)
    data = {name: value for name, value in attributes.items() if name not in methods}
    made = (type(of), sys.intern(name_of(of)), bases_of(of), _creation(of))
    first = Call(rebuild.class_methods, of, tuple(map(sys.intern, attributes)), methods)
    return rebuild.class_, made, (first, data, _abstract(of)), None, None, rebuild.set_class


def _named_elsewhere() -> dict[type, tuple[str, str]]:
    """Types in C that don't stand where they say: of functions, dict views, mapping proxies and so on."""
    if not _ELSEWHERE:
        for module, home in (("_collections_abc", _collections_abc), ("types", types)):
            for name, value in vars(home).items():
                hidden = isinstance(value, type) and getattr(builtins, value.__name__, None) is not value
                if hidden and value.__module__ == "builtins":
                    _ELSEWHERE[value] = (module, name)
        _ELSEWHERE.pop(type(None), None)  # pickle knows these three
        _ELSEWHERE.pop(type(...), None)
        _ELSEWHERE.pop(type(NotImplemented), None)
    return _ELSEWHERE


_ELSEWHERE: dict[type, tuple[str, str]] = {}


def _is_ours(of: type, name: str, value: Any) -> bool:
    if name in _BY_CREATION or name in _UNSETTABLE or (name == "__doc__" and value is None):
        return False
    return not (type(value) is MemberDescriptorType and value.__objclass__ is of)


def _functions_in(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, property):
        candidates = [value.fget, value.fset, value.fdel]
    elif isinstance(value, staticmethod | classmethod):
        candidates = [value.__func__]
    else:
        candidates = [value]
    for candidate in candidates:
        if type(candidate) is FunctionType:
            yield candidate


def _creation(of: type) -> dict[str, Any]:
    attributes = attributes_of(of)
    creation: dict[str, Any] = {"__qualname__": sys.intern(qualified_name_of(of))}
    module = attributes.get("__module__")
    if type(module) is str:
        creation["__module__"] = sys.intern(module)
    creation.update({name: attributes[name] for name in _UNSETTABLE if name in attributes})
    if "__slots__" in attributes:
        members = [
            name
            for name, value in attributes.items()
            if type(value) is MemberDescriptorType and value.__objclass__ is of
        ]
        added = [name for name in ("__dict__", "__weakref__") if name in attributes]
        creation["__slots__"] = (*map(sys.intern, members), *added)
    return creation


def _abstract(of: type) -> dict[str, Any]:
    if not isinstance(of, ABCMeta):
        return {}
    import _abc  # type: ignore[import-not-found]

    state: dict[str, Any] = {}
    abstract = attributes_of(of).get("__abstractmethods__")
    if abstract:
        state["abstract"] = abstract
    references = _abc._get_dump(of)[0]  # noqa: SLF001 - the only way to the registry
    registered = [kind for kind in (reference() for reference in references) if kind is not None]
    if registered:
        # The registry is a set of addresses: by name, so that equal registries are equal bytes.
        state["registered"] = sorted(registered, key=lambda kind: (str(module_of(kind)), qualified_name_of(kind)))
    return state


def reduce_enum_member(dump: "Dump", of: enum.Enum) -> Any:
    """By name, but for the members that belong to a class in this very group."""
    kind = type(of)
    if dump.catalog.is_importable(kind):
        return NotImplemented
    if dump.inlines(kind):
        maker: Any = vars(kind)["_member_type_"]
        made = object.__reduce_ex__(of, 2)
        arguments = made[1][1:] if isinstance(made, tuple) else ()
        return rebuild.raw, (maker, kind, *arguments), dict(of.__dict__), None, None, rebuild.set_dict
    if of._name_ is not None and kind._member_map_.get(of._name_) is of:
        return rebuild.enum_member, (kind, of._name_)
    return rebuild.enum_value, (kind, of._value_)
