"""How much room calls that wait need, and what is said where they got none. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.domain.errors import BusyError, OrchestratorError
from orchestrator.domain.quotas import exceeded
from orchestrator.services.slots import Slot, Slots


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many sandboxes must end for those who wait now."""

    of_any: int
    of_own: Mapping[str, int]  # of tenants that have all that they may have

    @property
    def nothing(self) -> bool:
        """Whether nobody waits in vain."""
        return self.of_any <= 0 and not any(number > 0 for number in self.of_own.values())


def wanted(slots: Slots, ending: Iterable[Slot]) -> Wanted:
    """What is wanted beside the slots that are just coming free."""
    coming = Counter(slot.tenant for slot in ending)
    own = slots.waiting_for_own
    return Wanted(
        slots.waiting - sum(own.values()) - coming.total(),
        {tenant: number - coming[tenant] for tenant, number in own.items()},
    )


def refused(slots: Slots, limit: int, tenant: str, most: int | None, stuck: int) -> OrchestratorError:
    """Why a call has got no sandbox; `stuck` are those that the engine has not removed."""
    if most is not None and slots.has_all(tenant, most):
        return exceeded("live_sandboxes", most, most)
    held = f" The engine has not removed {stuck} of them yet." if stuck else ""
    return BusyError(
        f"All {limit} sandboxes are in use, and none came free within {slots.wait:g} s.{held}",
        hint="Try again when other calls have ended: a session in which nothing runs makes room by itself.",
    )
