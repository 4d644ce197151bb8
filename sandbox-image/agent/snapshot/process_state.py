"""The state of the process around a namespace: what cells changed, as parts that are saved and restored one by one.

Most parts are differences from what the worker was born with (`mark`), so that they mean the same in another image.
"""

import ast
import copyreg
import linecache
import os
import re
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from agent.snapshot import module_attributes, process_libraries
from agent.snapshot.catalog import is_importable_module
from agent.snapshot.loading import words_for

_WORKSPACE = "/workspace"
_CELL = "<cell "
_SOURCES_TOGETHER = 32  # cells whose sources are one part: full ones never change

_born: dict[str, Any] = {}


def mark() -> None:
    """Remember what the worker was born with. Called once, before the first cell and before a restore."""
    _born.update(
        environ=dict(os.environ),
        cwd=os.getcwd(),
        path=list(sys.path),
        recursion=sys.getrecursionlimit(),
        filters=list(warnings.filters),
    )


def before_fork() -> dict[str, Any]:
    """What a fork loses: `random` is seeded anew in the child. Called in the worker; cheap."""
    random = sys.modules.get("random")
    return {} if random is None else {"random": random.getstate()}


def early() -> dict[str, Any]:
    """What imports depend on, in JSON: it is set before anything is loaded."""
    parts: dict[str, Any] = {}
    environ = dict(os.environ)
    changed = {name: value for name, value in environ.items() if _born["environ"].get(name) != value}
    gone = [name for name in _born["environ"] if name not in environ]
    if changed or gone:
        parts["environ"] = [changed, gone]
    cwd = os.getcwd()
    if cwd != _born["cwd"] and (cwd + "/").startswith(_WORKSPACE + "/"):
        parts["cwd"] = cwd
    if sys.path != _born["path"]:
        # Entries of its birth by their position: they may be called otherwise in another image.
        born = {entry: index for index, entry in enumerate(_born["path"])}
        parts["sys.path"] = [born.get(entry, entry) for entry in sys.path if isinstance(entry, str)]
    return parts


def take(namespace: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The parts that differ, by key; run in the child. What can't be had is left out, as if it had not changed."""
    parts = dict(before)
    for taker in (_of_interpreter, process_libraries.take, _sources):
        try:
            parts.update(taker())
        except Exception:  # noqa: S112 - see above
            continue
    parts.update(module_attributes.take(namespace))
    copied = {
        kind: how for kind, how in copyreg.dispatch_table.items() if getattr(how, "__globals__", None) is namespace
    }
    if copied:
        parts["copyreg"] = list(copied.items())
    return parts


def _of_interpreter() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if sys.getrecursionlimit() != _born["recursion"]:
        parts["recursion limit"] = sys.getrecursionlimit()
    if warnings.filters != _born["filters"]:
        parts["warnings"] = [_plain_filter(*row) for row in warnings.filters]
    return parts


def _plain_filter(*row: Any) -> tuple[Any, ...]:
    """A warnings filter in texts, which surely load; as it is where it holds something unusual.

    numpy has filters of its own: patterns and classes would have to be rehearsed, with an import of numpy there.
    """
    action, message, category, module, line = row
    try:
        home = sys.modules[category.__module__]
        if vars(home).get(category.__name__) is category and is_importable_module(home):
            return action, _in_text(message), f"{category.__module__}:{category.__name__}", _in_text(module), line
    except (AttributeError, KeyError, TypeError):
        pass
    return row


def _in_text(pattern: Any) -> Any:
    return (pattern.pattern, pattern.flags) if type(pattern) is re.Pattern else pattern


def _sources() -> dict[str, Any]:
    # So that tracebacks and inspect.getsource work for functions of earlier cells.
    parts: dict[str, dict[str, str]] = {}
    for name, entry in list(linecache.cache.items()):
        if name.startswith(_CELL) and len(entry) > 2:  # noqa: PLR2004 - a lazy entry has one field
            number = name[len(_CELL) : -1]
            if number.isdigit():
                key = f"sources {int(number) // _SOURCES_TOGETHER}"
                parts.setdefault(key, {})[name] = "".join(entry[2])
    return dict(parts)


def imports(namespace: dict[str, Any]) -> list[str]:
    """The parts of packages that cells imported by `import a.b`: the name `a` alone would not bring them."""
    found: dict[str, None] = {}
    for nodes in module_attributes.trees():
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


# bringing it back


def apply(parts: dict[str, Any]) -> list[tuple[str, str]]:
    """Set every part; (key, why) of those that could not be."""
    failed = []
    for key, value in parts.items():
        word, _, rest = key.partition(" ")
        act = _APPLY.get(key) or _APPLY.get(word) or process_libraries.APPLY.get(key)
        try:
            if act is None:
                failed.append((key, "this agent does not know it"))
            else:
                act(value, rest)
        except BaseException as error:
            failed.append((key, words_for(error)))
    return failed


def _set_environ(value: Any, _rest: str) -> None:
    changed, gone = value
    os.environ.update(changed)
    for name in gone:
        os.environ.pop(name, None)


def _set_path(value: Any, _rest: str) -> None:
    born = _born["path"]
    sys.path[:] = [born[entry] if isinstance(entry, int) else entry for entry in value]


def _set_warnings(value: Any, _rest: str) -> None:
    warnings.filters[:] = [_filter_of(*row) for row in value]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 - what warnings' own functions do


def _filter_of(*row: Any) -> tuple[Any, ...]:
    action, message, category, module, line = row
    if isinstance(category, str):
        home, _, name = category.partition(":")
        __import__(home)
        category = getattr(sys.modules[home], name)
    return action, _compiled(message), category, _compiled(module), line


def _compiled(pattern: Any) -> Any:
    return re.compile(*pattern) if isinstance(pattern, tuple) else pattern


def _set_sources(value: Any, _rest: str) -> None:
    for name, text in value.items():
        # Without a modification time an entry is never checked against a file.
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)


def _set_random(value: Any, _rest: str) -> None:
    import random

    random.setstate(value)


def _set_copyreg(value: Any, _rest: str) -> None:
    for kind, how in value:
        copyreg.pickle(kind, how)


_APPLY: dict[str, Callable[[Any, str], None]] = {
    "environ": _set_environ,
    "cwd": lambda value, _rest: os.chdir(value),
    "sys.path": _set_path,
    "recursion limit": lambda value, _rest: sys.setrecursionlimit(value),
    "warnings": _set_warnings,
    "sources": _set_sources,
    "attribute": module_attributes.apply,
    "random": _set_random,
    "copyreg": _set_copyreg,
}
