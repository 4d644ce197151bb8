"""Who is next, where calls of several tenants wait for one of a number of like things. Pure.

Weighted round robin over the tenants that wait, first come, first served within each: a burst of one tenant costs
another no more than its turn in the round, and one of weight 2 has two turns where one of weight 1 has one.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


class _Line(Generic[T]):
    """Those of one tenant, and when the first of them is due, by the line's own time, which turns move on."""

    def __init__(self, due: float, joined: int, weight: float) -> None:
        self.due = due
        self.joined = joined  # tells apart what is due at once
        self.weight = weight
        self.waiting: deque[T] = deque()


class FairLine(Generic[T]):
    """At most `per_tenant` wait for each tenant, and `in_all` together. Who waits is told apart by identity."""

    def __init__(self, *, per_tenant: int, in_all: int) -> None:
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._lines: dict[str, _Line[T]] = {}  # a tenant is there while it waits
        self._now = 0.0  # when the last turn was due
        self._last_due: dict[str, float] = {}  # of tenants that had turns and do not wait, where that is yet to come
        self._joined = 0

    def __len__(self) -> int:
        return sum(len(line.waiting) for line in self._lines.values())

    @property
    def waiting(self) -> dict[str, int]:
        """How many wait, by tenant."""
        return {tenant: len(line.waiting) for tenant, line in self._lines.items()}

    def full_for(self, tenant: str) -> Literal["tenant", "all"] | None:
        """Whose bound keeps another one of that tenant from waiting; None where there is room."""
        if self.waiting.get(tenant, 0) >= self._per_tenant:
            return "tenant"
        return "all" if len(self) >= self._in_all else None

    def join(self, tenant: str, one: T, *, weight: float = 1.0) -> None:
        """Wait, as the last one of that tenant; a tenant that did not wait yet comes last in the round."""
        line = self._lines.get(tenant)
        if line is None:
            due = max(self._now, self._last_due.pop(tenant, 0.0)) + 1 / weight
            line = self._lines[tenant] = _Line(due, self._next_number(), weight)
        line.weight = weight
        line.waiting.append(one)

    def leave(self, tenant: str, one: T) -> None:
        """Wait no longer. Who does not wait may leave, too."""
        line = self._lines.get(tenant)
        if line is not None and one in line.waiting:
            line.waiting.remove(one)
            if not line.waiting:
                del self._lines[tenant]

    def next(self, may: Callable[[str], bool] = lambda _tenant: True) -> T | None:
        """Who has its turn now, of the tenants that may have one, and waits no longer; None where there is nobody."""
        able = [(line.due, line.joined, tenant) for tenant, line in self._lines.items() if may(tenant)]
        if not able:
            return None
        due, _, tenant = min(able)
        line = self._lines[tenant]
        one = line.waiting.popleft()
        self._now = max(self._now, due)
        if line.waiting:
            line.due, line.joined = _due_again(due, line.weight, self._now), self._next_number()
        else:
            del self._lines[tenant]
            self._last_due[tenant] = due
        self._last_due = {name: at for name, at in self._last_due.items() if at > self._now}
        return one

    def place(self, tenant: str, one: T) -> int | None:
        """How many turns it is until its own, that one counted, as the line stands now and if all may have theirs; None
        for who does not wait.
        """
        if tenant not in self._lines or one not in self._lines[tenant].waiting:
            return None
        ahead = self._lines[tenant].waiting.index(one)  # of its own tenant's
        rounds = {name: (line.due, line.joined) for name, line in self._lines.items()}
        left = self.waiting
        now, joined, turns = self._now, self._joined, 0
        while True:
            turns += 1
            name = min(rounds, key=rounds.__getitem__)
            if name == tenant:
                if not ahead:
                    return turns
                ahead -= 1
            due, joined = rounds[name][0], joined + 1
            now = max(now, due)
            left[name] -= 1
            if left[name]:
                rounds[name] = _due_again(due, self._lines[name].weight, now), joined
            else:
                del rounds[name]

    def _next_number(self) -> int:
        self._joined += 1
        return self._joined


def _due_again(due: float, weight: float, now: float) -> float:
    """When the next one of a tenant is due. What it could not have for a while is not made up for in a burst."""
    return max(due + 1 / weight, now)
