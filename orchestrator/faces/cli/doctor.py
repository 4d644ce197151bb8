"""`orchestrator doctor`: what the engine enforces, line by line."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import __version__
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.examination import EXIT_UNKNOWN, Examination
from orchestrator.faces.cli.failures import told_to_the_terminal

EXIT_INTERRUPTED = 130


def doctor(
    *,
    attack: Annotated[
        bool, typer.Option("--attack", help="Run hostile cells as well; takes less than a minute.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report for programs.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write an archive for whoever helps, without secrets."),
    ] = None,
) -> None:
    """Ask a throw-away sandbox what the engine enforces, look at disk, records, clock, ports, keys and leftovers, and
    say what to do where something is not in order.

    Works beside a running owner. Exit codes: 0: all that is required is enforced, and nothing is wrong. 1: something is
    not, or is not known to be, or an attack got through. 3: not all could be asked, or told. 130: interrupted.
    """
    found = _examined(attack=attack)
    if bundle is not None:
        _bundle(bundle, found)
    try:
        typer.echo(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(found.lines()))
    except OSError as failure:  # of a report that nobody has read nothing may be concluded
        typer.echo(f"doctor: the report could not be written: {failure.strerror}", err=True)
        raise typer.Exit(EXIT_UNKNOWN) from None
    raise typer.Exit(found.exit_code)


def _bundle(target: Path, found: Examination) -> None:
    from orchestrator.settings import Settings  # noqa: PLC0415
    from orchestrator.support_bundle import write_bundle  # noqa: PLC0415

    with told_to_the_terminal():
        settings, sources = Settings.loaded()
        origins = {name: dict(zip(("origin", "where"), sources.origin(name), strict=True)) for name in sources.fields}
        write_bundle(target, settings, origins, found)
    typer.echo(f"doctor: wrote {target}", err=True)


def _examined(*, attack: bool) -> Examination:
    # Imported here: no other command needs them, and these imports take most of a second.
    from orchestrator.doctor import examine  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    try:
        settings = Settings.load()
    except OrchestratorError as error:
        return Examination(__version__, {}, problem=error.message, hint=error.hint)

    async def interruptible() -> Examination:
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
        return await examine(settings, attack=attack, report=lambda line: typer.echo(f"doctor: {line}", err=True))

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        typer.echo("doctor: interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
