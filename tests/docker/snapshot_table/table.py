"""The table's cases, from their text: a `===` line names one, `---` lines divide it.

`cell` is run in a session that then sleeps; `check` is run when it has woken. `refused` names what does not come back,
each with a part of the reason; `told` are other notes that a wake gives. `options` of a case are in JSON: `limits` in
bytes, and `stable: false` where the same value is not the same bytes each time that it is saved.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "cases"
TABLES = ("basic", "classes", "science", "things")


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
    slow: bool = False


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
                if key not in ("stable", "limits", "slow"):
                    raise ValueError(f"{name} has an option {key!r}")
                setattr(case, key, json.loads(value))
        else:
            raise ValueError(f"{name} has a part {kind!r}")
    return case
