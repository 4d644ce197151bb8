"""Orders of operators: each is data with a function, found by its name; who may give it and what it takes is checked
here, once for the socket, for HTTP and for a command that owns the directory itself.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orchestrator.domain.access import LOCAL_CALLER, SCOPES, Caller
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.orders import Answer, Field, checked
from orchestrator.domain.ports import Records
from orchestrator.domain.session_lists import SessionLists
from orchestrator.domain.snapshot_ports import SnapshotRecords
from orchestrator.domain.store_care import StoreCare
from orchestrator.services.auditing import Auditing
from orchestrator.services.capsules import Capsules
from orchestrator.services.history import Histories
from orchestrator.services.reaping import Reaping
from orchestrator.services.sessions import Sessions
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.services.tenants import Tenants

Basis = Literal["records", "whole"]
Given = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """What an owner has beside the records who has opened everything."""

    sessions: Sessions
    histories: Histories
    on_behalf: Callable[[Caller], TenantSessions]
    ready: Callable[[], Awaitable[Mapping[str, bool]]]
    reaping: Reaping
    capsules: Capsules
    store: StoreCare


@dataclass(frozen=True, slots=True)
class Desk:
    """What orders work with."""

    tenants: Tenants
    audit: Auditing
    records: Records
    snapshots: SnapshotRecords
    lists: SessionLists
    opened: Whole | None = None  # None: of a light owner, who has opened the records alone

    @property
    def whole(self) -> Whole:
        """For orders whose basis is that. Raises InvalidRequestError at a light owner."""
        if self.opened is None:
            raise InvalidRequestError("This order takes more than the records, which alone are open here.")
        return self.opened


@dataclass(frozen=True, slots=True)
class Call:
    """One order that is being carried out."""

    desk: Desk
    given: Given  # checked: every field that the order takes is there
    by: Caller
    chunks: AsyncIterator[bytes]  # what the client sends, for an order that takes a stream

    async def of_tenant(self) -> TenantSessions:
        """The sessions of the tenant that is given, as the operator uses them: within its quotas, and audited."""
        tenant = await self.desk.tenants.find(self.given["tenant"])
        return self.desk.whole.on_behalf(replace(self.by, tenant=tenant.id, scopes=frozenset(SCOPES)))


@dataclass(frozen=True, slots=True)
class Order:
    """What can be ordered.

    `reads`: it changes nothing, so that whoever may only look may give it. `basis`: `records` where a light owner can
    carry it out, `whole` where it takes engine and sessions. `carry_out` is an async generator: leaving it early or
    cancelling it ends the order. A stream in either direction comes in chunks of at most MAX_CHUNK_BYTES.
    """

    name: str  # noun and verb with a dot between
    about: str
    carry_out: Callable[[Call], AsyncGenerator[Answer, None]]
    takes: Mapping[str, Field] = field(default_factory=dict)
    reads: bool = False
    basis: Basis = "records"
    takes_stream: bool = False
    gives_stream: bool = False


class Operations:
    """What operators may order of one owner, who is light or `whole`."""

    def __init__(self, orders: Sequence[Order], desk: Desk) -> None:
        self._orders = {order.name: order for order in orders}
        self._desk = desk

    def find(self, name: str) -> Order:
        """Raises InvalidRequestError where there is none."""
        order = self._orders.get(name)
        if order is None:
            raise InvalidRequestError(
                f"There is no order {name[:64]!r}.", hint="An owner of another version may know it; see docs/admin.md."
            )
        return order

    async def answers(
        self,
        name: str,
        given: Mapping[str, object],
        *,
        by: Caller = LOCAL_CALLER,
        chunks: AsyncIterator[bytes] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Carry out one order. Raises InvalidRequestError, PermissionDeniedError, and what the order raises."""
        by.require("admin")
        order = self.find(name)
        wanted = checked(name, order.takes, given)
        if order.basis == "whole":
            _ = self._desk.whole  # or it is refused before anything is done
        call = Call(self._desk, wanted, by, chunks if chunks is not None and order.takes_stream else _nothing())
        async with aclosing(order.carry_out(call)) as answers:
            async for answer in answers:
                yield answer


async def _nothing() -> AsyncIterator[bytes]:
    no_chunks: tuple[bytes, ...] = ()
    for chunk in no_chunks:
        yield chunk
