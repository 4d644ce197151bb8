"""`orchestrator key`: API keys of tenants."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_list, tell_one
from orchestrator.faces.cli.output import AsJson, Column, DataDir
from orchestrator.faces.cli.reach import Office, at_office, lines_of
from orchestrator.faces.cli.shown import moment

key_commands = typer.Typer(help="API keys of tenants.", no_args_is_help=True)

_DAY, _HOUR = 86_400.0, 3_600.0  # seconds
_Expiry = Annotated[float | None, typer.Option(help="Days until it expires; never without.")]
_COLUMNS: Final = (
    Column("ID", "id"),
    Column("TENANT", "tenant"),
    Column("NAME", "name"),
    Column("SCOPES", "scopes"),
    Column("EXPIRES", "expires_at", moment),
    Column("REVOKED", "revoked_at", moment),
    Column("USED", "used_at", moment),
)


@key_commands.command("create")
def create_key(
    tenant: str,
    name: str,
    *,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="use, read or admin; use by default.")] = None,
    expires_days: _Expiry = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown now, and never again."""
    given = {"tenant": tenant, "name": name, "scopes": scope or None, "expires_in": _seconds(expires_days, _DAY)}
    _tell_token(data_dir, "key.create", given, as_json=as_json)


@key_commands.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Argument()] = None, *, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List keys, without their secrets: of one tenant, or of all."""
    with told_to_the_terminal():
        tell_list(data_dir, "key.list", {"tenant": tenant}, _COLUMNS, as_json=as_json)


@key_commands.command("rotate")
def rotate_key(
    key: str,
    *,
    overlap_hours: Annotated[float, typer.Option(help="Hours for which the old one opens, too.")] = 0.0,
    expires_days: _Expiry = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key like that one, which is named by its prefix. It is shown now, and never again."""
    given = {"key": key, "overlap": overlap_hours * _HOUR, "expires_in": _seconds(expires_days, _DAY)}
    _tell_token(data_dir, "key.rotate", given, as_json=as_json)


@key_commands.command("revoke")
def revoke_key(key: str, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a key open nothing any more, at once. It is named by its prefix."""
    with told_to_the_terminal():
        tell_one(data_dir, "key.revoke", {"key": key}, (Column("REVOKED", "revoked"),), as_json=as_json)


def _tell_token(data_dir: Path | None, order: str, given: Mapping[str, Any], *, as_json: bool) -> None:
    async def work(office: Office) -> None:
        for line in await lines_of(office, order, given):
            typer.echo(json.dumps(line) if as_json else line["token"])

    with told_to_the_terminal():
        at_office(data_dir, work)


def _seconds(number: float | None, unit: float) -> float | None:
    return None if number is None else number * unit
