"""Orders about the audit."""

from collections.abc import AsyncGenerator
from typing import Final

from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.orders import Answer, Field
from orchestrator.services.auditing import line_of
from orchestrator.services.orders import Call, Order


async def _export(call: Call) -> AsyncGenerator[Answer, None]:
    given = dict(call.given)
    if given["tenant"] is not None:
        try:
            given["tenant"] = (await call.desk.tenants.find(given["tenant"])).id
        except OrchestratorError:
            return  # nobody of that name has done anything
    async for record in call.desk.audit.entries(AuditQuery(**given)):
        yield line_of(record)


AUDIT_ORDERS: Final = (
    Order(
        "audit.export",
        "Who did what, oldest first.",
        _export,
        {
            **{name: Field("text") for name in ("tenant", "key", "session")},
            **{name: Field("time") for name in ("since", "until")},
        },
        reads=True,
    ),
)
