"""Names of tenants and sessions for shells that complete them: asked for with a short bound, else nothing."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import typer

from orchestrator.domain.errors import OrchestratorError

_SECONDS: Final = 1.5  # that somebody at a prompt waits
_MOST: Final = 200  # names


def tenant_names(context: typer.Context, incomplete: str) -> list[str]:
    """Those that begin like that."""
    return _names(context, "tenant.list", {}, "name", incomplete)


def session_names(context: typer.Context, incomplete: str) -> list[str]:
    """Those of the tenant on the line, or of the local one."""
    tenant = context.params.get("tenant") or "local"
    return _names(context, "session.list", {"tenant": tenant}, "session", incomplete)


def _names(context: typer.Context, order: str, given: Mapping[str, Any], field: str, incomplete: str) -> list[str]:
    given_dir = context.params.get("data_dir")
    try:
        return asyncio.run(_found(None if given_dir is None else Path(given_dir), order, given, field, incomplete))
    except (OrchestratorError, TimeoutError, OSError):
        return []


async def _found(data_dir: Path | None, order: str, given: Mapping[str, Any], field: str, incomplete: str) -> list[str]:
    from orchestrator.faces.cli.reach import quiet_office  # noqa: PLC0415 - imports of a server

    names: list[str] = []
    async with (
        asyncio.timeout(_SECONDS),
        quiet_office(data_dir) as office,
        aclosing(office.answers(order, given)) as answers,
    ):
        async for answer in answers:
            if isinstance(answer, Mapping) and str(answer[field]).startswith(incomplete):
                names.append(str(answer[field]))
                if len(names) >= _MOST:
                    break
    return names
