"""What commands print: tables that fit the terminal and stay plain in a pipe, JSON lines, questions."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.domain.errors import OrchestratorError
from orchestrator.faces.cli.shown import Shown, plain

Line = Mapping[str, Any]
_FIRST_ROWS: Final = 50  # that decide how wide columns are in a pipe, and are shown together
_ANSWER_BYTES: Final = 256

DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIRECTORY", help="Not the usual data directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


class NotConfirmedError(OrchestratorError):
    """A destructive act that nobody has agreed to."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its head, the field that it shows, and how."""

    head: str
    field: str
    show: Shown = plain
    right: bool = False


class Listing:
    """Prints objects as they come: JSON lines, or a table whose rows come page by page, under one head."""

    def __init__(self, columns: Sequence[Column], *, as_json: bool) -> None:
        self._columns = columns
        self._as_json = as_json
        self._rows: list[list[str]] = []
        self._widths: list[int] | None = None

    def add(self, line: Line) -> None:
        """Print it, at the latest with the rows that come with it."""
        if self._as_json:
            typer.echo(json.dumps(line))
            return
        self._rows.append([plain(column.show(line.get(column.field))) for column in self._columns])
        if len(self._rows) >= _FIRST_ROWS:
            self._flush()

    def close(self) -> None:
        """Print what is left; the head alone where there was nothing."""
        if not self._as_json and (self._rows or self._widths is None):
            self._flush()

    def _flush(self) -> None:
        rows = self._rows if self._widths is not None else [[column.head for column in self._columns], *self._rows]
        has_head = self._widths is None
        if self._widths is None:
            self._widths = [max(len(row[place]) for row in rows) for place in range(len(self._columns))]
        if sys.stdout.isatty():
            self._to_terminal(rows, self._widths, has_head=has_head)
        else:
            for row in rows:
                typer.echo("  ".join(map(self._placed, row, self._columns, self._widths)).rstrip())
        self._rows = []

    @staticmethod
    def _placed(text: str, column: Column, width: int) -> str:
        return text.rjust(width) if column.right else text.ljust(width)

    def _to_terminal(self, rows: Sequence[Sequence[str]], widths: Sequence[int], *, has_head: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - dear, and only terminals need it
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, show_header=False)
        for column, width in zip(self._columns, widths, strict=True):
            table.add_column(
                justify="right" if column.right else "left",
                min_width=min(width, 8),
                width=None,
                overflow="ellipsis",
                no_wrap=True,
                ratio=None,
                max_width=width,
            )
        for number, row in enumerate(rows):
            table.add_row(*(Text(text, style="bold" if has_head and number == 0 else "") for text in row))
        Console(highlight=False).print(table)


def show_one(line: Line, columns: Sequence[Column], *, as_json: bool) -> None:
    """Print one object: as JSON, or field by field."""
    if as_json:
        typer.echo(json.dumps(line))
        return
    width = max(len(column.head) for column in columns)
    for column in columns:
        typer.echo(f"{column.head.ljust(width)}  {plain(column.show(line.get(column.field)))}")


async def confirmed(plan: Sequence[str], question: str, *, yes: bool, dry_run: bool) -> bool:
    """Show what would be done, and whether to do it. Raises NotConfirmedError without a terminal, and at a no."""
    for line in plan:
        typer.echo(plain(line), err=True)
    if dry_run:
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise NotConfirmedError("Nobody can be asked here, and nothing was done.", hint="Say --yes to have it done.")
    typer.echo(f"{plain(question)} [y/N] ", nl=False, err=True)
    if (await _typed()).strip().lower() not in ("y", "yes"):
        raise NotConfirmedError("Nothing was done.")
    return True


async def _typed() -> str:
    """A line from the terminal; the loop goes on meanwhile, and Ctrl-C ends the command at once."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    descriptor = sys.stdin.fileno()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
        return os.read(descriptor, _ANSWER_BYTES).decode(errors="replace")
    finally:
        loop.remove_reader(descriptor)
