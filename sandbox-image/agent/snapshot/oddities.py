"""How values are taken apart that pickle refuses, or brings back as dead copies of themselves."""

import ctypes
import functools
import gc
import sys
import typing
import weakref
from collections import OrderedDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent import pristine
from agent.snapshot import rebuild
from agent.snapshot.catalog import is_made_by_statement, module_of, mro_of, name_of

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]


class RefusedError(Exception):
    """This value is not saved, for the reason in the text."""


# threading.local and the like are refused by pickle itself, in words that are good enough.
_REFUSED = {
    ("threading", "Thread"): "a thread cannot be saved",
    ("subprocess", "Popen"): "a subprocess cannot be saved",
    ("multiprocessing.process", "BaseProcess"): "a subprocess cannot be saved",
    ("concurrent.futures._base", "Executor"): "a pool cannot be saved",
    ("concurrent.futures._base", "Future"): "a future cannot be saved",
    ("tempfile", "TemporaryDirectory"): "a temporary directory cannot be saved: what lies in /tmp is not kept",
    ("tempfile", "_TemporaryFileWrapper"): "a temporary file cannot be saved: what lies in /tmp is not kept",
    ("weakref", "finalize"): "a finalizer cannot be saved",
    ("numpy", "memmap"): "an array on a mapped file cannot be saved",
    ("multiprocessing.shared_memory", "SharedMemory"): "shared memory cannot be saved",
    ("asyncio.base_events", "BaseEventLoop"): "an event loop cannot be saved",
}
C_DATA: type = mro_of(ctypes.c_int)[-2]
C_TYPES: tuple[type, ...] = tuple(map(type, (ctypes.Structure, ctypes.Union, ctypes.c_int, ctypes.Array)))
# Who may own a lock that is saved. Elsewhere a lock is how a library says that an object belongs to this process.
_LOCK_OWNERS = frozenset({"queue", "threading", "logging", "functools", "__main__"})


def refusal_of(kind: type) -> str | None:
    """Why no instance of this type is saved."""
    for base in mro_of(kind):
        found = _REFUSED.get((str(module_of(base)), name_of(base)))
        if found is not None:
            return found
    return None


def reduce_property(_dump: "Dump", of: Any) -> Any:
    """Its functions; the text only where it is not the getter's."""
    inherited = getattr(of.fget, "__doc__", None)
    arguments = (of.fget, of.fset, of.fdel) + (() if of.__doc__ == inherited else (of.__doc__,))
    if type(of) is property:
        return property, arguments
    fields = dict(getattr(of, "__dict__", {}))
    return rebuild.property_, (type(of), *arguments), fields, None, None, rebuild.set_dict


def reduce_wrapper(_dump: "Dump", of: Any) -> Any:
    """A static or class method, with attributes that it does not have of its function."""
    made = type(of), (of.__func__,)
    usual = vars(type(of)(of.__func__))
    fields = {name: value for name, value in vars(of).items() if usual.get(name, usual) is not value}
    return (*made, fields, None, None, rebuild.set_dict) if fields else made


def reduce_proxy(_dump: "Dump", of: MappingProxyType[Any, Any]) -> Any:
    """The mapping behind it, or the class whose dict it shows."""
    behind = gc.get_referents(of)[0]
    owner = behind.get("__dict__") if type(behind) is dict else None
    kind = getattr(owner, "__objclass__", None)
    if isinstance(kind, type) and gc.get_referents(vars(kind))[0] is behind:
        return rebuild.class_dict, (kind,)
    return MappingProxyType, (behind,)


def reduce_dict_view(_dump: "Dump", of: Any) -> Any:
    """The dict behind it."""
    behind = gc.get_referents(of)[0]
    kind = type(of).__name__.rpartition("_")[2]
    return rebuild.dict_view, (behind, kind)


def reduce_memoryview(_dump: "Dump", of: Any) -> Any:
    """The buffer behind it, and where the view lies in it."""
    if _shows_all(of):
        return memoryview, (of.obj,)
    if not of.c_contiguous:
        raise RefusedError("a memoryview with gaps cannot be saved")
    if not _keeps_its_memory(of.obj):
        raise RefusedError(f"a view of the memory of {type(of.obj).__name__!r} cannot be saved")
    offset = _address(of) - _address(memoryview(of.obj)) if of.nbytes else 0
    return rebuild.memory_view, (of.obj, of.format, of.shape, offset, of.nbytes, of.readonly)


def _keeps_its_memory(of: Any) -> bool:
    """Whether what comes back of it shows its memory as it did."""
    return type(of) in (bytes, bytearray) or any(name_of(base) in ("array", "ndarray") for base in mro_of(type(of)))


def _shows_all(of: Any) -> bool:
    """Whether it is what its buffer shows by itself, be that in a format or with strides that no other view has."""
    if not _keeps_its_memory(of.obj):
        return False
    whole = memoryview(of.obj)
    same = [(one.format, one.shape, one.strides, one.readonly) for one in (of, whole)]
    return same[0] == same[1] and (not of.nbytes or _address(of) == _address(whole))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("rest", ctypes.c_byte * 256),
    )


def _address(view: memoryview) -> int:
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0x18)  # PyBUF_STRIDES
    address = buffer.buf or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return int(address)


def reduce_reference(_dump: "Dump", of: Any) -> Any:
    """What it refers to, if that lives; a callback can not be told apart from a library's own bookkeeping."""
    target = of()
    if target is None:
        return rebuild.dead_reference, ()
    if of.__callback__ is not None:
        raise RefusedError("a weak reference with a callback cannot be saved")
    return weakref.ref, (target,)


def reduce_weak_mapping(_dump: "Dump", of: Any) -> Any:
    """Its living entries."""
    return type(of), (dict(of.items()),)


def reduce_lock(dump: "Dump", of: Any) -> Any:
    """A free lock that the session or the standard library's own plain objects have; a held one can't come back."""
    kind = "RLock" if "RLock" in type(of).__name__ else "Lock"
    held = of._is_owned() if kind == "RLock" else of.locked()  # noqa: SLF001 - there is no other way before 3.14
    if held:
        raise RefusedError("a held lock cannot be saved")
    if not _may_own_locks(dump, of):
        raise RefusedError(f"cannot pickle {type(of).__name__!r} object")
    return rebuild.lock, (kind,)


def _may_own_locks(dump: "Dump", of: Any) -> bool:
    for holder in gc.get_referrers(of):
        if holder is dump.catalog.namespace or type(holder) is not dict:
            continue
        for owner in gc.get_referrers(holder):
            if getattr(owner, "__dict__", None) is not holder:
                continue
            kind = type(owner)
            if str(module_of(kind)) not in _LOCK_OWNERS and not (
                is_made_by_statement(kind) and not dump.catalog.is_importable(kind)
            ):
                return False
    return True


def reduce_exception(dump: "Dump", of: BaseException) -> Any:
    """With cause and context, which pickle drops; without its traceback, whose frames nothing can save."""
    kind = type(of)
    builtin = next(base for base in mro_of(kind) if not is_made_by_statement(base))
    if not _is_usual_exception(kind, builtin):
        return NotImplemented
    made = builtin.__reduce__(of)
    arguments = made[1]
    fields = dict(of.__dict__) if getattr(of, "__dict__", None) else None
    if of.__traceback__ is not None:
        dump.remark("the traceback of an exception is not saved")
    state = (of.__cause__, of.__context__, of.__suppress_context__, fields, of.args)
    return rebuild.exception, (kind, builtin, arguments), state, None, None, rebuild.set_exception


def _is_usual_exception(kind: type, builtin: type) -> bool:
    for base in mro_of(kind):
        if base is builtin:
            return issubclass(builtin, BaseException) and builtin.__module__ == "builtins"
        if {"__reduce__", "__reduce_ex__", "__new__", "__setstate__"} & vars(base).keys():
            return False
    return False


def reduce_generic_type(_dump: "Dump", of: Any) -> Any:
    """TypeVar and its like: pickle writes the name of a global, which is not bound yet when it is loaded."""
    module = getattr(of, "__module__", None)
    home = sys.modules.get(module) if isinstance(module, str) and module != "__main__" else None
    if home is not None and getattr(home, of.__name__, None) is of:
        return NotImplemented
    kind = type(of).__name__
    fields: dict[str, Any] = {}
    if kind == "NewType":
        fields["tp"] = of.__supertype__
    elif kind in ("TypeVar", "ParamSpec"):
        fields = {"bound": of.__bound__, "covariant": of.__covariant__, "contravariant": of.__contravariant__}
        if getattr(of, "__constraints__", ()):
            fields["constraints"] = of.__constraints__
    return rebuild.generic_type, (kind, of.__name__, fields), module, None, None, rebuild.set_module_name


def reduce_c_data(_dump: "Dump", of: Any) -> Any:
    """As pickle does, which copies: so only what has memory of its own."""
    if not of._b_needsfree_:
        raise RefusedError("a ctypes object on the memory of another object cannot be saved")
    return NotImplemented


def reduce_stand_in(_dump: "Dump", of: Any) -> Any:
    """Refused: asked how it is pickled, it answers for the object that it stands for, and would come back as a copy."""
    raise RefusedError(f"a {type(of).__name__!r} cannot be saved: it stands for another object")


EXACT: dict[type, Any] = {
    property: reduce_property,
    functools.cached_property: lambda _dump, of: (functools.cached_property, (of.func,), _cached_state(of)),
    staticmethod: reduce_wrapper,
    classmethod: reduce_wrapper,
    MappingProxyType: reduce_proxy,
    type({}.keys()): reduce_dict_view,
    type({}.values()): reduce_dict_view,
    type({}.items()): reduce_dict_view,
    type(OrderedDict().keys()): reduce_dict_view,
    type(OrderedDict().values()): reduce_dict_view,
    type(OrderedDict().items()): reduce_dict_view,
    memoryview: reduce_memoryview,
    weakref.ref: reduce_reference,
    weakref.WeakMethod: reduce_stand_in,
    weakref.ProxyType: reduce_stand_in,
    weakref.CallableProxyType: reduce_stand_in,
    super: reduce_stand_in,
    weakref.WeakKeyDictionary: reduce_weak_mapping,
    weakref.WeakSet: lambda _dump, of: (weakref.WeakSet, (list(of),)),
    weakref.WeakValueDictionary: reduce_weak_mapping,
    typing.TypeVar: reduce_generic_type,
    typing.ParamSpec: reduce_generic_type,
    typing.TypeVarTuple: reduce_generic_type,
    typing.NewType: reduce_generic_type,
}


def _cached_state(of: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if name not in ("func", "lock")}


def lock_types() -> tuple[type, ...]:
    """Of locks, by the classes that make them."""
    import _thread

    return type(_thread.allocate_lock()), _thread.RLock
