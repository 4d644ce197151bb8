"""Sandboxes that live for a moment and run no user code: what is tried in them is the engine."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.engine.channel_probe import ChannelKind
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import SandboxRecord, SandboxState
from orchestrator.domain.ports import SandboxImage

THROWAWAY_UID: Final = 65_000
REMOVE_SECONDS: Final = 60.0

Launching = Callable[..., Awaitable[tuple[str, AgentChannel]]]


class Throwaways:
    """They are in no record, so each is removed here, whatever becomes of who wanted it.

    What a killed process has left of them bears the label of its installation, whose next owner removes it.
    """

    def __init__(self, launch: Launching, destroy: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._launch = launch
        self._destroy = destroy
        self._tidying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def one(
        self, image: SandboxImage, kind: ChannelKind, *, hello_seconds: float, profile: SandboxProfile | None = None
    ) -> AsyncGenerator[tuple[str, AgentChannel], None]:
        """Its handle and its agent, not claimed yet; `profile` where it is not to have the usual limits."""
        record = SandboxRecord(
            id=secrets.token_hex(16),
            state=SandboxState.CREATING,
            uid=THROWAWAY_UID,
            secret=secrets.token_hex(32),
            image=image.tag,
            handle=None,
            session=None,
            incarnation=0,
        )
        try:
            handle, agent = await self._launch(record, image, kind, hello_seconds=hello_seconds, profile=profile)
            try:
                yield handle, agent
            finally:
                await agent.close()
        finally:
            # Cancelled or not: what is not in the records, nobody else would remove.
            tidying = asyncio.create_task(self._destroy(record.id), name="throw-away-removal")
            self._tidying.add(tidying)
            tidying.add_done_callback(self._tidying.discard)
            await asyncio.shield(tidying)

    async def removed(self) -> None:
        """Wait until those that are being removed are gone; cancelled, it waits for none."""
        try:
            if self._tidying:
                await asyncio.wait(self._tidying, timeout=REMOVE_SECONDS)
        finally:
            for task in self._tidying:
                task.cancel()
