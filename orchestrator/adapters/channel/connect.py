"""Waits for a transport's next proven connection, as long as the container runs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from orchestrator.adapters.channel.disposable_threads import abandon, in_thread
from orchestrator.adapters.channel.transport import Connection, Transport, TransportError
from orchestrator.domain.errors import EngineUnavailableError

_PAUSES_SECONDS: Final = (0.0, 0.1, 0.4, 1.0)  # between looks at the container; the last one repeats


async def connected(transport: Transport, *, seconds: float, is_running: Callable[[], Awaitable[bool]]) -> Connection:
    """The connection; a container that is dead ends the waiting at once. Raises TransportError."""
    deadline = time.monotonic() + seconds
    connecting = in_thread(lambda: transport.connect(deadline), "agent-connect", discard=Connection.close)
    try:
        # The second more is the thread's, for ending by itself with a better reason.
        return await _while_running(connecting, deadline + 1, is_running)
    except BaseException:
        abandon(connecting, Connection.close)
        raise


async def _while_running(
    connecting: asyncio.Future[Connection], deadline: float, is_running: Callable[[], Awaitable[bool]]
) -> Connection:
    pauses = iter(_PAUSES_SECONDS)
    pause = next(pauses)
    while time.monotonic() < deadline:
        await asyncio.wait({connecting}, timeout=pause)
        if connecting.done():
            return connecting.result()
        if not await _seems_running(is_running):
            raise TransportError("its container does not run any more")
        pause = next(pauses, pause)
    raise TransportError("its agent did not come back")


async def _seems_running(is_running: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await is_running()
    except EngineUnavailableError:
        return True  # an engine that does not answer proves nothing
