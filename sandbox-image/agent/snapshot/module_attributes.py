"""Attributes that cells set on modules, found in their text, by what they are, and by what was not there before."""

import ast
import linecache
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from agent.snapshot.catalog import comes_from_workspace, is_importable_module

_CELL = "<cell "
_MAX_SOURCE = 200_000  # characters of a cell that is searched for assignments to modules
# Modules whose attributes change by themselves, or are other parts' business.
_RESTLESS = frozenset({"__main__", "sys", "builtins", "agent", "linecache", "warnings", "random", "threading"})
_PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple, frozenset)

_seen: dict[str, dict[str, Any]] = {}  # attributes of modules when they were first looked at
_looked = {"modules": 0}


def look() -> None:
    """Remember the attributes of modules that were imported since the last look: later ones are the session's.

    Called in the zygote and after each cell; cheap where nothing was imported.
    """
    if len(sys.modules) == _looked.get("modules"):
        return
    _looked["modules"] = len(sys.modules)
    for name, module in list(sys.modules.items()):
        if name not in _seen and type(module) is ModuleType and not comes_from_workspace(module):
            _seen[name] = dict(vars(module))


def take(namespace: dict[str, Any]) -> dict[str, Any]:
    """What cells have set on modules, by key."""
    found: dict[str, Any] = {}
    for module, attribute in {**_assigned(namespace), **_session_code(namespace), **_appeared()}:
        home = sys.modules.get(module)
        if home is not None and module != "__main__" and attribute in vars(home):
            found[f"attribute {module} {attribute}"] = vars(home)[attribute]
    return found


def _assigned(namespace: dict[str, Any]) -> dict[tuple[str, str], None]:
    """By the cells' own text: `module.name = …` and `setattr(module, "name", …)`, wherever they stand in it."""
    found: dict[tuple[str, str], None] = {}
    for nodes in trees():
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
    """Public attributes that no import gave, however they came there; and plain ones that are bound to others now."""
    found: dict[tuple[str, str], None] = {}
    for name, before in _seen.items():
        home = sys.modules.get(name)
        if home is None or name.partition(".")[0] in _RESTLESS or not is_importable_module(home):
            continue
        for attribute, value in list(vars(home).items()):
            if attribute.startswith("_") or isinstance(value, ModuleType):
                continue
            known = before.get(attribute, found)
            if known is found or (known is not value and type(known) in _PLAIN and type(value) in _PLAIN):
                found[name, attribute] = None
    return found


def _session_code(namespace: dict[str, Any]) -> dict[tuple[str, str], None]:
    """Functions and classes of the session that stand in modules, however they came there."""
    found: dict[tuple[str, str], None] = {}
    for module, home in list(sys.modules.items()):
        if module == "__main__" or not isinstance(home, ModuleType) or not is_importable_module(home):
            continue
        for name, value in list(vars(home).items()):
            if (type(value) is FunctionType and value.__globals__ is namespace) or (
                isinstance(value, type) and type.__dict__["__dict__"].__get__(value).get("__module__") == "__main__"
            ):
                found[module, name] = None
    return found


def trees() -> Iterator[list[ast.AST]]:
    """The nodes of each cell that is still known."""
    for name, entry in list(linecache.cache.items()):
        text = "".join(entry[2]) if name.startswith(_CELL) and len(entry) > 2 else ""  # noqa: PLR2004
        if not text or len(text) > _MAX_SOURCE:
            continue
        try:
            yield list(ast.walk(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError):
            continue


def apply(value: Any, rest: str) -> None:
    """Set one again; `rest` is the end of its key."""
    module, attribute = rest.split(" ")
    __import__(module)
    look()
    setattr(sys.modules[module], attribute, value)
