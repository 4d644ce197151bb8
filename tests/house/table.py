"""Reads the table in docs/house.md, in which every file of the program has its row, and compares the two."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests.house.sources import Source

NO_LIBRARY = "-"
MAX_PURPOSE = 150  # characters: one line says it

_FOLDER = re.compile(r"#+ `(?P<folder>[^`]+)/`\s*")
_ROW = re.compile(r"\| `(?P<file>[^`]+)` \| (?P<library>[^|]+) \| (?P<purpose>[^|]*) ?\|\s*")


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of a file."""

    path: str
    third_party: str
    purpose: str


def rows_of(document: str) -> Iterator[Row]:
    """The rows, each below the heading that names its folder."""
    folder = ""
    for line in document.splitlines():
        if heading := _FOLDER.fullmatch(line):
            folder = heading["folder"]
        elif row := _ROW.fullmatch(line):
            yield Row(f"{folder}/{row['file']}", row["library"].strip(), row["purpose"].strip())


def files_with_rows(files: Iterable[str], sources: Mapping[str, Source]) -> list[str]:
    """All files but packages' `__init__.py` that hold no code: the heading of their folder speaks for them."""
    bare = {source.path for source in sources.values() if source.path.endswith("/__init__.py") and _is_bare(source)}
    return [path for path in files if path not in bare]


def _is_bare(source: Source) -> bool:
    return all(isinstance(statement, ast.Expr) for statement in source.tree.body)


def faults_of_table(document: str, files: list[str], sources: Mapping[str, Source]) -> list[str]:
    """What is missing, stale, or not as the files are."""
    rows = list(rows_of(document))
    listed = [row.path for row in rows]
    libraries = {source.path: ", ".join(source.libraries) or NO_LIBRARY for source in sources.values()}
    faults = [f"{path} has no row" for path in files if path not in listed]
    faults += [f"{path} has a row, but is not there" for path in dict.fromkeys(listed) if path not in files]
    faults += [f"{path} has two rows" for path in dict.fromkeys(listed) if listed.count(path) > 1]
    for row in rows:
        actual = libraries.get(row.path, NO_LIBRARY)
        if row.path in files and row.third_party != actual:
            faults.append(f"{row.path} uses {actual}, and its row says {row.third_party}")
        if not row.purpose or len(row.purpose) > MAX_PURPOSE:
            faults.append(f"{row.path}: its row does not say in one line what it is for")
    return faults
