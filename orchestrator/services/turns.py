"""Who may run now: a place among the executions that may run at once, by the weight of its tenant."""

import asyncio

from orchestrator.domain.errors import BusyError
from orchestrator.domain.quotas import exceeded
from orchestrator.services.slots import Slot, Slots
from orchestrator.services.tickets import Ticket, Turn


class RunningTurn(Turn):
    """The turn of one call. After `seconds` it is over for the others, who must not wait for an hour, though it runs
    on; for its tenant it counts until it has ended.
    """

    def __init__(self, slots: Slots, tenant: str, ticket: Ticket, seconds: float) -> None:
        self._slots = slots
        self._tenant = tenant
        self._ticket = ticket
        self._seconds = seconds
        self._slot: Slot | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        """Wait for it."""
        if self._slot is not None:
            return
        most = self._ticket.terms.share.running
        slot = await self._slots.take(self._tenant, self._ticket, most=most)
        if slot is None and most is not None and self._slots.has_all(self._tenant, most):
            raise exceeded("running", most, most)
        if slot is None:
            raise BusyError(
                f"As many executions run as may, and none has ended within {self._slots.wait:g} s.",
                hint="Try again when other calls have ended.",
            )
        self._slot = slot
        self._timer = asyncio.get_running_loop().call_later(self._seconds, slot.make_room)

    def over(self) -> None:
        """Let somebody else have it."""
        slot, self._slot = self._slot, None
        if self._timer is not None:
            self._timer.cancel()
        if slot is not None:
            slot.free()
