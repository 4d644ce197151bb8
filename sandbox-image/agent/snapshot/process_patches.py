"""What cells did to modules: parts of packages that they imported, attributes that they set, however they did it."""

import ast
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from agent import pristine
from agent.snapshot.catalog import comes_from_workspace, is_importable_module, libraries

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

CELL = "<cell "
_MAX_SOURCE = 200_000  # characters of a cell that is searched
# Modules whose attributes change by themselves, or are other parts' business.
_RESTLESS = frozenset(
    {"__main__", "__mp_main__", "sys", "builtins", "agent", "linecache", "warnings", "random", "threading"}
)
# Modules that saving works with, whatever cells have made of their functions and classes.
_TOOLS = (
    "_thread",
    "contextlib",
    "ctypes",
    "gc",
    "io",
    "os",
    "pickle",
    "select",
    "signal",
    "socket",
    "threading",
    "time",
)
_CALLED = (FunctionType, BuiltinFunctionType, type)
_OF_PYTHON = ("sys", "builtins")  # which are not whole when they are imported again
_PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple, frozenset)

_seen: dict[str, dict[str, Any]] = {}  # attributes of modules when they were first looked at
_looked = {"modules": 0}
_put_back: dict[str, dict[str, Any]] = {}  # what cells had set in place of what was put back


def look() -> None:
    """Remember the attributes of modules that were imported since the last look: later ones are the session's.

    Called in the zygote, after each cell, and in a restore; cheap where nothing was imported.
    """
    if len(sys.modules) == _looked["modules"]:
        return
    _looked["modules"] = len(sys.modules)
    for name, module in list(sys.modules.items()):
        if name not in _seen and type(module) is ModuleType and not comes_from_workspace(module):
            _seen[name] = dict(vars(module))
            libraries[name] = module


def put_back() -> None:
    """In a fork that saves: what that needs is as it was before any cell. What cells have set is still saved."""
    for name, module in libraries.items():
        if name not in sys.modules or name in _OF_PYTHON:
            sys.modules[name] = module  # pickling finds things by name there
    for name in _TOOLS:
        home = vars(libraries[name]) if name in libraries else {}
        for attribute, before in _seen.get(name, {}).items():
            if isinstance(before, _CALLED) and home.get(attribute) is not before:
                if attribute in home:
                    _put_back.setdefault(name, {})[attribute] = home[attribute]
                home[attribute] = before


def _held_by(name: str, home: ModuleType) -> dict[str, Any]:
    """The attributes of a module as cells have left them."""
    return {**vars(home), **_put_back.get(name, {})}


def imports(namespace: dict[str, Any], beat: Callable[[], None]) -> list[str]:
    """The parts of packages that cells imported by `import a.b`: the name `a` alone would not bring them."""
    found: dict[str, None] = {}
    for nodes in _trees(beat):
        for node in nodes:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            found.update({name: None for name in names if "." in name and name in sys.modules})
    modules = {value.__name__ for value in namespace.values() if isinstance(value, ModuleType)}
    return [name for name in found if name.partition(".")[0] in modules or name in modules]


def _trees(beat: Callable[[], None]) -> Iterator[list[ast.AST]]:
    for name, entry in list(linecache.cache.items()):
        beat()
        text = "".join(entry[2]) if name.startswith(CELL) and len(entry) > 2 else ""  # noqa: PLR2004
        if not text or len(text) > _MAX_SOURCE:
            continue
        try:
            yield list(ast.walk(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError):
            continue


# attributes that cells assigned on modules


def attributes(namespace: dict[str, Any], beat: Callable[[], None]) -> dict[str, Any]:
    """What cells assigned, by the key of its part."""
    found: dict[str, Any] = {}
    for module, attribute in {
        **_assigned(namespace, beat),
        **_session_code(namespace),
        **_appeared(),
        **_of_workspace(),
    }:
        home = sys.modules.get(module)
        if home is not None and vars(home) is not namespace and attribute in vars(home):  # it has other names, too
            found[f"attribute {module} {attribute}"] = _held_by(module, home)[attribute]
    return found


def _assigned(namespace: dict[str, Any], beat: Callable[[], None]) -> dict[tuple[str, str], None]:
    """By the cells' own text: `module.name = …` and `setattr(module, "name", …)`, wherever they stand in it."""
    found: dict[tuple[str, str], None] = {}
    for nodes in _trees(beat):
        for node in nodes:
            for owner, attribute in _targets(node):
                module = _module_of(owner, namespace)
                if module is not None and is_importable_module(module):
                    found[module.__name__, attribute] = None
    return found


def _targets(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.value, node.attr
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
        match node.args:
            case [owner, ast.Constant(value=str(name)), *_]:
                yield owner, name


def _module_of(expression: ast.expr, namespace: dict[str, Any]) -> ModuleType | None:
    found: Any = None
    if isinstance(expression, ast.Name):
        found = namespace.get(expression.id)
    elif isinstance(expression, ast.Attribute):
        owner = _module_of(expression.value, namespace)
        found = vars(owner).get(expression.attr) if owner is not None else None
    return found if isinstance(found, ModuleType) else None


def _appeared() -> dict[tuple[str, str], None]:
    """Public attributes that no import gave, and plain ones that are bound to others now: by `vars` or the like."""
    found: dict[tuple[str, str], None] = {}
    for name, before in _seen.items():
        home = sys.modules.get(name)
        if (
            home is None
            or home is sys.modules["__main__"]
            or name.partition(".")[0] in _RESTLESS
            or not is_importable_module(home)
        ):
            continue
        for attribute, value in _held_by(name, home).items():
            if attribute.startswith("_") or (isinstance(value, ModuleType) and is_importable_module(value)):
                continue
            known = before.get(attribute, found)
            if known is found or (known is not value and type(known) in _PLAIN and type(value) in _PLAIN):
                found[name, attribute] = None
    return found


def homes_in_workspace() -> list[str]:
    """Where modules of the session's own lie, which were imported from a directory that may not be the present one."""
    found: dict[str, None] = {}
    for name, module in list(sys.modules.items()):
        if "." not in name and isinstance(module, ModuleType) and comes_from_workspace(module):
            file = os.path.abspath(vars(module)["__file__"])
            found[os.path.dirname(os.path.dirname(file) if "__path__" in vars(module) else file)] = None
    return list(found)


def files_in_workspace() -> list[tuple[str, int, int]]:
    """The files of the session's own modules as they are now, by time and size; a removed one is not among them."""
    found = []
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and comes_from_workspace(module):
            path = vars(module)["__file__"]
            try:
                file = os.stat(path)
            except OSError:
                continue
            found.append((path, file.st_mtime_ns, file.st_size))
    return found


def _of_workspace() -> dict[tuple[str, str], None]:
    """What the session's own modules keep: importing them again would begin anew."""
    found: dict[tuple[str, str], None] = {}
    for name, home in list(sys.modules.items()):
        if not isinstance(home, ModuleType) or not is_importable_module(home) or not comes_from_workspace(home):
            continue
        for attribute, value in list(vars(home).items()):
            if not attribute.startswith("__") and not isinstance(value, ModuleType | FunctionType | type):
                found[name, attribute] = None
    return found


def _session_code(namespace: dict[str, Any]) -> dict[tuple[str, str], None]:
    """Functions and classes of the session that stand in modules, however they came there."""
    found: dict[tuple[str, str], None] = {}
    for module, home in list(sys.modules.items()):
        if module == "__main__" or not isinstance(home, ModuleType) or not is_importable_module(home):
            continue
        for name, value in _held_by(module, home).items():
            if (type(value) is FunctionType and value.__globals__ is namespace) or (
                isinstance(value, type) and type.__dict__["__dict__"].__get__(value).get("__module__") == "__main__"
            ):
                found[module, name] = None
    return found
