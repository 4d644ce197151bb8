"""One cell as a terminal sees it: its output while it runs, then its value, figures, error and notes."""

import codecs
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import typer

from orchestrator.domain.orders import MAX_CHUNK_BYTES, Progress
from orchestrator.faces.cli.orders import tell_progress
from orchestrator.faces.cli.reach import Office
from orchestrator.faces.cli.shown import plain, size

Line = Mapping[str, Any]
_KEPT: Final = "\n\t"


async def run_cell(office: Office, code: bytes, given: Line, *, quiet: bool = False) -> Line:
    """Run it and show its output as it comes (`quiet`: not): the answer's other fields. Raises OrchestratorError."""
    said: Line = {}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end within a character
    async with aclosing(office.answers("session.run", given, chunks=_pieces(code))) as answers:
        async for answer in answers:
            if isinstance(answer, bytes):
                if not quiet:
                    show(decoder.decode(answer))
            elif isinstance(answer, Progress):
                tell_progress(answer)
            else:
                said = answer
    return said


async def _pieces(code: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(code), MAX_CHUNK_BYTES):
        yield code[start : start + MAX_CHUNK_BYTES]


def show(text: str) -> None:
    """Print what a cell has written; what could steer a terminal is escaped there, and untouched in a pipe."""
    if sys.stdout.isatty():
        text = "".join(sign if sign in _KEPT else plain(sign) for sign in text)
    typer.echo(text, nl=False)
    sys.stdout.flush()


def show_answer(said: Line) -> None:
    """Value to standard output; figures, error and notes to standard error."""
    if said["value"] is not None:
        show(f"{said['value']}\n")
    for display in said["displays"]:
        typer.echo(f"[{plain(display['mime'])}, {size(display['bytes'])}]", err=True)
    error = said["error"]
    if error is not None:
        if error["traceback"]:
            typer.echo("\n".join(map(plain, error["traceback"].splitlines())), err=True)
        if not error["traceback"] or said["outcome"] != "exception":
            typer.secho(f"{said['outcome']}: {plain(error['message'])}", fg=typer.colors.RED, err=True)
        if error["hint"] and said["outcome"] != "exception":
            typer.echo(plain(error["hint"]), err=True)
    for note in said["notes"]:
        typer.secho(plain(note), err=True, dim=True)
