"""Sandboxes that an earlier owner has left alive, until their sessions have decided on them."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.domain.errors import BusyError, EngineUnavailableError
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import Agent, Engine

logger = logging.getLogger(__name__)

_REACHED_AT_ONCE = 8  # those that do not answer hold up the others for a moment only


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A claimed sandbox and the connection to its agent."""

    id: str
    agent: Agent
    environment: str  # digest of the one that it has, which may be another than was asked for
    python: str  # such as 3.11


class Survivors:
    """By the session that each was left to."""

    def __init__(self, engine: Engine, records: Sequence[SandboxRecord]) -> None:
        self._engine = engine
        self._survivors = {record.session or "": record for record in records}
        self._reaching = asyncio.Semaphore(_REACHED_AT_ONCE)

    @property
    def undecided(self) -> Collection[str]:
        """The sessions that were left a sandbox of which nobody knows yet whether it lives."""
        return tuple(self._survivors)

    def left_to(self, session: str) -> bool:
        """Whether that session is one of them."""
        return session in self._survivors

    async def adopt(self, session: str) -> Sandbox:
        """Reach the sandbox that was left to that session, and claim it again; `adopted` says that it is decided.

        A few at a time, first come, first served. Raises SandboxLostError where it does not live, which `give_up` then
        removes, and EngineUnavailableError where nobody can say.
        """
        record = self._survivors[session]
        async with self._reaching:
            environment, agent = await self._engine.adopt(record)
            try:
                await agent.claim(session, record.incarnation)
            except BaseException:
                await agent.close()
                raise
        return Sandbox(record.id, agent, environment, ".".join(agent.hello.python.split(".")[:2]))

    def adopted(self, session: str) -> None:
        """Its sandbox is in use like any other."""
        self._survivors.pop(session, None)

    async def is_outdated(self, sandbox: Sandbox) -> bool:
        """Whether a fresh one of the same environment would have another agent."""
        try:
            image = await self._engine.prepare(sandbox.environment)
        except (BusyError, EngineUnavailableError):
            return False  # not one that could take its place now
        return image.environment == sandbox.environment and image.agent != sandbox.agent.hello.agent

    async def let_go(self, sandbox: Sandbox) -> None:
        """Leave it alive, and its row as it is, for the next owner; it ends itself with its lease."""
        logger.info("sandbox %s is left alive to the next owner", sandbox.id)
        await sandbox.agent.close()

    def given_up(self, session: str) -> str:
        """What was left to that session is to be removed: its id."""
        return self._survivors.pop(session).id
