"""Who is next, where calls of several tenants wait for one of a number of like things. Pure.

Round robin over the tenants that wait, first come, first served within each: a burst of one tenant costs another no
more than its turn in the round.
"""

from collections import deque
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


class FairLine(Generic[T]):
    """At most `per_tenant` wait for each tenant, and `in_all` together. Who waits is told apart by identity."""

    def __init__(self, *, per_tenant: int, in_all: int) -> None:
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._waiting: dict[str, deque[T]] = {}  # in the order of the round; a tenant is there while it waits

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def full_for(self, tenant: str) -> Literal["tenant", "all"] | None:
        """Whose bound keeps another one of that tenant from waiting; None where there is room."""
        if len(self._waiting.get(tenant, ())) >= self._per_tenant:
            return "tenant"
        return "all" if len(self) >= self._in_all else None

    def join(self, tenant: str, one: T) -> None:
        """Wait, as the last one of that tenant; a tenant that did not wait yet comes last in the round."""
        self._waiting.setdefault(tenant, deque()).append(one)

    def leave(self, tenant: str, one: T) -> None:
        """Wait no longer. Who does not wait may leave, too."""
        line = self._waiting.get(tenant)
        if line is not None and one in line:
            line.remove(one)
            if not line:
                del self._waiting[tenant]

    def next(self) -> T | None:
        """Who has its turn now, and waits no longer; its tenant goes to the end of the round."""
        if not self._waiting:
            return None
        tenant = next(iter(self._waiting))
        line = self._waiting.pop(tenant)
        one = line.popleft()
        if line:
            self._waiting[tenant] = line
        return one

    def place(self, tenant: str, one: T) -> int | None:
        """How many turns it is until its own, that one counted, as the line stands now; None for who does not wait."""
        if tenant not in self._waiting or one not in self._waiting[tenant]:
            return None
        rounds = self._waiting[tenant].index(one)  # that go by before the one in which it has its turn
        turns, comes_before = rounds + 1, True
        for other, line in self._waiting.items():
            if other == tenant:
                comes_before = False
            else:
                turns += min(len(line), rounds + comes_before)
        return turns
