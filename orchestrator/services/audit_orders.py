"""Orders about the audit."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import NotFoundError
from orchestrator.domain.orders import Answer, Field
from orchestrator.services.auditing import line_of
from orchestrator.services.orders import Call, Order

_PAUSE: Final = 1.0  # seconds between two looks for new entries


async def _query(call: Call) -> AuditQuery:
    given = {name: call.given[name] for name in _WANTED}
    if given["tenant"] is not None:
        with suppress(NotFoundError):  # the id of one that was deleted still stands in the audit
            given["tenant"] = (await call.desk.tenants.find(given["tenant"])).id
    return AuditQuery(**given)


async def _export(call: Call) -> AsyncGenerator[Answer, None]:
    async for record in call.desk.audit.entries(await _query(call)):
        yield line_of(record)


async def _tail(call: Call) -> AsyncGenerator[Answer, None]:
    query, last = await _query(call), 0
    for record in await call.desk.audit.newest(query, call.given["number"]):
        yield line_of(record)
        last = record.id
    while call.given["follow"]:
        await asyncio.sleep(_PAUSE)
        async for record in call.desk.audit.entries(query, after=last):
            yield line_of(record)
            last = record.id


_WANTED: Final = {
    **{name: Field("text") for name in ("tenant", "key", "session")},
    **{name: Field("time") for name in ("since", "until")},
}
AUDIT_ORDERS: Final = (
    Order("audit.export", "Who did what, oldest first.", _export, _WANTED, reads=True),
    Order(
        "audit.tail",
        "The newest entries, oldest first; with `follow` those that come, until the client leaves.",
        _tail,
        {**_WANTED, "number": Field("integer", default=20, least=1, most=1000), "follow": Field("flag", default=False)},
        reads=True,
    ),
)
