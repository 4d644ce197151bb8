"""The table that ends the attack suite: what a bystander noticed of each class of hostile cells."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

FIGURES = "latencies"  # the property of a test's report
_COLUMNS = ("beside a cell", "after it", "orchestrator's own")


def lines_of(figures: Sequence[Sequence[Any]]) -> Iterator[str]:
    """A row for each class: how many cells, and of each column median and maximum in milliseconds."""
    if not figures:
        return
    by_kind: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for kind, *columns in figures:
        by_kind[kind].append(columns)
    yield ""
    yield "hostile cells, and how long others waited for an answer meanwhile (median and longest, in ms)"
    yield f"{'':28}{'cells':>6}" + "".join(f"{column:>24}" for column in _COLUMNS)
    for kind, rows in sorted(by_kind.items()):
        yield _row(kind, rows)
    yield _row("all", [row for rows in by_kind.values() for row in rows])


def _row(kind: str, rows: Sequence[Sequence[Any]]) -> str:
    cells = "".join(f"{_told(second for row in rows for second in row[column]):>24}" for column in range(len(_COLUMNS)))
    return f"{kind:28}{len(rows):>6}{cells}"


def _told(seconds: Iterable[float]) -> str:
    listed = [1000 * second for second in seconds]
    return f"{median(listed):,.1f}  {max(listed):>9,.1f}" if listed else "-"
