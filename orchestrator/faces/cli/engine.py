"""`orchestrator engine`: find, start and use the Docker Engine."""

import os
from typing import Annotated

import typer

from orchestrator.faces.cli.failures import EXIT_FAILED, told_to_the_terminal

engine_commands = typer.Typer(help="Find, install and start the Docker Engine.", no_args_is_help=True)

# What a command keeps of its environment behind sudo, beside our own variables.
_KEPT = ("PATH", "TERM", "COLUMNS", "LANG", "LC_ALL", "CI", "NO_COLOR", "FORCE_COLOR", "PYTHONHASHSEED")
_OUR_PREFIX = "ORCHESTRATOR_"
# Root's caches must not end up in this user's checkout, where `make clean` could not remove them.
_CACHES_ELSEWHERE = (
    "PYTHONDONTWRITEBYTECODE=1",
    "PYTEST_ADDOPTS=-p no:cacheprovider",
    "HYPOTHESIS_STORAGE_DIRECTORY=/root/.cache/hypothesis",
)


@engine_commands.command()
def ensure() -> None:
    """Find an engine that works, or install and start one (Debian and Ubuntu, as root or with sudo)."""
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    with told_to_the_terminal():
        provisioning.ensure_engine(lambda line: typer.echo(f"engine: {line}"))


@engine_commands.command()
def status() -> None:
    """Say of each place where an engine may be what is there; exit code 1 where none works."""
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    with told_to_the_terminal():
        probes = provisioning.survey()
    for found in probes:
        version = f" {found.version} (API {found.api_version})" if found.works else ""
        place = f"{found.endpoint.base_url} ({found.endpoint.source})"
        typer.echo(f"{found.verdict:14} {place} {found.detail}{version}")
    if not any(found.works for found in probes):
        raise typer.Exit(EXIT_FAILED)


@engine_commands.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(command: Annotated[list[str], typer.Argument(metavar="COMMAND…")]) -> None:
    """Run a command that uses the engine: as it is, or through sudo where the socket lets only root in."""
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    with told_to_the_terminal():
        prefix, told = provisioning.engine_for_a_command()
    if prefix:
        kept = [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
        kept += [f"{name}={value}" for name, value in os.environ.items() if name.startswith(_OUR_PREFIX)]
        kept += [f"{name}={value}" for name, value in told.items()]
        kept += _CACHES_ELSEWHERE
        command = [*prefix, "-H", "env", *kept, *command]
    try:
        os.execvpe(command[0], command, {**os.environ, **told})  # noqa: S606 - the command's exit code must be ours
    except OSError as failure:
        typer.echo(f"error: `{command[0]}` cannot be run: {failure.strerror}", err=True)
        raise typer.Exit(127) from failure
