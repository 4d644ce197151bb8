"""What can go wrong with a pretended agent, at a point that the test names."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from orchestrator.domain.errors import NamespaceLostError
from orchestrator.domain.snapshots import SaveFailedError


class Sufferer(Protocol):
    """What a fault may do to an agent."""

    namespace: dict[str, object]
    savepoint: tuple[int, dict[str, object]] | None
    fresh: bool
    restored: bool
    abandoned: bool

    @property
    def lost(self) -> str | None: ...

    def lose(self, why: str) -> None: ...

    def require_alive(self) -> None: ...


# What happens at a named point, once: "execute", "clear", "save", "piece", "report", "restore namespace", "taken", …
Fault = Callable[[Sufferer], Awaitable[None]]


async def fail(_: Sufferer) -> None:
    raise SaveFailedError("The sandbox could not do it.")


async def lose(agent: Sufferer) -> None:
    agent.lose("its container was removed")
    agent.require_alive()


async def vanish(agent: Sufferer) -> None:
    """The worker is gone, and with it the namespace."""
    agent.namespace, agent.fresh, agent.restored = {}, True, False
    raise NamespaceLostError("The worker is gone.", cause="its process ended between two cells")


async def fall_back(agent: Sufferer) -> None:
    """The worker is gone, and its copy has taken over."""
    assert agent.savepoint is not None
    execution, agent.namespace = agent.savepoint[0], dict(agent.savepoint[1])
    raise NamespaceLostError("The worker is gone.", cause="its process ended between two cells", resumed=execution)


class Hang:
    """Stays there until it is let go, the sandbox is lost, or what it is part of is abandoned.

    A deaf one does not even end with these.
    """

    def __init__(self, *, deaf: bool = False) -> None:
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self._deaf = deaf

    async def __call__(self, agent: Sufferer) -> None:
        self.entered.set()
        while not self.go.is_set() and (self._deaf or not (agent.lost or agent.abandoned)):  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # one look for three ends
        agent.require_alive()


class Faults:
    """What is to happen at which point; each once, in their order."""

    def __init__(self) -> None:
        self._at: dict[str, list[Fault]] = {}
        self.each: Callable[[], Awaitable[None]] | None = None  # at every point

    def at(self, point: str, *faults: Fault) -> None:
        self._at.setdefault(point, []).extend(faults)

    def next(self, point: str) -> Fault | None:
        waiting = self._at.get(point)
        return waiting.pop(0) if waiting else None
