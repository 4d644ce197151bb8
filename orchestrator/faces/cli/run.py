"""`orchestrator run`: a script, a line or standard input in a session, or in a sandbox of its own."""

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.faces.cli.cells import run_interruptibly, show_answer
from orchestrator.faces.cli.completion import session_names, tenant_names
from orchestrator.faces.cli.failures import EXIT_FAILED, EXIT_INTERRUPTED, told_to_the_terminal
from orchestrator.faces.cli.output import AsJson, DataDir
from orchestrator.faces.cli.reach import at_office

_STREAM: Final = "-"
_MOST_BYTES: Final = 16 * 1024 * 1024  # that are read at all; how much may be run, the session says


def run(
    file: Annotated[str | None, typer.Argument(help="A file of this machine; - for standard input.")] = None,
    *,
    code: Annotated[str | None, typer.Option("--code", "-c", help="Code in place of a file.")] = None,
    session: Annotated[
        str | None, typer.Option("--session", "-s", help="By the tenant's name for it.", autocompletion=session_names)
    ] = None,
    tenant: Annotated[str, typer.Option(help="By name or id.", autocompletion=tenant_names)] = LOCAL_TENANT,
    timeout: Annotated[float | None, typer.Option(help="Seconds that it may run.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run code in a session, which keeps what it binds, or in a sandbox of its own, which keeps nothing.

    Exit code 1 where the code raised or was stopped. Ctrl-C interrupts it; the session stays.
    """
    with told_to_the_terminal():
        given = {"session": session, "tenant": tenant, "timeout": timeout}
        source = _source(file, code)
        try:
            ran = at_office(
                data_dir, lambda office: run_interruptibly(office, data_dir, source, given, quiet=as_json), whole=True
            )
        except KeyboardInterrupt:  # before it ran
            raise typer.Exit(EXIT_INTERRUPTED) from None
        if ran.said is None:
            typer.echo("interrupted, and not waited for", err=True)
        elif as_json:
            typer.echo(json.dumps(ran.said))
        else:
            show_answer(ran.said)
        if ran.interrupts:
            raise typer.Exit(EXIT_INTERRUPTED)
        if ran.said is None or ran.said["outcome"] != "ok":
            raise typer.Exit(EXIT_FAILED)


def _source(file: str | None, code: str | None) -> bytes:
    if (file is None) == (code is None):
        raise InvalidRequestError("What is to be run?", hint="Name a file, or - for standard input, or say -c CODE.")
    if code is not None:
        return code.encode("utf-8", "surrogateescape")
    try:
        with sys.stdin.buffer if file == _STREAM else Path(file or "").open("rb") as source:
            read = source.read(_MOST_BYTES + 1)
    except OSError as failure:
        raise InvalidRequestError(f"{file} cannot be read: {failure.strerror}.") from failure
    if len(read) > _MOST_BYTES:
        raise InvalidRequestError(f"{file} has more than {_MOST_BYTES} bytes.", hint="A cell's data goes into files.")
    return read
