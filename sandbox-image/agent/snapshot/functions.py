"""How functions, cells, code objects, modules and methods are taken apart."""

import functools
import marshal
import sys
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from agent import pristine
from agent.snapshot import rebuild
from agent.snapshot.catalog import is_importable_module, is_named_in_workspace

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

# Version 0 writes equal code as equal bytes: later ones write down which objects happen to be shared or interned.
_MARSHAL_VERSION = 0


def reduce_function(dump: "Dump", of: FunctionType) -> Any:
    """By name where it can be imported, by slot where another group has it, else whole."""
    if dump.catalog.is_importable(of):
        dump.plain = dump.plain and not is_named_in_workspace(of)
        return NotImplemented
    if not dump.inlines(of):
        return dump.refer(of)
    home = dump.catalog.home_of(of.__globals__)
    arguments = (of.__code__, home, sys.intern(of.__name__), of.__closure__)
    return rebuild.function, arguments, _attributes(of), None, None, rebuild.set_function


def _attributes(of: FunctionType) -> dict[str, Any]:
    code = of.__code__
    documented = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else None
    given = {
        "__qualname__": (sys.intern(of.__qualname__), code.co_qualname),
        "__module__": (sys.intern(of.__module__) if type(of.__module__) is str else of.__module__, None),
        "__doc__": (of.__doc__, documented),
        "__defaults__": (of.__defaults__, None),
        "__kwdefaults__": (of.__kwdefaults__, None),
        "__type_params__": (getattr(of, "__type_params__", ()), ()),
    }
    state = {
        name: value for name, (value, usual) in given.items() if value is not usual and not _same_text(value, usual)
    }
    # From 3.14 annotations are computed when they are asked for, which may fail: their function is saved instead.
    annotate = getattr(of, "__annotate__", None)
    if annotate is not None:
        state["__annotate__"] = annotate
    elif not hasattr(FunctionType, "__annotate__") and of.__annotations__:
        state["__annotations__"] = of.__annotations__
    if of.__dict__:
        state["__dict__"] = of.__dict__
    return state


def _same_text(one: Any, other: Any) -> bool:
    return type(one) is str is type(other) and one == other


def reduce_cell(_dump: "Dump", of: CellType) -> Any:
    """The cell itself, so that functions that share it go on sharing."""
    try:
        content = of.cell_contents
    except ValueError:
        return rebuild.cell, ()
    return rebuild.cell, (), (content,), None, None, rebuild.set_cell


def reduce_code(dump: "Dump", of: CodeType) -> Any:
    """Byte code belongs to one minor version of Python; the manifest names it."""
    dump.byte_code = True
    try:
        return rebuild.code, (marshal.dumps(of, _MARSHAL_VERSION),)
    except ValueError:
        # Constants that version 0 does not know, such as the slices of 3.14. Equal code may then differ in its bytes.
        return rebuild.code, (marshal.dumps(of),)


def reduce_module(_dump: "Dump", of: ModuleType) -> Any:
    """By name where it can be imported; one that a cell made with all that is in it."""
    if is_importable_module(of):
        return rebuild.module, (of.__name__,)
    listed = sys.modules.get(of.__name__) is of
    made = (of.__name__, listed) if type(of) is ModuleType else (of.__name__, listed, type(of))
    return rebuild.new_module, made, dict(of.__dict__), None, None, rebuild.set_module


def reduce_method(_dump: "Dump", of: MethodType) -> Any:
    """By name where the owner knows it by that, as pickle does; else function and owner."""
    function: Any = of.__func__
    if type(function) is not FunctionType:
        return NotImplemented
    return rebuild.method, (function, of.__self__)


def reduce_builtin_method(dump: "Dump", of: BuiltinMethodType) -> Any:
    """Its owner's method; a plain function in C has no owner but its module."""
    owner = of.__self__
    if owner is None or isinstance(owner, ModuleType):
        return NotImplemented
    if id(owner) in dump.catalog.slots or not isinstance(owner, type):
        return getattr, (owner, of.__name__)
    return NotImplemented


def reduce_cached(_dump: "Dump", of: Any) -> Any:
    """A function behind lru_cache: with its limits, without what it has cached."""
    limits = of.cache_parameters()
    made = (of.__wrapped__, limits["maxsize"], limits["typed"])
    fields = {name: value for name, value in of.__dict__.items() if name not in ("__wrapped__", "cache_parameters")}
    return rebuild.cached, made, fields, None, None, rebuild.set_dict


CACHED = type(functools.lru_cache(lambda: None))
