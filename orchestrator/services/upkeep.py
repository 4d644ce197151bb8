"""What plans do to sessions and sandboxes that are not in use, each in its session's turn."""

import asyncio
import logging
from typing import Final

from orchestrator.domain.ageing import Age, AgedSession
from orchestrator.domain.asides import DropAside
from orchestrator.domain.errors import SessionDeletedError, SessionNotFoundError
from orchestrator.domain.model import SessionState
from orchestrator.domain.ports import Engine
from orchestrator.domain.strays import FinishDelete, Mend, RemoveContainer, RemoveSandbox, SetAside
from orchestrator.domain.upkeep import Chore
from orchestrator.services.about import about
from orchestrator.services.equipment import Equipment
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.jobs import Job
from orchestrator.services.live_session import LiveSession
from orchestrator.services.sessions import Sessions

logger = logging.getLogger(__name__)

DESTROYING: Final = SessionState.DESTROYING


class Upkeep:
    """Carries out one action at a time. Each may be cancelled anywhere, and done again."""

    def __init__(self, sessions: Sessions, engine: Engine, equipment: Equipment) -> None:
        self._sessions = sessions
        self._engine = engine
        self._records = equipment.upkeep
        self._pieces = equipment.pieces
        self._sandboxes = equipment.sandboxes

    async def carry_out(self, action: Chore) -> None:
        """Do it, unless something came between. Raises what stood in the way."""
        match action:
            case Age():
                await self._age(action)
            case Mend():
                await self._mend(action)
            case FinishDelete():
                if any(row.key == action.key and row.state is DESTROYING for row in await self._records.between()):
                    await self._sessions.finish_delete(action.key)
            case RemoveSandbox():
                if action.sandbox in await self._records.held_sandboxes():
                    await asyncio.wait([self._sandboxes.remove(action.sandbox.id)])
            case RemoveContainer():
                await self._engine.destroy(action.sandbox_id)
            case SetAside():
                await self._pieces.set_aside([action.key])
            case DropAside():
                await self._pieces.drop_aside(action.path)

    async def _age(self, action: Age) -> None:
        seen, target = action.session, action.target
        live = await self._find(seen.tenant, seen.session_id, seen.key)
        if live is None:
            return

        async def in_turn(job: Job[bool], _: Incarnation) -> bool:
            changed = not job.stopped and await self._records.age(seen, target)
            return await self._ended(live, seen, job) if changed and target is DESTROYING else changed

        try:
            done = await live.in_turn(in_turn)
        except SessionDeletedError:
            done = True
        if done and target is DESTROYING:
            logger.info("deleted: %s", action.why, extra=about(seen.key))
            await self._sessions.finish_delete(seen.key)

    async def _ended(self, live: LiveSession, seen: AgedSession, job: Job[bool]) -> bool:
        """The record says that it is being destroyed, and nothing is removed yet: a call that came meanwhile wins."""
        if job.stopped and await self._records.spare(seen):
            return False
        # No await from this look on: whoever calls now finds no session, and begins a new one.
        live.gone(SessionDeletedError("The session was deleted for its age.", hint="Call again to begin a new one."))
        return True

    async def _mend(self, action: Mend) -> None:
        live = await self._find(action.tenant, action.session_id, action.key)
        if live is None:
            return

        async def in_turn(_: Job[None], incarnation: Incarnation) -> None:
            await incarnation.mend()
            if await self._records.abandon_executions(action.key, live.session.incarnation):
                logger.warning("%s", action.why, extra=about(action.key))

        await live.in_turn(in_turn)

    async def _find(self, tenant: str, session_id: str, key: str) -> LiveSession | None:
        try:
            live = await self._sessions.find(session_id, tenant=tenant)
        except SessionNotFoundError:
            return None
        return live if live.session.key == key else None
