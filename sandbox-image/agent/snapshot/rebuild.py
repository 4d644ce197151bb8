"""What saved bytes call when they are loaded. Names and arguments here are part of the format: add, never change.

Each function makes one kind of object again; `current` is the load that is under way in this process.
"""

import builtins
import importlib
import sys
import weakref
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

Fields = dict[str, Any]


class MissingError(Exception):
    """What a group refers to did not come back."""


class Load(Protocol):
    """What the functions below need of the load under way."""

    namespace: Fields
    slots: Fields
    rehearses: bool  # what comes is only tried, and let go again

    def read_array(self, index: int, target: memoryview) -> None:
        """Fill `target` with the bytes of the group's array of that index."""

    def at_end(self, act: Callable[[], None]) -> None:
        """Do this when the group is loaded."""


current: Load = None  # type: ignore[assignment]  # set by whoever loads, before it does


# the live objects that everything refers to


def live_containers() -> list[Any]:
    """Exact dicts and lists that no reducer is asked about; their order is part of the format."""
    return [current.namespace, builtins.__dict__, sys.modules, sys.path]


def live_container(index: int) -> Any:
    """One of those."""
    return live_containers()[index]


def slot(name: str) -> Any:
    """A function or class of the session, from a group loaded before."""
    try:
        return current.slots[name]
    except KeyError:
        raise MissingError(f"it needs {name!r}, which did not come back") from None


def module(name: str) -> ModuleType:
    """An importable one."""
    return importlib.import_module(name)


def attribute(module_name: str, path: str) -> Any:
    """Something that a module made for everybody, such as `random._inst`."""
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        found = getattr(found, part)
    return found


# modules, functions, cells


def new_module(name: str, listed: bool, kind: type[ModuleType] = ModuleType) -> ModuleType:  # noqa: FBT001 - the format has positions only
    """A module that a cell made; `listed`: it stands in sys.modules."""
    made = ModuleType.__new__(kind)
    ModuleType.__init__(made, name)
    if listed:
        sys.modules[name] = made
    return made


def set_module(made: ModuleType, state: Fields) -> None:
    """Its attributes."""
    made.__dict__.clear()
    made.__dict__.update({sys.intern(name): value for name, value in state.items()})


def code(data: bytes) -> Any:
    """A code object."""
    import marshal

    return marshal.loads(data)  # noqa: S302 - restoring the user's own code is what a sandbox is for


def function(made_of: Any, home: Any, name: str, closure: tuple[CellType, ...] | None) -> FunctionType:
    """A function without its attributes; `home` is its globals, or the module whose dict these are."""
    globals_ = home.__dict__ if isinstance(home, ModuleType) else home
    return FunctionType(made_of, globals_, sys.intern(name), None, closure)


def set_function(made: FunctionType, state: Fields) -> None:
    """Its attributes, those that differ from what the code gives."""
    for name, value in state.items():
        if name == "__dict__":
            made.__dict__.update(interned(value))
        else:
            setattr(made, name, sys.intern(value) if type(value) is str else value)


def cell() -> CellType:
    """An empty one."""
    return CellType()


def set_cell(made: CellType, state: tuple[Any]) -> None:
    """Its content."""
    made.cell_contents = state[0]


def method(of: Any, owner: Any) -> MethodType:
    """A bound method."""
    return MethodType(of, owner)


# classes


def class_(meta: type, name: str, bases: tuple[type, ...], creation: Fields) -> type:
    """A class without attributes, and without running its metaclass, `__init_subclass__` or `__set_name__` again."""
    silenced = _silence_init_subclass(bases)
    try:
        return type.__new__(meta, name, bases, interned(creation))
    finally:
        for owner, original in silenced:
            type.__setattr__(owner, "__init_subclass__", original)


def _silence_init_subclass(bases: tuple[type, ...]) -> list[tuple[type, Any]]:
    found = {kind: None for base in bases for kind in type.__dict__["__mro__"].__get__(base)}
    owners = [kind for kind in found if kind is not object and "__init_subclass__" in vars(kind)]
    silenced = [(owner, vars(owner)["__init_subclass__"]) for owner in owners]
    for owner in owners:
        type.__setattr__(owner, "__init_subclass__", classmethod(_do_nothing))
    return silenced


def _do_nothing(_kind: type, /, **_given: Any) -> None:
    pass


def class_methods(made: type, names: tuple[str, ...], methods: Fields) -> None:
    """Methods come before data, since data may be instances of the class; `names` keeps the dict's order."""
    for name in names:
        type.__setattr__(made, sys.intern(name), _tame(name, methods.get(name)))
    if "_abc_impl" in vars(made) or isinstance(made, _abc_meta()):
        import _abc  # type: ignore[import-not-found]

        _abc._abc_init(made)  # noqa: SLF001 - what ABCMeta.__new__ does


def set_class(made: type, state: tuple[None, Fields, Fields]) -> None:
    """The rest of its attributes; the first item of the state has called `class_methods`."""
    for name, value in state[1].items():
        type.__setattr__(made, sys.intern(name), _tame(name, value))
    for kind in state[2].get("registered", ()):
        _abc_meta().register(made, kind)
    if "abstract" in state[2]:
        type.__setattr__(made, "__abstractmethods__", state[2]["abstract"])


def _tame(name: str, value: Any) -> Any:
    """Not a finalizer where values are only tried: it would remove the file of a value that lives on in the session."""
    return _finalize_nothing if name == "__del__" and current.rehearses else value


def _finalize_nothing(_of: object) -> None:
    pass


def _abc_meta() -> Any:
    import abc

    return abc.ABCMeta


def property_(kind: type, *functions: Any) -> Any:
    """A property of a subclass, past a constructor of its own."""
    made: property = property.__new__(kind)
    property.__init__(made, *functions)
    return made


def class_dict(of: type) -> Any:
    """The mapping proxy of a class."""
    return type.__dict__["__dict__"].__get__(of)


def enum_member(kind: Any, name: str) -> Any:
    """A member of an enum, by its name."""
    return kind._member_map_[name]


def enum_value(kind: Any, value: Any) -> Any:
    """A combination of flags, by its value."""
    return kind(value)


def raw(maker: type, kind: type, *arguments: Any) -> Any:
    """An instance made by `maker.__new__`, whatever `kind` has of its own."""
    return maker.__new__(kind, *arguments)


def set_dict(made: Any, state: Mapping[str, Any]) -> None:
    """The attributes in an instance's `__dict__`, whatever `__setattr__` or `__setstate__` it has."""
    object.__getattribute__(made, "__dict__").update(interned(state))


def interned(state: Mapping[str, Any]) -> Fields:
    """As attribute names are: so that a restored session is pickled to the same bytes."""
    return {sys.intern(name) if type(name) is str else name: value for name, value in state.items()}


# values that pickle refuses or brings back apart


def exception(kind: type[BaseException], builtin: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    """An exception without running a constructor of the session's; `builtin` is the first base in C."""
    made = kind.__new__(kind, *arguments)
    builtin.__init__(made, *arguments)
    return made


def set_exception(made: BaseException, state: tuple[Any, Any, bool, Fields | None, tuple[Any, ...]]) -> None:
    """Cause, context, whether the latter is hidden, attributes, arguments."""
    cause, context, hidden, fields, arguments = state
    made.__cause__, made.__context__ = cause, context
    made.__suppress_context__ = hidden
    made.args = arguments
    if fields:
        made.__dict__.update(interned(fields))


def dict_view(of: Fields, kind: str) -> Any:
    """Keys, values or items of a dict."""
    return getattr(type(of), kind)(of)


def memory_view(of: Any, form: str, shape: tuple[int, ...], offset: int, size: int, read_only: bool) -> memoryview:  # noqa: FBT001, PLR0917 - the format has positions only
    """A contiguous view of a buffer."""
    view = memoryview(of).cast("B")[offset : offset + size]
    if read_only and not view.readonly:
        view = view.toreadonly()
    return view if form == "B" and len(shape) == 1 else view.cast(form, shape)  # type: ignore[call-overload]


def dead_reference() -> Any:
    """A weak reference whose object is gone."""
    return weakref.ref(type("Gone", (), {})())


def lock(kind: str) -> Any:
    """An unlocked one."""
    import threading

    return threading.RLock() if kind == "RLock" else threading.Lock()


def cached(of: Any, size: int | None, typed: bool) -> Any:  # noqa: FBT001
    """A function behind an empty `lru_cache`."""
    import functools

    return functools.lru_cache(size, typed)(of)


def generic_type(kind: str, name: str, fields: Fields) -> Any:
    """TypeVar, ParamSpec, TypeVarTuple or NewType."""
    import typing

    return getattr(typing, kind)(name, *fields.pop("constraints", ()), **fields)


def set_module_name(made: Any, state: str) -> None:
    """The module that it says it is from."""
    made.__module__ = sys.intern(state)
