"""The table's cases, from their text: a `===` line names one, `---` lines divide it.

`cell` is run in a session that then sleeps; `check` is run when it has woken. `refused` names what does not come back,
each with a part of the reason; `told` are other notes that a wake gives. `options` of a case are in JSON: `limits` in
bytes, `stable: false` where the same value is not the same bytes each time that it is saved, `alone: true` where the
case means the whole process or namespace.
"""

import ast
import builtins
import json
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "cases"
TABLES = ("basic", "classes", "science", "things")
_USUAL = {"numpy": "np", "pandas": "pd"}
_BUILTINS = frozenset(dir(builtins))  # that a case which binds one is alone, it says itself
_MOST_TOGETHER = 8
_MOST_REFUSED = 18  # of so many, a wake names each


@dataclass
class Case:
    """One kind of value."""

    table: str
    name: str
    cells: list[str] = field(default_factory=list)
    check: str = "pass"
    refused: dict[str, str] = field(default_factory=dict)  # a part of the reason, by name
    told: list[str] = field(default_factory=list)  # parts of notes
    stable: bool = True
    limits: dict[str, int] = field(default_factory=dict)
    alone: bool = False

    @property
    def names(self) -> set[str]:
        """The globals that it binds or reads, but for modules under their usual names."""
        found: set[str] = set()
        for text in (*self.cells, self.check):
            found |= set(_globals(symtable.symtable(text, self.name, "exec")))
            found -= set(_modules(text))
        return found


def read_cases() -> list[Case]:
    """All of them."""
    texts = ((table, (FOLDER / f"{table}.txt").read_text(encoding="utf-8")) for table in TABLES)
    return [_read(table, block) for table, text in texts for block in text.split("\n=== ")[1:]]


def _read(table: str, block: str) -> Case:
    name, *parts = block.split("\n--- ")
    case = Case(table, name.strip())
    for part in parts:
        kind, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if line]
        pairs = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if kind == "cell":
            case.cells.append(body)
        elif kind == "check":
            case.check = body
        elif kind == "refused":
            case.refused = pairs
        elif kind == "told":
            case.told = lines
        elif kind == "options":
            for key, value in pairs.items():
                if key not in ("stable", "limits", "alone"):
                    raise ValueError(f"{name} has an option {key!r}")
                setattr(case, key, json.loads(value))
        else:
            raise ValueError(f"{name} has a part {kind!r}")
    return case


def _globals(scope: symtable.SymbolTable) -> Iterator[str]:
    for symbol in scope.get_symbols():
        if scope.get_type() == "module" or symbol.is_global():
            yield symbol.get_name()
    for inner in scope.get_children():
        yield from _globals(inner)


def _modules(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            whole = [(alias.name, alias.asname or alias.name) for alias in node.names]
            yield from (bound for name, bound in whole if bound == _USUAL.get(name, name))


def packed(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases that don't meet, side by side in one session."""
    packs: list[tuple[set[str], list[Case]]] = []
    for case in cases:
        names = case.names - _BUILTINS
        for taken, pack in () if case.alone else packs:
            refused = sum(len(one.refused) for one in (*pack, case))
            if taken.isdisjoint(names) and len(pack) < _MOST_TOGETHER and refused < _MOST_REFUSED and not pack[0].alone:
                taken.update(names)
                pack.append(case)
                break
        else:
            packs.append((names, [case]))
    return [pack for _, pack in packs]
