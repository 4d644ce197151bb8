"""`orchestrator tenant`, `key` and `audit`: who may use this installation, and who did what."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.domain.errors import InvalidRequestError, OwnedError
from orchestrator.faces.cli.failures import told_to_the_terminal

tenant_commands = typer.Typer(help="Tenants: who has sessions, and how much of everything.", no_args_is_help=True)
key_commands = typer.Typer(help="API keys of tenants.", no_args_is_help=True)

_DAY, _HOUR = 86_400.0, 3_600.0  # seconds
Line = Mapping[str, Any]
_DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIRECTORY", help="Not the usual data directory.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
_Quota = Annotated[
    list[str] | None, typer.Option("--quota", metavar="NAME=VALUE", help="In place of the default; none: no limit.")
]
_Weight = Annotated[float | None, typer.Option(help="Share of what is scarce, against others'; 1 by default.")]
_Expiry = Annotated[float | None, typer.Option("--expires-days", help="Days until it expires; never without.")]


@tenant_commands.command("create")
def create_tenant(
    name: str, *, quota: _Quota = None, weight: _Weight = None, data_dir: _DataDir = None, as_json: _Json = False
) -> None:
    """Make a tenant."""
    given = {"name": name, "weight": weight or 1.0}
    with told_to_the_terminal():
        _ask(data_dir, "create tenant", {**given, "quotas": _quotas(quota)}, _told(("name", "id"), as_json=as_json))


@tenant_commands.command("list")
def list_tenants(*, data_dir: _DataDir = None, as_json: _Json = False) -> None:
    """List all tenants."""
    with told_to_the_terminal():
        _ask(data_dir, "tenants", {}, _told(("name", "id", "disabled", "weight", "quotas"), as_json=as_json))


@tenant_commands.command("set")
def set_tenant(
    tenant: str, *, quota: _Quota = None, weight: _Weight = None, data_dir: _DataDir = None, as_json: _Json = False
) -> None:
    """Change a tenant's weight, or all of its quotas at once."""
    given = {"tenant": tenant, "weight": weight, "quotas": None if quota is None else _quotas(quota)}
    with told_to_the_terminal():
        _ask(data_dir, "change tenant", given, _told(("name", "weight", "quotas"), as_json=as_json))


@tenant_commands.command("disable")
def disable_tenant(tenant: str, *, data_dir: _DataDir = None, as_json: _Json = False) -> None:
    """Let none of a tenant's keys open anything, from now on; its sessions stay."""
    with told_to_the_terminal():
        _ask(
            data_dir,
            "change tenant",
            {"tenant": tenant, "disabled": True},
            _told(("name", "disabled"), as_json=as_json),
        )


@tenant_commands.command("enable")
def enable_tenant(tenant: str, *, data_dir: _DataDir = None, as_json: _Json = False) -> None:
    """Let them open again."""
    given = {"tenant": tenant, "disabled": False}
    with told_to_the_terminal():
        _ask(data_dir, "change tenant", given, _told(("name", "disabled"), as_json=as_json))


@key_commands.command("create")
def create_key(
    tenant: str,
    name: str,
    *,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="use, read or admin; use by default.")] = None,
    expires_days: _Expiry = None,
    data_dir: _DataDir = None,
    as_json: _Json = False,
) -> None:
    """Make a key. It is shown now, and never again."""
    given = {"tenant": tenant, "name": name, "scopes": scope or ["use"], "expires_in": _seconds(expires_days, _DAY)}
    with told_to_the_terminal():
        _ask(data_dir, "create key", given, _told(("token",), as_json=as_json))


@key_commands.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Argument()] = None, *, data_dir: _DataDir = None, as_json: _Json = False
) -> None:
    """List keys, without their secrets: of one tenant, or of all."""
    fields = ("id", "tenant", "name", "scopes", "expires_at", "revoked_at", "used_at")
    with told_to_the_terminal():
        _ask(data_dir, "keys", {"tenant": tenant}, _told(fields, as_json=as_json))


@key_commands.command("rotate")
def rotate_key(
    key: str,
    *,
    overlap_hours: Annotated[float, typer.Option(help="Hours for which the old one opens, too.")] = 0.0,
    expires_days: _Expiry = None,
    data_dir: _DataDir = None,
    as_json: _Json = False,
) -> None:
    """Make a new key like that one, which is named by its prefix. It is shown now, and never again."""
    given = {"key": key, "overlap": overlap_hours * _HOUR, "expires_in": _seconds(expires_days, _DAY)}
    with told_to_the_terminal():
        _ask(data_dir, "rotate key", given, _told(("token",), as_json=as_json))


@key_commands.command("revoke")
def revoke_key(key: str, *, data_dir: _DataDir = None, as_json: _Json = False) -> None:
    """Let a key open nothing any more, at once. It is named by its prefix."""
    with told_to_the_terminal():
        _ask(data_dir, "revoke key", {"key": key}, _told(("revoked",), as_json=as_json))


def audit(
    *,
    tenant: Annotated[str | None, typer.Option(help="By name or id.")] = None,
    key: Annotated[str | None, typer.Option(help="By its prefix.")] = None,
    session: Annotated[str | None, typer.Option(help="By the tenant's name for it.")] = None,
    since: Annotated[str | None, typer.Option(help="Such as 2026-01-31 or 2026-01-31T12:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Likewise; not included.")] = None,
    data_dir: _DataDir = None,
) -> None:
    """Print who did what, as JSON lines, oldest first."""
    with told_to_the_terminal():
        given = {"key": key, "session": session, "since": _moment(since), "until": _moment(until)}
        if tenant is not None:
            tenants: list[Line] = []
            _ask(data_dir, "tenants", {}, tenants.append)
            given["tenant"] = next((one["id"] for one in tenants if tenant in (one["name"], one["id"])), tenant)
        _ask(data_dir, "audit", given, lambda line: typer.echo(json.dumps(line)))


def _ask(data_dir: Path | None, order: str, given: Line, each: Callable[[Line], None]) -> None:
    """Carry the order out as the owner of the data directory, or have its owner do it; each answer as it comes."""
    from orchestrator.faces.admin import ask_owner  # noqa: PLC0415 - imports of a server, which no help needs
    from orchestrator.settings import Settings  # noqa: PLC0415
    from orchestrator.tenancy import operating  # noqa: PLC0415

    settings = Settings.load(data_dir=data_dir)

    async def as_owner() -> None:
        async with operating(settings) as operations:
            async for line in operations.answers(order, given):
                each(line)

    try:
        asyncio.run(as_owner())
    except OwnedError:
        for line in ask_owner(settings.owner_socket, order, given):
            each(line)


def _told(fields: tuple[str, ...], *, as_json: bool) -> Callable[[Line], None]:
    def tell(line: Line) -> None:
        typer.echo(json.dumps(line) if as_json else "  ".join(_shown(line[field]) for field in fields))

    return tell


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return (
            " ".join(f"{name}={'none' if given is None else f'{given:.15g}'}" for name, given in value.items()) or "-"
        )
    return ",".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)


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


def _moment(text: str | None) -> str | None:
    """In UTC, unless it says otherwise."""
    from datetime import UTC, datetime  # noqa: PLC0415

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"{text!r} is no time.", hint="Write it as 2026-01-31 or 2026-01-31T12:00.") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _seconds(number: float | None, unit: float) -> float | None:
    return None if number is None else number * unit
