"""What the channel asks of a transport: a connected, proven socket that is safe for the loop."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.hardening import Channel
from orchestrator.domain.ports import AgentHello


class TransportError(Exception):
    """No proven connection came about. The text is a clause that says why."""


class UnreachableError(TransportError):
    """It could not even be tried, for something on our side or the engine's: it says nothing of the agent."""


class ContainerEndedError(TransportError):
    """The container does not run any more, and the engine knows why; `for_memory` where that was its memory limit."""

    def __init__(self, clause: str, *, for_memory: bool = False) -> None:
        super().__init__(clause)
        self.for_memory = for_memory


@dataclass(frozen=True, slots=True)
class Connection:
    """A proven connection: a non-blocking Unix stream socket at the first byte after the welcome."""

    sock: socket.socket
    hello: AgentHello
    heartbeat: float  # in seconds, as the agent was told

    def close(self) -> None:
        """Close the socket; may linger, so not on the loop unless the agent is trusted."""
        self.sock.close()


class Transport(Protocol):
    """How one sandbox's agent is reached."""

    @property
    def channel(self) -> Channel:
        """What the container spec has to know of it."""

    def open(self) -> None:
        """Make what must stand before the container is created. Blocking; idempotent."""

    def admit(self, pid: int) -> None:
        """Say which process of the host is the container's init (0: not known). Does not block."""

    def connect(self, deadline: float) -> Connection:
        """Wait for a proven connection until `deadline` (of time.monotonic). Blocking: runs in a disposable thread;
        one at a time. Raises TransportError.
        """

    def close(self) -> None:
        """End a `connect` that waits and refuse others. Does not block; idempotent; removes no directory."""

    def remove(self) -> None:
        """Take away what `open` made. Blocking; idempotent; only after the container is gone."""


def seconds_until(deadline: float) -> float:
    """How long is left, a little more than nothing at least: socket time-outs of 0 mean non-blocking."""
    return max(0.001, deadline - time.monotonic())


def passed(deadline: float) -> bool:
    """Whether it is over."""
    return time.monotonic() >= deadline


class Once:
    """Something that is given once and waited for by many threads."""

    def __init__(self) -> None:
        self._given = threading.Event()
        self._value = 0

    def give(self, value: int) -> None:
        """Give it; only the first one counts."""
        if not self._given.is_set():
            self._value = value
            self._given.set()

    def wait(self, deadline: float, stopped: Callable[[], bool]) -> int | None:
        """The value, or None when the deadline or `stopped` came first."""
        while not self._given.wait(min(0.1, seconds_until(deadline))):
            if passed(deadline) or stopped():
                return None
        return self._value
