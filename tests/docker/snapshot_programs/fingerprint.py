"""Run inside a session with its globals as `ns`: prints a text that is the same exactly for sessions that are the same.

Every object that can change has a number, given when the walk first meets it, so two texts are equal only where values
and sharing are. Floats, texts and other atoms are shown whole; tuples by their members. Leaves nothing behind.
"""

import array
import collections
import ctypes
import decimal
import enum
import functools
import hashlib
import io
import itertools
import json
import math
import os
import random
import sys
import types
import warnings
from typing import Any

np: Any = sys.modules.get("numpy")
pd: Any = sys.modules.get("pandas")

ATOMS = (int, float, complex, str, bytes, bool, type(None), type(...), decimal.Decimal, range)
WRAPPERS = (staticmethod, classmethod)
OF_CLASSES = {"__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__slotnames__"}
OF_MODULES = {"__builtins__", "__name__", "__doc__", "__package__", "__loader__", "__spec__", "__warningregistry__"}


def digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class Walk:
    """What was met, and what is yet to be described."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.numbers: dict[int, int] = {}
        self.alive: list[Any] = []
        self.lines: list[str] = []
        self.at = 0

    def run(self) -> str:
        for name, value in list(self.namespace.items()):
            if name not in OF_MODULES:
                self.lines.append(f"{name} = {self.show(value)}")
        self.lines += [f"state {name} = {self.show(value)}" for name, value in state()]
        while self.at < len(self.alive):
            one = self.alive[self.at]
            self.at += 1
            self.lines.append(f"#{self.at} {type.__call__(str, type(one).__name__)} {self.describe(one)}")
        return "\n".join(self.lines)

    def show(self, one: Any) -> str:  # noqa: PLR0911 - the kinds, one after the other
        if one is self.namespace:
            return "globals"
        if type(one) in ATOMS:
            return repr(one)
        if type(one) is tuple:
            return "(" + ", ".join(map(self.show, one)) + ")"
        if type(one) is frozenset:
            return "frozen" + str(sorted(map(self.show, one)))
        if isinstance(one, types.ModuleType) and one.__spec__ is not None:
            return f"module {one.__name__}"
        if isinstance(one, type | types.BuiltinFunctionType | types.FunctionType) and is_of_a_module(one):
            return f"{one.__module__}.{one.__qualname__}"
        if id(one) not in self.numbers:
            self.alive.append(one)
            self.numbers[id(one)] = len(self.alive)
        return f"#{self.numbers[id(one)]}"

    def describe(self, one: Any) -> str:
        shown = [self.content(one)]
        if isinstance(one, type):
            return shown[0]
        if is_of_session(type(one)):
            shown.append(self.show(type(one)))
        is_of_pandas = type(one).__module__.startswith("pandas")
        if not is_of_pandas and not isinstance(one, WRAPPERS) and type(getattr(one, "__dict__", None)) is dict:
            # Which of functools' own lambdas it is depends on how lru_cache was called.
            fields = {name: value for name, value in vars(one).items() if name != "cache_parameters"}
            shown.append("fields " + self.pairs(fields))
        for base in type(one).__mro__:
            slots = vars(base).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            named = [name for name in names if name != "__dict__" and hasattr(one, name) and is_of_session(base)]
            shown += [f"slot {name} {self.show(getattr(one, name))}" for name in named]
        return " ".join(shown)

    def content(self, one: Any) -> str:
        for kind, show in KINDS:
            if isinstance(one, kind):
                return str(show(self, one))
        return ""

    def pairs(self, mapping: Any) -> str:
        return "{" + ", ".join(f"{self.show(key)}: {self.show(value)}" for key, value in mapping.items()) + "}"

    def all(self, *several: Any) -> str:
        return " ".join(map(self.show, several))

    def sequence(self, one: Any) -> str:
        return "[" + ", ".join(map(self.show, one)) + "]"

    def function(self, one: Any) -> str:
        cells = [self.show(cell) for cell in one.__closure__ or ()]
        home = "here" if one.__globals__ is self.namespace else "elsewhere"
        notes = self.pairs(one.__annotations__)
        return (
            f"{one.__qualname__} {self.code(one.__code__)} {home} {notes} {cells} {self.all(one.__defaults__)}"
            f" {self.show(one.__kwdefaults__)} {one.__doc__!r}"
        )

    def code(self, one: types.CodeType) -> str:
        constants = [self.code(c) if isinstance(c, types.CodeType) else self.show(c) for c in one.co_consts]
        return f"{one.co_name} {digest(one.co_code)} {one.co_names} {constants}"

    def cell(self, one: Any) -> str:
        try:
            return self.show(one.cell_contents)
        except ValueError:
            return "empty"

    def of_class(self, one: Any) -> str:
        fields = {name: value for name, value in vars(one).items() if name not in OF_CLASSES}
        if any(isinstance(base, enum.EnumMeta) for base in type(one).__mro__) or isinstance(one, enum.EnumMeta):
            fields = {name: value for name, value in fields.items() if not name.startswith("_")}
        plain = {name: value for name, value in fields.items() if type(value).__name__ != "member_descriptor"}
        return f"{one.__qualname__} {self.sequence(one.__bases__)} {self.show(type(one))} {self.pairs(plain)}"

    def array(self, one: Any) -> str:
        content = self.sequence(one.ravel().tolist()) if one.dtype.hasobject else digest(one.tobytes())
        fields = (
            one.dtype.str,
            one.dtype.descr,
            one.shape,
            one.strides,
            one.flags.writeable,
            one.flags.owndata or not one.size,
        )
        # Nothing is shared by an array without memory; numpy itself stands a view between an array and its buffer.
        base = one.base.obj if isinstance(one.base, memoryview) else one.base if one.size else None
        return f"{fields!r} {content} on {self.show(base)}"

    def frame(self, one: Any) -> str:
        columns = [(self.show(name), str(one[name].dtype), self.sequence(one[name].tolist())) for name in one.columns]
        return f"{columns} {self.series_of(one.index)} {self.pairs(one.attrs)}"

    def series_of(self, one: Any) -> str:
        attributes = self.pairs(getattr(one, "attrs", {}))
        index = "" if isinstance(one, pd.Index) else self.series_of(one.index)
        return f"{one.dtype} {one.name!r} {self.sequence(one.tolist())} {attributes} {index}"


def is_of_session(kind: type) -> bool:
    return kind.__module__ == "__main__"


def is_of_a_module(one: Any) -> bool:
    found: Any = sys.modules.get(getattr(one, "__module__", None) or "")
    if found is None or found.__name__ == "__main__":
        return False
    for part in one.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is one


def state() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("random", digest(repr(random.getstate()).encode())),
        ("environ", tuple(sorted((k, v) for k, v in os.environ.items() if k != "HOSTNAME"))),
        ("cwd", os.getcwd()),
        ("path", tuple(sys.path)),
        ("recursion", sys.getrecursionlimit()),
        ("warnings", repr([str(one[:3]) for one in warnings.filters])),
        ("decimal", repr(decimal.getcontext())),
    ]
    for module in (math, json, functools):
        found += [(f"{module.__name__}.{n}", vars(module)[n]) for n in sorted(vars(module)) if n.startswith("mine")]
    if np is not None:
        found.append(("numpy", digest(repr(np.random.get_state()).encode() + np.random.get_state()[1].tobytes())))
        found.append(("printing", repr(sorted(np.get_printoptions().items(), key=str))))
    if pd is not None:
        found.append(("pandas", pd.get_option("display.max_rows")))
    return found


Kind = Any
KINDS: list[tuple[Any, Any]] = [
    (type, Walk.of_class),
    (types.FunctionType, Walk.function),
    (types.CellType, Walk.cell),
    (types.CodeType, Walk.code),
    (types.MethodType, lambda walk, one: walk.all(one.__func__, one.__self__)),
    (types.BuiltinFunctionType, lambda walk, one: f"{one.__name__} of {walk.show(one.__self__)}"),
    (functools.partial, lambda walk, one: walk.all(one.func, one.args, one.keywords)),
    (WRAPPERS, lambda walk, one: walk.show(one.__func__)),
    (property, lambda walk, one: walk.all(one.fget, one.fset, one.fdel)),
    (enum.Enum, lambda walk, one: walk.all(one.name, one.value)),
    (types.ModuleType, lambda walk, one: walk.pairs({k: v for k, v in vars(one).items() if k not in OF_MODULES})),
    (collections.defaultdict, lambda walk, one: walk.pairs(one) + walk.show(one.default_factory)),
    (dict, lambda walk, one: walk.pairs(one)),
    (types.MappingProxyType, lambda walk, one: walk.pairs({k: v for k, v in one.items() if k not in OF_CLASSES})),
    ((list, tuple), Walk.sequence),
    (collections.deque, lambda walk, one: walk.sequence(one) + repr(one.maxlen)),
    ((set, frozenset), lambda walk, one: str(sorted(map(walk.show, one)))),
    ((type({}.keys()), type({}.values()), type({}.items())), lambda walk, one: walk.sequence(list(one))),
    ((bytearray, int, float, str, bytes), lambda _walk, one: repr(type(one).__mro__[-2](one))),
    (array.array, lambda _walk, one: repr(one)),
    (
        memoryview,
        lambda walk, one: (
            walk.all(one.obj, one.format, one.shape, one.strides, one.readonly)
            + ("" if "O" in one.format else digest(one.tobytes()))
        ),
    ),
    (io.StringIO, lambda _walk, one: f"{one.getvalue()!r} {one.tell()}"),
    (io.BytesIO, lambda _walk, one: f"{one.getvalue()!r} {one.tell()}"),
    (random.Random, lambda _walk, one: digest(repr(one.getstate()).encode())),
    (BaseException, lambda walk, one: walk.all(one.args, one.__cause__, one.__context__)),
    ((ctypes._SimpleCData, ctypes.Array, ctypes.Structure), lambda _walk, one: bytes(one).hex()),
    (
        (type(iter([])), type(iter(())), type(iter(range(0))), enumerate, zip),
        lambda walk, one: walk.all(one.__reduce__()[1:]),
    ),
    (itertools.count, lambda _walk, one: repr(one)),
]
if np is not None:
    KINDS[:0] = [
        (np.ndarray, Walk.array),
        (np.generic, lambda _walk, one: repr(one)),
        (np.random.Generator, lambda _walk, one: repr(one.bit_generator.state)),
    ]
if pd is not None:
    KINDS[:0] = [(pd.DataFrame, Walk.frame), ((pd.Series, pd.Index), Walk.series_of)]

if __name__ == "__main__":
    print(Walk(ns).run())  # type: ignore[name-defined]  # noqa: F821 - given by who runs it
