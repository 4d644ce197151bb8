"""How many of something there may be at once, such as containers, and the line of those who wait for one to go."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.domain.errors import BusyError
from orchestrator.domain.fair_line import FairLine
from orchestrator.services.tickets import Ticket as Ticket  # noqa: PLC0414 - who waits here has one

# Calls that may wait for a sandbox. Who stands behind so many is not served within the usual bound of the wait, so it
# is told at once; a tenant alone cannot fill the line.
WAITING_PER_TENANT = 64
WAITING_IN_ALL = 256


class Slot:
    """Room for one, such as a container from before it is created until it is proven gone."""

    def __init__(self, tenant: str | None, freed: Callable[["Slot"], None], shrunk: Callable[[], None]) -> None:
        self.tenant = tenant
        self._freed: Callable[[Slot], None] | None = freed
        self._shrunk: Callable[[], None] | None = shrunk

    @property
    def counts(self) -> bool:
        """Whether it takes room from others."""
        return self._shrunk is not None

    def make_room(self) -> None:
        """Take no room from others any more; it still counts as its tenant's until it is free. Idempotent."""
        shrunk, self._shrunk = self._shrunk, None
        if shrunk is not None:
            shrunk()

    def free(self) -> None:
        """Let somebody else have it. Idempotent."""
        freed, self._freed = self._freed, None
        if freed is not None:
            freed(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """One that waits."""

    tenant: str
    slot: "asyncio.Future[Slot | None]"


class Slots:
    """At most `limit` at a time. Who finds none waits for at most `wait` seconds, in a line that is fair to tenants.

    A tenant that has all that it may have waits for its own, and holds up nobody else.
    """

    def __init__(
        self,
        *,
        limit: int,
        wait: float,
        per_tenant: int = WAITING_PER_TENANT,
        in_all: int = WAITING_IN_ALL,
        what: str = "a sandbox",
    ) -> None:
        self._limit = limit
        self.wait = wait
        self._per_tenant = per_tenant
        self._what = what
        self._line: FairLine[_Turn] = FairLine(per_tenant=per_tenant, in_all=in_all)
        self._held_by: Counter[str | None] = Counter()
        self._most: dict[str, int | None] = {}  # of tenants that wait
        self.held = 0
        self.crowded = asyncio.Event()  # set while somebody waits

    @property
    def limit(self) -> int:
        """How many there may be at once."""
        return self._limit

    def resize(self, limit: int, wait: float) -> None:
        """Let there be so many from now on. Where there are more, they stay; who waits has the wait it began with."""
        self._limit, self.wait = limit, wait
        self._serve()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._line)

    @property
    def waiting_for_own(self) -> dict[str, int]:
        """How many calls of tenants wait that have all that they may have."""
        return {tenant: number for tenant, number in self._line.waiting.items() if not self._may(tenant)}

    def has_all(self, tenant: str, most: int | None) -> bool:
        """Whether that tenant has as many as it may."""
        return most is not None and self._held_by[tenant] >= most

    async def take(self, tenant: str, ticket: Ticket, *, most: int | None = None) -> Slot | None:
        """A slot, to be freed by the caller; None where none came free in time. The tenant may have `most` at once.

        Raises BusyError where too many wait, and where the ticket is given up. Whoever is cancelled has left the line
        and holds nothing.
        """
        # Whoever waits while there is room waits for its own tenant's.
        if self.held < self._limit and not self.has_all(tenant, most) and tenant not in self._line.waiting:
            return self.occupy(tenant)
        if ticket.given_up:
            raise self._given_up()
        self._require_room(tenant)
        turn = _Turn(tenant, asyncio.get_running_loop().create_future())
        self._most[tenant] = most
        self._line.join(tenant, turn, weight=ticket.terms.share.weight)
        self.crowded.set()
        ticket.waits(lambda: self._line.place(tenant, turn), lambda: self._leave(turn))
        try:
            await asyncio.wait([turn.slot], timeout=self.wait)
        except asyncio.CancelledError:
            if turn.slot.done() and (slot := turn.slot.result()) is not None:  # its turn came at the same moment
                slot.free()
            raise
        finally:
            self._leave(turn)
            ticket.waits_no_longer()
        slot = turn.slot.result()
        if slot is None and ticket.given_up:
            raise self._given_up()
        return slot

    def occupy(self, tenant: str | None = None) -> Slot:
        """Count one that is there, or one that may be made, whatever the limit says."""
        self.held += 1
        self._held_by[tenant] += 1
        return Slot(tenant, self._freed, self._shrunk)

    def _freed(self, slot: Slot) -> None:
        self._held_by[slot.tenant] -= 1
        if not self._held_by[slot.tenant]:
            del self._held_by[slot.tenant]
        if slot.counts:
            slot.make_room()
        else:
            self._serve()

    def _shrunk(self) -> None:
        self.held -= 1
        self._serve()

    def _serve(self) -> None:
        while self.held < self._limit and (turn := self._line.next(self._may)) is not None:
            turn.slot.set_result(self.occupy(turn.tenant))
        self._look_at_the_line()

    def _may(self, tenant: str) -> bool:
        return not self.has_all(tenant, self._most.get(tenant))

    def _leave(self, turn: "_Turn") -> None:
        self._line.leave(turn.tenant, turn)
        if turn.tenant not in self._line.waiting:
            self._most.pop(turn.tenant, None)
        if not turn.slot.done():
            turn.slot.set_result(None)
        self._look_at_the_line()

    def _look_at_the_line(self) -> None:
        if not self._line:
            self.crowded.clear()

    def _require_room(self, tenant: str) -> None:
        hint = "Wait for answers to other calls, then call again."
        match self._line.full_for(tenant):
            case "tenant":
                raise BusyError(f"{self._per_tenant} calls wait for {self._what} already.", hint=hint)
            case "all":
                raise BusyError(f"Too many calls wait for {self._what} already.", hint=hint)

    def _given_up(self) -> BusyError:
        return BusyError(f"The call was stopped while it waited for {self._what}.", hint="Call again.")
