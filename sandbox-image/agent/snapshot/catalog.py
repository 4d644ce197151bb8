"""What one snapshot knows of a session beyond its values: its code, its modules, and objects that are everybody's."""

import builtins
import gc
import importlib
import os
import sys
from collections.abc import Callable
from types import (
    FunctionType,
    GetSetDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

from agent import pristine

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

Handler = Callable[["Dump", Any], Any]
Slot = str

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, by a class statement or by C
_MADE_IN_C = (MethodDescriptorType, WrapperDescriptorType, GetSetDescriptorType)
_EVERY_CLASS_HAS = frozenset({"__dict__", "__weakref__"})

# type's own slots: a metaclass can lie about all of these.
name_of = type.__dict__["__name__"].__get__
qualified_name_of = type.__dict__["__qualname__"].__get__
mro_of = type.__dict__["__mro__"].__get__
attributes_of = type.__dict__["__dict__"].__get__
module_of = type.__dict__["__module__"].__get__
bases_of = type.__dict__["__bases__"].__get__

# Objects that modules made for everybody, and whose identity is their meaning: (module, attribute). What a session
# changes in them is the process state's business.
_LIVE = (
    *(("sys", name) for name in ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__", "flags")),
    ("os", "environ"),
    ("os", "environb"),
    ("random", "_inst"),
    ("numpy.random.mtrand", "_rand"),
    ("matplotlib", "rcParams"),
    ("matplotlib", "rcParamsDefault"),
    ("decimal", "DefaultContext"),
    ("decimal", "BasicContext"),
    ("decimal", "ExtendedContext"),
    ("dataclasses", "MISSING"),
    ("dataclasses", "KW_ONLY"),
    ("dataclasses", "_FIELD"),
    ("dataclasses", "_FIELD_CLASSVAR"),
    ("dataclasses", "_FIELD_INITVAR"),
    ("dataclasses", "_HAS_DEFAULT_FACTORY"),
    ("functools", "_NOT_FOUND"),
    ("functools", "_initial_missing"),
    ("weakref", "_remove_dead_weakref"),
    ("numpy", "_NoValue"),
    ("numpy.ma.core", "nomask"),
    ("pandas._libs.lib", "no_default"),
)


libraries: dict[str, ModuleType] = {}  # modules by the names under which they were imported first, but the session's


class Catalog:
    """Made at the beginning of a snapshot, in the process that makes it."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.slots: dict[int, Slot] = {}  # by the id of a function or class
        self.code: dict[Slot, Any] = {}  # keeps them alive, so that no id is reused
        self.handlers: dict[type, Handler] = {}
        self.live = _live_objects()
        self.live_types = {type(value) for value, _ in self.live.values()}
        self.crops: dict[int, tuple[int, int, int]] = {}  # of arrays that only views hold: see arrays.crops_of
        self._importable: dict[int, tuple[Any, bool]] = {}
        self._homes: dict[int, ModuleType] | None = None

    def slot_of(self, of: Any) -> Slot:
        """The stable name by which groups refer to a function or class of the session."""
        found = self.slots.get(id(of))
        if found is None:
            name = qualified_name_of(of) if isinstance(of, type) else str(of.__qualname__)
            found, count = name, 1
            while found in self.code:
                count += 1
                found = f"{name}#{count}"
            self.slots[id(of)] = found
            self.code[found] = of
        return found

    def is_importable(self, of: Any) -> bool:
        """Whether a function or class is found again in a fresh process under its own name."""
        known = self._importable.get(id(of))
        if known is None:
            known = self._importable[id(of)] = (of, _is_found_again(of))
        return known[1]

    def home_of(self, globals_: dict[str, Any]) -> Any:
        """What stands for a function's globals: the namespace itself, a module, or a dict that is just a value."""
        if globals_ is self.namespace:
            return globals_
        if self._homes is None:
            modules = [one for one in list(sys.modules.values()) if isinstance(one, ModuleType)]
            self._homes = {id(one.__dict__): one for one in modules}
        home = self._homes.get(id(globals_))
        if home is None and "__spec__" in globals_ and "__loader__" in globals_:
            holders = [one for one in gc.get_referrers(globals_) if isinstance(one, ModuleType)]
            home = next((one for one in holders if one.__dict__ is globals_), None)
            if home is not None:
                self._homes[id(globals_)] = home
        return globals_ if home is None else home


def is_session_code(of: Any, catalog: Catalog) -> bool:
    """Whether this is a function or class that has to be saved with the session."""
    if type(of) is FunctionType:
        return not catalog.is_importable(of)
    return issubclass(type(of), type) and is_made_by_statement(of) and not catalog.is_importable(of)


def is_made_by_statement(of: type) -> bool:
    """Whether a class was made by Python code, and not by an extension."""
    if not type.__dict__["__flags__"].__get__(of) & _HEAP_TYPE:
        return False
    for name, value in attributes_of(of).items():
        if type(value) in _MADE_IN_C and name not in _EVERY_CLASS_HAS and value.__objclass__ is of:
            return False
    return True


def is_importable_module(of: ModuleType) -> bool:
    """Whether a fresh process gets this module by importing its name."""
    name = of.__dict__.get("__name__")
    # A library that a cell has taken out of sys.modules is no value: what it holds leads to the whole interpreter.
    if not isinstance(name, str) or (sys.modules.get(name) is not of and libraries.get(name) is not of):
        return False
    return of.__dict__.get("__spec__") is not None or name in ("__main__", "builtins", "sys")


def is_named_in_workspace(of: Any) -> bool:
    """Whether a function or class that can be imported is the session's own: its file may be another by the wake."""
    home = sys.modules.get(str(module_of(of) if isinstance(of, type) else of.__module__))
    return isinstance(home, ModuleType) and comes_from_workspace(home)


def comes_from_workspace(of: ModuleType) -> bool:
    """Whether its file is the session's own."""
    path = of.__dict__.get("__file__")
    return isinstance(path, str) and os.path.abspath(path).startswith("/workspace/")


def _is_found_again(of: Any) -> bool:
    if isinstance(of, type):
        module_name = module_of(of)
        path = qualified_name_of(of)
        if not type.__dict__["__flags__"].__get__(of) & _HEAP_TYPE:
            return True  # static: pickle knows, or says why not
    else:
        module_name, path = of.__module__, of.__qualname__
    if not isinstance(module_name, str) or module_name == "__main__" or "<" in path:
        return False
    home = sys.modules.get(module_name) or libraries.get(module_name) or _unloaded_part(module_name)
    if not isinstance(home, ModuleType) or not is_importable_module(home):
        return False
    found: Any = home
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except Exception:
            return False
    return found is of


def _unloaded_part(name: str) -> ModuleType | None:
    """A part of a loaded package that names the home of what was made elsewhere, as `numpy.rec` does for recarray."""
    package = sys.modules.get(name.partition(".")[0])
    if not isinstance(package, ModuleType) or not is_importable_module(package) or comes_from_workspace(package):
        return None
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def _live_objects() -> dict[int, tuple[Any, tuple[str, str]]]:
    found: dict[int, tuple[Any, tuple[str, str]]] = {}
    for module_name, attribute in _LIVE:
        home = sys.modules.get(module_name)
        value = vars(home).get(attribute) if isinstance(home, ModuleType) else None
        if value is not None and type(value) is not bool:
            found.setdefault(id(value), (value, (module_name, attribute)))
    for name in ("exit", "quit", "copyright", "credits", "license"):
        value = vars(builtins).get(name)
        if value is not None:
            found.setdefault(id(value), (value, ("builtins", name)))
    return found
