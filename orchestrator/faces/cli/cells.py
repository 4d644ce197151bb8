"""One cell as a terminal sees it: its output while it runs, then its value, figures, error and notes."""

import asyncio
import codecs
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.orders import MAX_CHUNK_BYTES, Progress
from orchestrator.faces.cli.orders import tell_progress
from orchestrator.faces.cli.reach import Office, beside, lines_of
from orchestrator.faces.cli.shown import plain, size

Line = Mapping[str, Any]
_KEPT: Final = "\n\t"
_PATIENT: Final = 2  # interrupts of one cell whose end is waited for


@dataclass(frozen=True, slots=True)
class Ran:
    """What a cell answered; None where its end was not waited for. And how often somebody has wanted it to end."""

    said: Line | None
    interrupts: int


async def run_interruptibly(
    office: Office, data_dir: Path | None, code: bytes, given: Line, *, quiet: bool = False
) -> Ran:
    """Run it. Ctrl-C asks its session to stop it, and its answer still comes; the third, and the first without a
    session, ends the waiting instead, and the owner stops it. Raises OrchestratorError.
    """
    running = asyncio.create_task(run_cell(office, code, given, quiet=quiet), name="cell")
    loop, before, asking = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT), list[asyncio.Task[None]]()
    interrupts = 0

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > _PATIENT or given["session"] is None:
            running.cancel()
        else:
            asking.append(asyncio.create_task(_interrupt(office, data_dir, given), name="interrupt"))

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        with suppress(asyncio.CancelledError):
            await running
        return Ran(None if running.cancelled() else running.result(), interrupts)
    finally:
        running.cancel()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
        for one in asking:
            one.cancel()
        await asyncio.wait([running, *asking])


async def _interrupt(office: Office, data_dir: Path | None, given: Line) -> None:
    try:
        async with beside(office, data_dir) as another:
            await lines_of(another, "session.interrupt", {name: given[name] for name in ("session", "tenant")})
    except OrchestratorError as error:
        typer.echo(f"it could not be interrupted: {plain(error.message)}", err=True)


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
