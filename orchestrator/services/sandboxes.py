"""Sandboxes from their row to their row's end: written before the container exists, closed when it is proven absent."""

import asyncio
import logging
from dataclasses import dataclass

from orchestrator.domain.errors import BusyError, OrchestratorError, SandboxLostError
from orchestrator.domain.model import SandboxRecord, SandboxState
from orchestrator.domain.ports import Agent, Engine, Records
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

# Between tries to remove a container that the engine does not let go of, in seconds; the last one repeats.
_REMOVAL_PAUSES = (0.5, 2.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A claimed sandbox and the connection to its agent."""

    id: str
    agent: Agent


class Sandboxes:
    """Makes and ends sandboxes; at most `limit` at a time, each for one session or one stateless call."""

    def __init__(self, records: Records, engine: Engine, tasks: Tasks, *, limit: int) -> None:
        self._records = records
        self._engine = engine
        self._tasks = tasks
        self._limit = limit
        self._live = 0
        self._removals: set[asyncio.Task[None]] = set()

    async def start(self, session: str | None, incarnation: int) -> Sandbox:
        """A fresh sandbox, claimed by that session's incarnation or (None) by a stateless call.

        Raises BusyError where the limit is reached, EngineUnavailableError, StoreFullError. Whatever was begun when it
        fails or is cancelled is removed in the background.
        """
        if self._live >= self._limit:
            raise BusyError(
                f"All {self._limit} sandboxes are in use.",
                hint="Delete a session that is no longer needed, or try again when one has ended.",
            )
        self._live += 1
        try:
            return await self._start(session, incarnation)
        except BaseException:
            self._live -= 1
            raise

    async def _start(self, session: str | None, incarnation: int) -> Sandbox:
        image = await self._engine.prepare()
        record = await self._records.open_sandbox(image.tag)
        agent: Agent | None = None
        try:
            handle, agent = await self._engine.launch(record, image)
            await self._claim(record, handle, agent, session, incarnation)
        except BaseException:
            self._remove(record.id, agent, SandboxState.FAILED)
            raise
        return Sandbox(record.id, agent)

    async def _claim(
        self, record: SandboxRecord, handle: str, agent: Agent, session: str | None, incarnation: int
    ) -> None:
        created = await self._records.sandbox_created(record.id, handle)
        if not created or not await self._records.sandbox_claimed(record.id, session, incarnation):
            raise SandboxLostError("The sandbox was taken away while it was being made.", hint="Try again.")
        await agent.claim(session or record.id, incarnation)

    def end(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Destroy it in the background; call it once for each sandbox that was started."""
        self._live -= 1
        return self._remove(sandbox.id, sandbox.agent, SandboxState.DESTROYING)

    async def removed(self) -> None:
        """Wait until all that is being removed is gone."""
        while self._removals:
            await asyncio.wait(self._removals)

    async def remove_leftovers(self) -> None:
        """Remove what an earlier owner left, by record and by label. May be called at any time.

        Raises EngineUnavailableError where the engine cannot be asked.
        """
        for record in await self._records.sandboxes():
            if record.state in (SandboxState.FAILED, SandboxState.DESTROYING):
                self._remove(record.id, None, SandboxState.DESTROYING)
        # The engine first: a row is written before its container is made, so what has none by now has lost it.
        containers = await self._engine.containers()
        known = {record.id for record in await self._records.sandboxes()}
        for container in containers:
            if container.sandbox_id not in known and not container.launched_here:
                await self._engine.destroy(container.sandbox_id)

    def _remove(self, sandbox_id: str, agent: Agent | None, state: SandboxState) -> asyncio.Task[None]:
        removal = self._tasks.spawn(self._remove_until_gone(sandbox_id, agent, state), f"remove {sandbox_id[:8]}")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        return removal

    async def _remove_until_gone(self, sandbox_id: str, agent: Agent | None, state: SandboxState) -> None:
        if agent is not None:
            await agent.close()
        attempt = 0
        while True:
            try:
                if state is SandboxState.FAILED:
                    await self._records.sandbox_ending(sandbox_id, SandboxState.FAILED)
                await self._records.sandbox_ending(sandbox_id, SandboxState.DESTROYING)
                await self._engine.destroy(sandbox_id)
                await self._records.close_sandbox(sandbox_id)
            except OrchestratorError as error:
                if attempt == 0:
                    logger.warning("sandbox %s cannot be removed yet: %s", sandbox_id, error)
                await asyncio.sleep(_REMOVAL_PAUSES[min(attempt, len(_REMOVAL_PAUSES) - 1)])
                attempt += 1
            else:
                return
