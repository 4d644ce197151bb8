"""Engine calls off the loop: each in a daemon thread of its own, so many at once, each bounded.

A time-out ends the waiting and not the call: the thread is abandoned, and counted until it ends.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.domain.errors import EngineUnavailableError

T = TypeVar("T")

MAX_ABANDONED: Final = 16
_HINT = "The engine seems stuck; look at its log or restart it."


class Lane:
    """At most `limit` calls at a time; others wait their turn, first come first served."""

    def __init__(self, name: str, *, limit: int) -> None:
        self._name = name
        self._slots = asyncio.Semaphore(limit)
        self._abandoned = 0

    async def call(
        self,
        function: Callable[[], T],
        *,
        seconds: float,
        doing: str,
        began: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> T:
        """Its result, within `seconds` with the waiting for a turn. Raises EngineUnavailableError after that.

        `began` is given the call's own future, which is done when the call itself is, waited for or not.
        """
        deadline = time.monotonic() + seconds
        if self._abandoned > MAX_ABANDONED:
            raise EngineUnavailableError(f"{doing} was not tried: {self._abandoned} calls hang.", hint=_HINT)
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise EngineUnavailableError(f"{doing} did not get its turn within {seconds:g} s.", hint=_HINT) from None
        call = in_thread(function, f"engine-{self._name}")
        if began is not None:
            began(call)
        try:
            await asyncio.wait({call}, timeout=max(0.0, deadline - time.monotonic()))
        finally:
            self._slots.release()
            if not call.done():
                self._abandoned += 1
                call.add_done_callback(self._ended_late)
        if not call.done():
            raise EngineUnavailableError(f"{doing} did not end within {seconds:g} s.", hint=_HINT)
        return call.result()

    def _ended_late(self, _call: asyncio.Future[T]) -> None:
        self._abandoned -= 1
