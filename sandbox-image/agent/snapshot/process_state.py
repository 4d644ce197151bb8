"""The state of the process around a namespace: what cells changed, as parts that are saved and restored one by one.

Most parts are differences from what the worker was born with (`mark`), so that they mean the same in another image.
"""

import copyreg
import linecache
import os
import re
import sys
import warnings
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from agent import pristine
from agent.snapshot import process_libraries, process_patches
from agent.snapshot.catalog import is_importable_module
from agent.snapshot.loading import words_for
from agent.snapshot.process_patches import CELL

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_WORKSPACE = "/workspace"
_SOURCES_TOGETHER = 32  # cells whose sources are one part: full ones never change

_born: dict[str, Any] = {}
_lent: list[str] = []  # entries of sys.path for as long as a restore imports modules
future = {"flags": 0}  # of `from __future__ import …` in cells before: see execution.py


def mark() -> None:
    """Remember what the worker was born with. Called once, before the first cell and before a restore."""
    _born.update(
        environ=dict(os.environ),
        cwd=os.getcwd(),
        path=list(sys.path),
        recursion=sys.getrecursionlimit(),
        filters=list(warnings.filters),
        digits=sys.get_int_max_str_digits(),
    )


def loaded() -> None:
    """Everything has been imported again: what was in the way of nobody else goes."""
    for home in _lent:
        if home in sys.path:
            sys.path.remove(home)
    _lent.clear()


def before_fork() -> dict[str, Any]:
    """What a fork loses: `random` is seeded anew in the child. Called in the worker; cheap."""
    random = sys.modules.get("random")
    return {} if random is None else {"random": random.getstate()}


def running(threads: int, processes: int) -> list[tuple[str, str]]:
    """What ends with the sandbox, whether a variable holds it or not: a wake tells of it."""
    counts = ("thread", "threads", threads), ("process", "processes", processes)
    return [
        (many, f"{count:,} {one if count == 1 else many} still running when it was saved, and not started again")
        for one, many, count in counts
        if count > 0
    ]


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
    homes = process_patches.homes_in_workspace()
    if homes:
        parts["module paths"] = homes
    return parts


@dataclass
class Taken:
    """What a save says of the process: see `take`, `early` and what `process_patches` finds."""

    state: dict[str, Any] = field(default_factory=dict)
    early: dict[str, Any] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    files: list[tuple[str, int, int]] = field(default_factory=list)  # see process_patches.files_in_workspace


def take(
    namespace: dict[str, Any],
    before: dict[str, Any],
    announce: Callable[[str], None],
    beat: Callable[[], None],
    refused: Container[str],
) -> Taken:
    """The parts that differ, by key. Run in a child that saves: what a session has patched may hang or crash there.

    Each taker is announced by its label; one that is refused leaves a part of its own name, which is refused as well.
    What can't be had is left out, as if it had not changed.
    """
    taken = Taken(dict(before))
    takers: dict[str, Callable[[], dict[str, Any]]] = {
        "interpreter": _of_interpreter,
        **process_libraries.takers(),
        "sources": _sources,
        "attributes": lambda: process_patches.attributes(namespace, beat),
        "reducers": lambda: _copyreg(namespace),
    }
    others: dict[str, Callable[[], None]] = {
        "environment": lambda: taken.early.update(early()),
        "files": lambda: taken.files.extend(process_patches.files_in_workspace()),
        "imports": lambda: taken.imports.extend(process_patches.imports(namespace, beat)),
    }
    for name, taker in (*takers.items(), *others.items()):
        label = f"state {name}"
        if label in refused:
            taken.state[name] = None
            continue
        announce(label)
        try:
            taken.state.update(taker() or {})
        except BaseException:  # noqa: S112 - see above
            continue
    return taken


def _copyreg(namespace: dict[str, Any]) -> dict[str, Any]:
    copied = [
        (kind, how) for kind, how in copyreg.dispatch_table.items() if getattr(how, "__globals__", None) is namespace
    ]
    return {"copyreg": copied} if copied else {}


def _of_interpreter() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if future["flags"]:
        parts["future flags"] = future["flags"]
    if sys.getrecursionlimit() != _born["recursion"]:
        parts["recursion limit"] = sys.getrecursionlimit()
    if sys.get_int_max_str_digits() != _born["digits"]:
        parts["digits of integers"] = sys.get_int_max_str_digits()
    if warnings.filters != _born["filters"]:
        parts["warnings"] = [_plain_filter(*row) for row in warnings.filters]
    return parts


def _plain_filter(*row: Any) -> tuple[Any, ...]:
    """A warnings filter in texts, which surely load; as it is where it holds something unusual.

    numpy has filters of its own: patterns and classes would have to be rehearsed, with an import of numpy there.
    """
    action, message, category, module, line = row
    try:
        where, name = category.__module__, category.__name__
        if vars(sys.modules[where]).get(name) is category and is_importable_module(sys.modules[where]):
            return action, _in_text(message), f"{where}:{name}", _in_text(module), line
    except (AttributeError, KeyError, TypeError):
        pass
    return row


def _in_text(pattern: Any) -> Any:
    return (pattern.pattern, pattern.flags) if type(pattern) is re.Pattern else pattern


def _sources() -> dict[str, Any]:
    # So that tracebacks and inspect.getsource work for functions of earlier cells.
    parts: dict[str, dict[str, str]] = {}
    for name, entry in list(linecache.cache.items()):
        if name.startswith(CELL) and len(entry) > 2:  # noqa: PLR2004 - a lazy entry has one field
            number = name[len(CELL) : -1]
            if number.isdigit():
                key = f"sources {int(number) // _SOURCES_TOGETHER}"
                parts.setdefault(key, {})[name] = "".join(entry[2])
    return dict(parts)


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


def _lend_paths(value: Any, _rest: str) -> None:
    _lent[:] = [home for home in value if home not in sys.path]
    sys.path.extend(_lent)


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


def _set_attribute(value: Any, rest: str) -> None:
    module, attribute = rest.split(" ")
    __import__(module)
    process_patches.look()
    setattr(sys.modules[module], attribute, value)


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
    "module paths": _lend_paths,
    "future flags": lambda value, _rest: future.update(flags=int(value)),
    "recursion limit": lambda value, _rest: sys.setrecursionlimit(value),
    "digits of integers": lambda value, _rest: sys.set_int_max_str_digits(value),
    "warnings": _set_warnings,
    "sources": _set_sources,
    "attribute": _set_attribute,
    "random": _set_random,
    "copyreg": _set_copyreg,
}
