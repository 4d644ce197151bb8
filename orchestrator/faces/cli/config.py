"""`orchestrator config`: every setting, its value and where it came from; what is wrong; the reference."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.owner import DataDir

config_commands = typer.Typer(help="Settings: what counts here, and what is wrong with it.", no_args_is_help=True)
EXIT_WRONG = 2


@config_commands.command("show")
def show(
    *,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not a default.")] = False,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Print every setting, its value, and where that came from."""
    from orchestrator.setting_sources import masked  # noqa: PLC0415 - no help needs it
    from orchestrator.settings import Settings  # noqa: PLC0415

    with told_to_the_terminal():
        settings, sources = Settings.loaded(data_dir=data_dir)
        told = settings.model_dump(mode="json")
        for name, value in told.items():
            kind, where = sources.origin(name)
            if changed and kind == "default":
                continue
            if as_json:
                line = {"setting": name, "value": masked(value), "origin": kind, "where": where}
                typer.echo(json.dumps(line))
            else:
                shown = "none" if value is None else masked(value)
                typer.echo(f"{name} = {shown}  ({kind if where is None else where})")


@config_commands.command("check")
def check(*, data_dir: DataDir = None) -> None:
    """Say all that is wrong with the settings, a line each; exit code 2 where anything is."""
    from orchestrator.setting_sources import SettingsError  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    try:
        _, sources = Settings.loaded(data_dir=data_dir)
    except SettingsError as failure:
        for fault in failure.faults:
            typer.echo(fault, err=True)
        raise typer.Exit(EXIT_WRONG) from failure
    typer.echo(f"All settings are right. Configuration file: {sources.path or 'none'}.")


@config_commands.command("reference")
def print_reference(
    file: Annotated[Path | None, typer.Argument(help="Write it there, in place of standard output.")] = None,
) -> None:
    """Print the reference of all settings, in Markdown."""
    from orchestrator.setting_reference import reference  # noqa: PLC0415

    if file is None:
        typer.echo(reference(), nl=False)
    else:
        file.write_text(reference(), "utf-8")
