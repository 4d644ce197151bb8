"""Orders about the whole installation: how it stands, and what it would do by itself."""

from collections import Counter
from collections.abc import AsyncGenerator
from typing import Final

from orchestrator.domain.ageing import Age
from orchestrator.domain.asides import DropAside
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.orders import Answer
from orchestrator.domain.strays import RemoveContainer, RemoveSandbox
from orchestrator.domain.upkeep import Action
from orchestrator.services.orders import Call, Order


async def _status(call: Call) -> AsyncGenerator[Answer, None]:
    desk = call.desk
    tenants = await desk.tenants.list()
    yield {
        "installation": desk.records.installation,
        "serving": desk.opened is not None,
        "tenants": len(tenants),
        "disabled_tenants": sum(tenant.disabled for tenant in tenants),
        "sessions": dict(await desk.lists.states()),
        "sandboxes": dict(Counter(str(sandbox.state) for sandbox in await desk.records.sandboxes())),
        "ready": None if desk.opened is None else dict(await desk.opened.ready()),
    }


async def _plan(call: Call) -> AsyncGenerator[Answer, None]:
    due = await call.desk.whole.reaping.due()
    for action in due.actions:
        yield {"act": _name(action), "subject": _subject(action), "why": getattr(action, "why", None)}
    for withheld in due.withheld:
        yield {"act": "withheld", "subject": withheld.what, "why": withheld.why}


async def _reap(call: Call) -> AsyncGenerator[Answer, None]:
    planned = [line async for line in _plan(call)]
    await call.desk.whole.reaping.reap()
    by = call.by
    await call.desk.audit.note(AuditEntry("reap", by.tenant, by.key_id, outcome="ok", detail={"due": len(planned)}))
    for line in planned:
        yield line


def _name(action: Action) -> str:
    return f"age to {action.target}" if isinstance(action, Age) else _NAMES.get(type(action).__name__, "mend")


def _subject(action: Action) -> str:
    if isinstance(action, Age):
        return action.session.key
    if isinstance(action, DropAside):
        return action.path
    if isinstance(action, RemoveSandbox):
        return action.sandbox.id
    return action.sandbox_id if isinstance(action, RemoveContainer) else action.key


_NAMES: Final = {
    "Save": "save",
    "Hibernate": "hibernate",
    "FinishDelete": "finish delete",
    "RemoveContainer": "remove container",
    "RemoveSandbox": "remove sandbox",
    "SetAside": "set aside file",
    "DropAside": "delete file",
}
INSTALLATION_ORDERS: Final = (
    Order("status.show", "How the installation stands.", _status, reads=True),
    Order("reap.plan", "What is due, and what is withheld and why.", _plan, reads=True, basis="whole"),
    Order("reap.run", "Do what is due now, and not only in a minute.", _reap, basis="whole"),
)
