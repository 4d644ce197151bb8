"""`orchestrator tenant`: who may use this installation, and how much of it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.faces.cli.completion import tenant_names
from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_act, tell_list, tell_one
from orchestrator.faces.cli.output import AsJson, Column, DataDir, DryRun, Yes
from orchestrator.faces.cli.shown import moment

tenant_commands = typer.Typer(help="Tenants: who has sessions, and how much of everything.", no_args_is_help=True)

_Quota = Annotated[
    list[str] | None, typer.Option("--quota", metavar="NAME=VALUE", help="In place of the default; none: no limit.")
]
_Tenant = Annotated[str, typer.Argument(help="By name or id.", autocompletion=tenant_names)]
_Weight = Annotated[float | None, typer.Option(help="Share of what is scarce, against others'; 1 by default.")]
_MOST_NAMED: Final = 20  # sessions in a plan
_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("ID", "id"),
    Column("DISABLED", "disabled"),
    Column("WEIGHT", "weight", right=True),
    Column("QUOTAS", "quotas"),
    Column("CREATED", "created_at", moment),
)


@tenant_commands.command("create")
def create_tenant(
    name: str, *, quota: _Quota = None, weight: _Weight = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Make a tenant."""
    with told_to_the_terminal():
        given = {"name": name, "weight": weight, "quotas": _quotas(quota)}
        tell_one(data_dir, "tenant.create", given, _COLUMNS, as_json=as_json)


@tenant_commands.command("list")
def list_tenants(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all tenants."""
    with told_to_the_terminal():
        tell_list(data_dir, "tenant.list", {}, _COLUMNS, as_json=as_json)


@tenant_commands.command("show")
def show_tenant(tenant: _Tenant, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show a tenant, by name or id."""
    with told_to_the_terminal():
        tell_one(data_dir, "tenant.show", {"tenant": tenant}, _COLUMNS, as_json=as_json)


@tenant_commands.command("update")
def update_tenant(
    tenant: _Tenant, *, quota: _Quota = None, weight: _Weight = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Change a tenant's weight, or all of its quotas at once."""
    with told_to_the_terminal():
        given = {"tenant": tenant, "weight": weight, "quotas": None if quota is None else _quotas(quota)}
        tell_one(data_dir, "tenant.update", given, _COLUMNS, as_json=as_json)


@tenant_commands.command("disable")
def disable_tenant(tenant: _Tenant, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let none of a tenant's keys open anything, from now on; its sessions stay."""
    with told_to_the_terminal():
        tell_one(data_dir, "tenant.update", {"tenant": tenant, "disabled": True}, _COLUMNS, as_json=as_json)


@tenant_commands.command("enable")
def enable_tenant(tenant: _Tenant, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let them open again."""
    with told_to_the_terminal():
        tell_one(data_dir, "tenant.update", {"tenant": tenant, "disabled": False}, _COLUMNS, as_json=as_json)


@tenant_commands.command("delete")
def delete_tenant(
    tenant: _Tenant, *, yes: Yes = False, dry_run: DryRun = False, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """End a tenant for good, with its keys and all of its sessions."""

    def plan(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
        named = [f"  session {one['session']}, {one['state']}" for one in sessions[:_MOST_NAMED]]
        more = [f"  and {len(sessions) - _MOST_NAMED} more"] if len(sessions) > _MOST_NAMED else []
        return [f"would delete tenant {tenant}, its keys and {len(sessions)} sessions, for good", *named, *more]

    columns = (Column("DELETED", "deleted"), Column("ID", "id"), Column("SESSIONS", "sessions"))
    with told_to_the_terminal():
        looks = ("session.list", {"tenant": tenant})
        tell_act(
            data_dir,
            "tenant.delete",
            {"tenant": tenant},
            columns,
            looks=looks,
            plan=plan,
            yes=yes,
            dry_run=dry_run,
            as_json=as_json,
        )


def _quotas(given: list[str] | None) -> dict[str, float | None]:
    quotas: dict[str, float | None] = {}
    for text in given or ():
        name, _, value = text.partition("=")
        try:
            quotas[name] = None if value == "none" else float(value)
        except ValueError:
            raise InvalidRequestError(
                f"{text!r} is no quota.", hint="Write it as NAME=VALUE, such as sessions=50."
            ) from None
    return quotas
