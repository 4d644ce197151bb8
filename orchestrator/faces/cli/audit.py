"""`orchestrator audit`: who did what."""

from typing import Annotated

import typer

from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_list
from orchestrator.faces.cli.output import DataDir

audit_commands = typer.Typer(help="Who did what, and what it took.", no_args_is_help=True)


@audit_commands.command("export")
def export_audit(
    *,
    tenant: Annotated[str | None, typer.Option(help="By name or id.")] = None,
    key: Annotated[str | None, typer.Option(help="By its prefix.")] = None,
    session: Annotated[str | None, typer.Option(help="By the tenant's name for it.")] = None,
    since: Annotated[str | None, typer.Option(help="Such as 2026-01-31 or 2026-01-31T12:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Likewise; not included.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print who did what, as JSON lines, oldest first."""
    given = {"tenant": tenant, "key": key, "session": session, "since": since, "until": until}
    with told_to_the_terminal():
        tell_list(data_dir, "audit.export", given, (), as_json=True)
