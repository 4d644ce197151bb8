"""Numbers, times and tables as text that people and models read."""

from collections.abc import Sequence
from datetime import datetime

_COLUMN = 40  # characters; wider cells are not padded for
_MILLISECONDS_PER_SECOND = 1000


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text below each other, in columns."""
    lines = [tuple(columns), *rows]
    widths = [min(_COLUMN, max(len(line[at]) for line in lines)) for at in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def count(number: int, noun: str) -> str:
    """Such as `1 session`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(milliseconds: float) -> str:
    """In the unit that fits."""
    if milliseconds < _MILLISECONDS_PER_SECOND:
        return f"{milliseconds:.3g} ms"
    return f"{milliseconds / _MILLISECONDS_PER_SECOND:.3g} s"


def time(moment: datetime) -> str:
    """ISO 8601, to the second."""
    return moment.isoformat(timespec="seconds")
