"""`orchestrator audit`: who did what."""

from typing import Annotated, Final

import typer

from orchestrator.faces.cli.completion import tenant_names
from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_list
from orchestrator.faces.cli.output import AsJson, Column, DataDir
from orchestrator.faces.cli.shown import moment, seconds

audit_commands = typer.Typer(help="Who did what, and what it took.", no_args_is_help=True)


_Tenant = Annotated[str | None, typer.Option(help="By name or id.", autocompletion=tenant_names)]
_Key = Annotated[str | None, typer.Option(help="By its prefix.")]
_Session = Annotated[str | None, typer.Option(help="By the tenant's name for it.")]
_COLUMNS: Final = (
    Column("AT", "at", moment),
    Column("ACT", "act"),
    Column("TENANT", "tenant"),
    Column("KEY", "key"),
    Column("SESSION", "session"),
    Column("CELL", "execution", right=True),
    Column("OUTCOME", "outcome"),
    Column("TOOK", "duration_seconds", seconds, right=True),
)


@audit_commands.command("tail")
def tail(
    *,
    number: Annotated[int, typer.Option("--number", "-n", help="So many, the newest.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those that come, until Ctrl-C.")] = False,
    tenant: _Tenant = None,
    key: _Key = None,
    session: _Session = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest entries."""
    given = {"tenant": tenant, "key": key, "session": session, "number": number, "follow": follow}
    with told_to_the_terminal():
        tell_list(data_dir, "audit.tail", given, _COLUMNS, as_json=as_json)


@audit_commands.command("export")
def export_audit(
    *,
    tenant: _Tenant = None,
    key: _Key = None,
    session: _Session = None,
    since: Annotated[str | None, typer.Option(help="Such as 2026-01-31 or 2026-01-31T12:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Likewise; not included.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print who did what, as JSON lines, oldest first."""
    given = {"tenant": tenant, "key": key, "session": session, "since": since, "until": until}
    with told_to_the_terminal():
        tell_list(data_dir, "audit.export", given, (), as_json=True)
