"""Orders about sessions. What is known from the records alone is told from them; the rest goes through the session."""

from collections.abc import AsyncGenerator
from typing import Final

from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.model import LOCAL_TENANT, Session, SessionState
from orchestrator.domain.orders import Answer, Field
from orchestrator.services.checks import not_found
from orchestrator.services.listings import last_known
from orchestrator.services.orders import Call, Order
from orchestrator.services.session_lines import execution_line, session_line, snapshot_line, variable_lines

_FIRST_PAGE: Final = 50  # so that something is there to be read at once
_PAGE: Final = 500
_STATES: Final = tuple(str(state) for state in SessionState)


async def _list(call: Call) -> AsyncGenerator[Answer, None]:
    desk, given = call.desk, call.given
    tenant = None if given["tenant"] is None else (await desk.tenants.find(given["tenant"])).id
    names = {one.id: one.name for one in await desk.tenants.list()}
    after, left, size = 0, given["limit"], _FIRST_PAGE
    while left is None or left > 0:
        limit = size if left is None else min(size, left)
        page = await desk.lists.page(tenant=tenant, state=given["state"], after=after, limit=limit)
        for listed in page:
            yield session_line(listed.session, names.get(listed.session.tenant, listed.session.tenant))
        if len(page) < limit:
            return
        after, size = page[-1].place, _PAGE
        left = None if left is None else left - len(page)


async def _found(call: Call) -> tuple[Session, str]:
    tenant = await call.desk.tenants.find(call.given["tenant"])
    session = await call.desk.records.find_session(tenant.id, session_id_of(call.given["session"]))
    if session is None:
        raise not_found(call.given["session"])
    return session, tenant.name


async def _show(call: Call) -> AsyncGenerator[Answer, None]:
    session, tenant = await _found(call)
    loss = session.untold_loss
    yield {
        **session_line(session, tenant),
        "environment": session.environment,
        "untold_loss": None if loss is None else {"first": loss.first, "last": loss.last, "cause": loss.cause},
        "untold_notes": list(session.untold_notes),
    }


async def _executions(call: Call) -> AsyncGenerator[Answer, None]:
    session, _ = await _found(call)
    for record in await call.desk.records.executions(session.tenant, session.session_id, limit=call.given["limit"]):
        yield execution_line(record)


async def _variables(call: Call) -> AsyncGenerator[Answer, None]:
    session, _ = await _found(call)
    if call.desk.opened is not None:
        namespace = await (await call.of_tenant()).list_variables(session.session_id)
    else:
        listing = await call.desk.snapshots.saved_listing_of(session.key)
        namespace = last_known(listing, await call.desk.records.binding_executions(session.key))
    for line in variable_lines(namespace):
        yield line


async def _history(call: Call) -> AsyncGenerator[Answer, None]:
    found = await (await call.of_tenant()).history(call.given["session"])
    for summary in found.snapshots:
        yield snapshot_line(summary)


async def _interrupt(call: Call) -> AsyncGenerator[Answer, None]:
    session = call.given["session"]
    yield {"session": session, "interrupted": await (await call.of_tenant()).interrupt(session)}


async def _hibernate(call: Call) -> AsyncGenerator[Answer, None]:
    session = call.given["session"]
    yield {"session": session, "hibernated": await (await call.of_tenant()).hibernate(session)}


async def _wake(call: Call) -> AsyncGenerator[Answer, None]:
    await (await call.of_tenant()).wake(call.given["session"])
    yield {"session": call.given["session"], "awake": True}


async def _snapshot(call: Call) -> AsyncGenerator[Answer, None]:
    yield snapshot_line(await (await call.of_tenant()).save(call.given["session"]))


async def _roll_back(call: Call) -> AsyncGenerator[Answer, None]:
    yield snapshot_line(await (await call.of_tenant()).roll_back(call.given["session"], call.given["sequence"]))


async def _fork(call: Call) -> AsyncGenerator[Answer, None]:
    given = call.given
    forked = await (await call.of_tenant()).fork(given["session"], given["new"], sequence=given["sequence"])
    yield {"session": given["new"], **snapshot_line(forked)}


async def _clear(call: Call) -> AsyncGenerator[Answer, None]:
    await (await call.of_tenant()).clear(call.given["session"])
    yield {"session": call.given["session"], "cleared": True}


async def _delete(call: Call) -> AsyncGenerator[Answer, None]:
    await (await call.of_tenant()).delete(call.given["session"])
    yield {"session": call.given["session"], "deleted": True}


_SESSION: Final = {"session": Field("text", required=True), "tenant": Field("text", default=LOCAL_TENANT)}
_SEQUENCE: Final = Field("integer", least=1)
SESSION_ORDERS: Final = (
    Order(
        "session.list",
        "Sessions of all tenants in every state, oldest first.",
        _list,
        {"tenant": Field("text"), "state": Field("text", choices=_STATES), "limit": Field("integer", least=1)},
        reads=True,
    ),
    Order("session.show", "One session, and what its next caller will be told.", _show, _SESSION, reads=True),
    Order(
        "session.executions",
        "The newest executions, newest first.",
        _executions,
        {**_SESSION, "limit": Field("integer", default=200, least=1, most=200)},
        reads=True,
    ),
    Order(
        "session.variables",
        "What the namespace holds; a sleeping session is not woken.",
        _variables,
        _SESSION,
        reads=True,
    ),
    Order("session.history", "The snapshots, newest first.", _history, _SESSION, reads=True, basis="whole"),
    Order("session.interrupt", "Have the call end early that runs.", _interrupt, _SESSION, basis="whole"),
    Order("session.hibernate", "Save it, and remove its sandbox.", _hibernate, _SESSION, basis="whole"),
    Order("session.wake", "Have a sandbox hold its namespace.", _wake, _SESSION, basis="whole"),
    Order("session.snapshot", "Save it now.", _snapshot, _SESSION, basis="whole"),
    Order(
        "session.rollback",
        "Let it stand at an earlier snapshot.",
        _roll_back,
        {**_SESSION, "sequence": Field("integer", required=True, least=1)},
        basis="whole",
    ),
    Order(
        "session.fork",
        "Begin a session as a copy of this one, or of one of its snapshots.",
        _fork,
        {**_SESSION, "new": Field("text", required=True), "sequence": _SEQUENCE},
        basis="whole",
    ),
    Order("session.clear", "Empty its namespace.", _clear, _SESSION, basis="whole"),
    Order("session.delete", "End it for good.", _delete, _SESSION, basis="whole"),
)
