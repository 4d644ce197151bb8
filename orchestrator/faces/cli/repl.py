"""`orchestrator repl`: a prompt into a session, with history; what runs can be interrupted, and the session stays."""

import asyncio
import codeop
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.domain.errors import InvalidRequestError, OrchestratorError
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.faces.cli.cells import run_interruptibly, show_answer
from orchestrator.faces.cli.completion import session_names, tenant_names
from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.output import DataDir
from orchestrator.faces.cli.reach import Office, at_office
from orchestrator.faces.cli.shown import plain

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

_HISTORY: Final = "repl.history"  # in the data directory, for its owner alone


def repl(
    session: Annotated[str, typer.Argument(help="By the tenant's name for it.", autocompletion=session_names)] = "repl",
    *,
    tenant: Annotated[str, typer.Option(help="By name or id.", autocompletion=tenant_names)] = LOCAL_TENANT,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a cell may run.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Type into a session. Ctrl-C interrupts what runs (the third leaves), Ctrl-D leaves; the session stays."""
    with told_to_the_terminal():
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise InvalidRequestError("A prompt needs a terminal.", hint="Use `orchestrator run -` in a pipe.")
        given = {"session": session, "tenant": tenant, "timeout": timeout}
        at_office(data_dir, lambda office: _Prompt(office, data_dir, given).run(), whole=True)
        typer.echo(f"The session {plain(session)} stays; `orchestrator session delete` ends it.", err=True)


class _Prompt:
    """Reads a cell, has it run, shows what it says, until there is no more."""

    def __init__(self, office: Office, data_dir: Path | None, given: Mapping[str, Any]) -> None:
        self._office = office
        self._data_dir = data_dir
        self._given = given

    async def run(self) -> None:
        """Until Ctrl-D."""
        prompt = _made(await asyncio.to_thread(_history_file, self._data_dir))
        while True:
            try:
                code = await prompt.prompt_async(">>> ", prompt_continuation="... ")
            except KeyboardInterrupt:
                continue  # what was typed is let go of
            except EOFError:
                return
            if code.strip() and not await self._cell(code):
                return

    async def _cell(self, code: str) -> bool:
        """Whether to go on: not where somebody would not wait for its end, whose answer may yet come over the link."""
        try:
            ran = await run_interruptibly(self._office, self._data_dir, code.encode(), self._given)
        except OrchestratorError as error:
            typer.secho(f"error: {plain(error.message)}", fg=typer.colors.RED, err=True)
            if error.hint:
                typer.echo(plain(error.hint), err=True)
            return True
        if ran.said is not None:
            show_answer(ran.said)
        return ran.said is not None


def _history_file(data_dir: Path | None) -> Path:
    """Made private before anything is written to it."""
    from orchestrator.settings import Settings  # noqa: PLC0415 - imports that no help needs

    path = Settings.load(data_dir=data_dir).data_dir / _HISTORY
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)
    return path


def _made(history: Path) -> "PromptSession[str]":
    from prompt_toolkit import PromptSession  # noqa: PLC0415 - dear, and only this command needs it
    from prompt_toolkit.history import FileHistory  # noqa: PLC0415
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent  # noqa: PLC0415

    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_whole(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + _indent(buffer.document.current_line))

    return PromptSession(history=FileHistory(str(history)), key_bindings=keys, multiline=True)


def is_whole(code: str) -> bool:
    """Whether Python would run it now: a block goes on until a line is empty. What is wrong in it is the sandbox's to
    say, whose Python may be another one.
    """
    try:
        # A line of nothing but its indent is an empty one.
        return codeop.compile_command(code.rstrip(" \t"), symbol="single") is not None
    except (SyntaxError, ValueError, OverflowError):
        return True


def _indent(line: str) -> str:
    own = line[: len(line) - len(line.lstrip())]
    return own + "    " if line.rstrip().endswith(":") else own
