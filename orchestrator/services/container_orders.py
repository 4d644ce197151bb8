"""Orders about the installation's containers: what the records and the engine say of them, and the end of one."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.errors import ContainerNotFoundError, InvalidRequestError
from orchestrator.domain.model import SandboxRecord, Session
from orchestrator.domain.orders import Answer, Field
from orchestrator.domain.ports import OwnedContainer
from orchestrator.services.orders import Call, Order

_LEAST_PREFIX: Final = 4  # characters by which a container may be named


async def _list(call: Call) -> AsyncGenerator[Answer, None]:
    for line in await _lines(call):
        yield line


async def _lines(call: Call) -> list[dict[str, Any]]:
    """A light owner knows the rows alone; whether their containers run, only one that has an engine can say."""
    whole = call.desk.opened
    rows = {row.id: row for row in await call.desk.records.sandboxes()}
    there = {} if whole is None else {one.sandbox_id: one for one in await whole.reaping.containers()}
    sessions = {} if whole is None else {live.session.key: live.session for live in whole.sessions.in_use()}
    names = {tenant.id: tenant.name for tenant in await call.desk.tenants.list()}
    return [
        _line(sandbox, rows.get(sandbox), there.get(sandbox), sessions, names) | {"engine_asked": whole is not None}
        for sandbox in sorted(rows.keys() | there.keys())
    ]


def _line(
    sandbox: str,
    row: SandboxRecord | None,
    container: OwnedContainer | None,
    sessions: dict[str, Session],
    names: dict[str, str],
) -> dict[str, Any]:
    session = sessions.get(row.session) if row is not None and row.session is not None else None
    handle = container.handle if container is not None else None if row is None else row.handle
    return {
        "sandbox": sandbox,
        "container": handle,
        "state": None if row is None else str(row.state),
        "running": None if container is None else container.running,
        "created_at": None if container is None else container.created.isoformat(),
        "session": None if session is None else session.session_id,
        "tenant": None if session is None else names.get(session.tenant, session.tenant),
        "key": None if row is None else row.session,
        "incarnation": None if row is None else row.incarnation,
        "image": None if row is None else row.image,
        "uid": None if row is None else row.uid,
    }


async def _inspect(call: Call) -> AsyncGenerator[Answer, None]:
    yield await _named(call)


async def _named(call: Call) -> dict[str, Any]:
    """The one whose sandbox or container id begins so. Raises ContainerNotFoundError, InvalidRequestError."""
    name = call.given["container"]
    if len(name) < _LEAST_PREFIX:
        raise InvalidRequestError(f"{name!r} is too short.", hint=f"Give at least {_LEAST_PREFIX} characters.")
    found = [
        line
        for line in await _lines(call)
        if line["sandbox"].startswith(name) or (line["container"] or "").startswith(name)
    ]
    if len(found) > 1:
        raise InvalidRequestError(f"{len(found)} containers begin with {name!r}.", hint="Give more of it.")
    if not found:
        raise ContainerNotFoundError(f"There is no container {name!r}.", hint="List them to see which there are.")
    return found[0]


async def _kill(call: Call) -> AsyncGenerator[Answer, None]:
    line = await _named(call)
    await call.desk.whole.reaping.remove(line["sandbox"])
    by = call.by
    detail = {"sandbox": line["sandbox"], "key": line["key"]}
    await call.desk.audit.note(
        AuditEntry("kill container", by.tenant, by.key_id, line["session"], outcome="ok", detail=detail)
    )
    yield {"sandbox": line["sandbox"], "session": line["session"], "tenant": line["tenant"], "removed": True}


_CONTAINER: Final = {"container": Field("text", required=True)}
CONTAINER_ORDERS: Final = (
    Order("container.list", "Sandboxes, by the records and (of a server) by the engine.", _list, reads=True),
    Order("container.inspect", "One of them, by the beginning of its id.", _inspect, _CONTAINER, reads=True),
    Order(
        "container.kill",
        "Remove one, with what it has not saved; its session goes on from its last snapshot.",
        _kill,
        _CONTAINER,
        basis="whole",
    ),
)
