"""How many containers there may be at once, and the line of those who wait for one to go."""

import asyncio
from collections.abc import Callable

from orchestrator.domain.errors import BusyError
from orchestrator.domain.fair_line import FairLine

# Calls that may wait for a sandbox. Who stands behind so many is not served within the usual bound of the wait, so it
# is told at once; a tenant alone cannot fill the line.
WAITING_PER_TENANT = 64
WAITING_IN_ALL = 256


class Ticket:
    """One call's way to a sandbox: where it stands in the line, and how its waiting is ended from outside."""

    def __init__(self) -> None:
        self._place: Callable[[], int | None] | None = None
        self._leave: Callable[[], None] | None = None
        self._given_up = False

    @property
    def place(self) -> int | None:
        """How many turns it is until its own, that one counted; None while it does not wait."""
        return None if self._place is None else self._place()

    @property
    def given_up(self) -> bool:
        """Whether it was asked to wait no longer."""
        return self._given_up

    def give_up(self) -> None:
        """Wait no longer, now and from now on; a slot that it has is not touched. Returns at once. Idempotent."""
        self._given_up = True
        if self._leave is not None:
            self._leave()

    def waits(self, place: Callable[[], int | None], leave: Callable[[], None]) -> None:
        """It has joined a line."""
        self._place, self._leave = place, leave

    def waits_no_longer(self) -> None:
        """It has left that, with its turn or without."""
        self._place = self._leave = None


class Slot:
    """Room for one container, from before it is created until it is proven gone."""

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed: Callable[[], None] | None = freed

    def free(self) -> None:
        """Let somebody else have it. Idempotent."""
        freed, self._freed = self._freed, None
        if freed is not None:
            freed()


class Slots:
    """At most `limit` at a time. Who finds none waits for at most `wait` seconds, in a line that is fair to tenants."""

    def __init__(
        self,
        *,
        limit: int,
        wait: float,
        per_tenant: int = WAITING_PER_TENANT,
        in_all: int = WAITING_IN_ALL,
    ) -> None:
        self._limit = limit
        self.wait = wait
        self._per_tenant = per_tenant
        self._line: FairLine[asyncio.Future[Slot | None]] = FairLine(per_tenant=per_tenant, in_all=in_all)
        self.held = 0
        self.crowded = asyncio.Event()  # set while somebody waits

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._line)

    async def take(self, tenant: str, ticket: Ticket) -> Slot | None:
        """A slot, to be freed by the caller; None where none came free in time.

        Raises BusyError where too many wait, and where the ticket is given up. Whoever is cancelled has left the line
        and holds nothing.
        """
        if self.held < self._limit and not self._line:
            return self.occupy()
        if ticket.given_up:
            raise _given_up()
        self._require_room(tenant)
        turn: asyncio.Future[Slot | None] = asyncio.get_running_loop().create_future()
        self._line.join(tenant, turn)
        self.crowded.set()
        ticket.waits(lambda: self._line.place(tenant, turn), lambda: self._leave(tenant, turn))
        try:
            await asyncio.wait([turn], timeout=self.wait)
        except asyncio.CancelledError:
            if turn.done() and (slot := turn.result()) is not None:  # its turn came at the same moment
                slot.free()
            raise
        finally:
            self._leave(tenant, turn)
            ticket.waits_no_longer()
        slot = turn.result()
        if slot is None and ticket.given_up:
            raise _given_up()
        return slot

    def occupy(self) -> Slot:
        """Count a container that is there, or one that may be made, whatever the limit says."""
        self.held += 1
        return Slot(self._freed)

    def _freed(self) -> None:
        self.held -= 1
        while self.held < self._limit and (turn := self._line.next()) is not None:
            turn.set_result(self.occupy())
        self._look_at_the_line()

    def _leave(self, tenant: str, turn: "asyncio.Future[Slot | None]") -> None:
        self._line.leave(tenant, turn)
        if not turn.done():
            turn.set_result(None)
        self._look_at_the_line()

    def _look_at_the_line(self) -> None:
        if not self._line:
            self.crowded.clear()

    def _require_room(self, tenant: str) -> None:
        hint = "Wait for answers to other calls, then call again."
        match self._line.full_for(tenant):
            case "tenant":
                raise BusyError(f"{self._per_tenant} calls wait for a sandbox already.", hint=hint)
            case "all":
                raise BusyError("Too many calls wait for a sandbox already.", hint=hint)


def _given_up() -> BusyError:
    return BusyError("The call was stopped while it waited for a sandbox.", hint="Call again.")
