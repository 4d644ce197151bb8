"""What is known of a request while it is answered: who asks, from where, and whether anybody still listens."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from orchestrator.domain.access import Caller, Credentials
from orchestrator.domain.errors import OrchestratorError

logger = logging.getLogger(__name__)

IN_SCOPE: Final = "orchestrator.line"  # the key under which a request's line stands in its ASGI scope
UNAUTHORIZED: Final = 401
_POLL_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.5  # between looks whether the keys of open requests are still valid

_current: ContextVar["Line | None"] = ContextVar("line", default=None)


@dataclass(eq=False)
class Line:
    """One request, from its head to the end of its answer."""

    address: str
    path: str
    method: str
    task: "asyncio.Task[object] | None"
    caller: Caller | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # the peer has left, or was cut off
    cut: int = 0  # the status with which it was cut off, where no answer had begun
    held: float = 0.0  # seconds for which the SDK is not told that the peer has left

    def cut_off(self, status: int) -> None:
        """End the answer now; where it has not begun, with that status. Idempotent."""
        if not self.cut and self.task is not None:
            self.cut = status
            self.gone.set()
            self.task.cancel()

    async def left(self, grace: float, *, returns: bool) -> None:
        """Wait until the peer has been gone for so long, or was cut off. One that `returns` has that time also where
        leaving means to cancel.
        """
        self.held = grace if returns else 0.0
        await self.gone.wait()
        if not self.cut:
            await asyncio.sleep(grace)


def line_now() -> Line | None:
    """The line of the request that is being answered here."""
    return _current.get()


class Lines:
    """All requests that are being answered."""

    def __init__(self) -> None:
        self._open: set[Line] = set()
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, line: Line) -> Iterator[None]:
        """It counts as open within this block."""
        self._open.add(line)
        token = _current.set(line)
        try:
            yield
        finally:
            _current.reset(token)
            self._open.discard(line)
            self._fewer.set()

    async def watch(self, credentials: Credentials) -> None:
        """Cut off, for as long as this runs, the requests whose key is valid no more."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            callers = {line.caller for line in self._open if line.caller is not None}
            for caller in callers:
                if not await self._current(credentials, caller):
                    self.cut_off(UNAUTHORIZED, lambda line, caller=caller: line.caller == caller)  # type: ignore[misc]

    async def _current(self, credentials: Credentials, caller: Caller) -> bool:
        try:
            return await credentials.current(caller)
        except OrchestratorError as failure:  # nobody can say: new requests are refused, and those under way go on
            logger.warning("whether keys are still valid cannot be looked up: %s", failure)
            return True

    def cut_off(self, status: int, which: Callable[[Line], bool] = lambda _line: True) -> None:
        """End the answers to those requests."""
        for line in [line for line in self._open if which(line)]:
            line.cut_off(status)

    async def drained(self, seconds: float, hurried: asyncio.Event) -> None:
        """Wait until no request is open, at most so long, and no longer than until somebody is in a hurry."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._open and not hurried.is_set() and asyncio.get_running_loop().time() < deadline:
            self._fewer.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._fewer.wait()
