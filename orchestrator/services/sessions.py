"""What can be done with sessions: the one object behind the MCP server, the library and the command line."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from orchestrator.domain.ageing import expiry_of
from orchestrator.domain.errors import OrchestratorError, SessionDeletedError, StoreUnusableError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.model import (
    LOCAL_TENANT,
    CellText,
    ExecutionResult,
    Namespace,
    Session,
    SessionState,
    SessionSummary,
)
from orchestrator.domain.ports import Engine
from orchestrator.services.about import about
from orchestrator.services.checks import check_code, not_found, shutting_down, time_limit_of
from orchestrator.services.equipment import Equipment
from orchestrator.services.jobs import Job, carry_out
from orchestrator.services.live_session import LiveSession
from orchestrator.services.stateless import Stateless
from orchestrator.services.tasks import Patience
from orchestrator.services.tickets import Ticket

logger = logging.getLogger(__name__)

STOP_SECONDS = 20.0  # that a close may take
_SAVING_SHARE = 0.7  # of the time that a close may take, for saving
_ABORT_PATIENCE = 5.0  # seconds for calls that were cut short
_ADOPTION_PAUSE = 10.0  # seconds between tries to reach sandboxes of an earlier owner
_DELETE_PATIENCE = 15.0  # seconds that a delete waits for the engine; the rest happens behind it


class Sessions:
    """Sessions of all tenants: created on first use, serial each, parallel to one another."""

    def __init__(self, engine: Engine, equipment: Equipment) -> None:
        self._engine = engine
        self._equipment = equipment
        self._records = equipment.records
        self._upkeep = equipment.upkeep
        self._pieces = equipment.pieces
        self._sandboxes = equipment.sandboxes
        self._tasks = equipment.tasks
        self._clock = equipment.clock
        self._limits = equipment.limits
        self._live: dict[tuple[str, str], LiveSession] = {}
        self._stateless = Stateless(equipment)
        self._ending: set[str] = set()  # keys of sessions that are just being deleted
        self._closing = False

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the cell, enforced in the sandbox
        tenant: str = LOCAL_TENANT,
        ticket: Ticket | None = None,
    ) -> ExecutionResult:
        """Run a cell in that session, made on first use; without a session id in a fresh sandbox of its own.

        `timeout` is in seconds of running, from above 0 to 3600 (None: 60). A cell that fails is a result with an
        `error`. Raises InvalidRequestError, BusyError, QuotaError, SessionDeletedError, EngineUnavailableError,
        StoreFullError and ShuttingDownError where none ran. Cancelling interrupts the cell. The `ticket` tells where
        the call stands while it waits for a sandbox.
        """
        self._check_open()
        check_code(code, self._limits)
        time_limit = time_limit_of(timeout, self._limits)
        ticket = ticket or Ticket()
        if not session_id:
            return await self._stateless.execute(code, time_limit, tenant, ticket)
        live = await self._use(tenant, session_id_of(session_id), ticket.terms.sessions)
        return await live.execute(code, time_limit, ticket)

    async def list_variables(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> Namespace:
        """What the session's namespace holds; while a call runs or waits, what is known of it without asking.

        A sleeping session is not woken. Raises SessionNotFoundError.
        """
        live = await self.find(session_id, tenant=tenant)
        return await live.list_variables()

    async def list_sessions(self, *, tenant: str = LOCAL_TENANT) -> Sequence[SessionSummary]:
        """The tenant's sessions that have not expired, oldest first; none is woken or waited for."""
        found, unused = await self._records.sessions(tenant), await self._upkeep.unused(tenant)
        now, policy = self._clock.now(), self._limits.ageing
        return [
            SessionSummary(
                session_id=session.session_id,
                created_at=session.created_at,
                variable_count=session.variable_count,
                total_executions=session.executions,
                state=session.state,
                last_used_at=session.used_at,
                saved_through=session.saved_through or None,
                expires_at=expiry_of(session.used_at, unused.get(session.key, 0.0), now, policy),
            )
            for session in found
        ]

    async def interrupt(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> bool:
        """Have the call end early that runs in the session; whether one does. Raises SessionNotFoundError."""
        return (await self.find(session_id, tenant=tenant)).interrupt()

    async def hibernate(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> bool:
        """Save the session and remove its sandbox; False where it has none. Raises SessionNotFoundError, and BusyError
        where a call comes first or it cannot be saved: its sandbox stays then.
        """
        return await (await self.find(session_id, tenant=tenant)).put_to_sleep()

    async def wake(self, session_id: str, ticket: Ticket, *, tenant: str = LOCAL_TENANT) -> None:
        """Have a sandbox hold the session's namespace. Raises SessionNotFoundError, and what `execute` raises."""
        await (await self.find(session_id, tenant=tenant)).wake(ticket)

    async def clear(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> None:
        """Empty the namespace, interrupting what runs; files in the workspace stay. Raises SessionNotFoundError."""
        live = await self.find(session_id, tenant=tenant)
        await live.clear()

    async def delete(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> None:
        """End the session for good; calls that run or wait in it are answered with SessionDeletedError.

        The name is free at once. Raises SessionNotFoundError.
        """
        live = await self.find(session_id, tenant=tenant)
        # Whoever cancels this may do so after the record is changed: from there on nothing else would end the session.
        job: Job[asyncio.Task[None]] = Job()
        work = carry_out(job, partial(self._begin_to_end, live, session_id), shutting_down())
        self._tasks.spawn(work, f"begin to delete {live.session.key[:8]}")
        await asyncio.wait([await job.answer()], timeout=_DELETE_PATIENCE)

    async def close(self, *, seconds: float = STOP_SECONDS) -> None:
        """End all calls, save and hibernate all sessions, and remove their sandboxes. Idempotent.

        Ends in bounded time: the sandbox of a session that is not saved in most of `seconds`, or when patience is lost,
        is left alive with all that it holds, for the next owner to adopt; what the engine has not removed after them is
        left to that owner, too, as are rows that cannot be written.
        """
        self._closing = True
        deadline = asyncio.get_running_loop().time() + seconds
        self._stateless.cancel()
        lives, self._live = list(self._live.values()), {}
        # A part of the time is the engine's, for what was not saved in the rest.
        await self._all_of([live.retire(shutting_down()) for live in lives], seconds * _SAVING_SHARE)
        # However great the hurry: it waits for nobody.
        await self._all_of([live.let_go(shutting_down()) for live in lives], _ABORT_PATIENCE, patience=Patience())
        await self._sandboxes.removed(seconds=deadline - asyncio.get_running_loop().time())
        for live in lives:
            live.abort()

    async def _all_of(
        self, works: Sequence[Coroutine[Any, Any, None]], seconds: float, *, patience: Patience | None = None
    ) -> None:
        tasks = [asyncio.create_task(work, name="close a session") for work in works]
        await (patience or self._tasks.patience).wait(tasks, seconds=seconds)
        late = [task for task in tasks if not task.done()]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_ABORT_PATIENCE)
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                logger.warning("a session could not be closed well: %s", error)

    async def _begin_to_end(self, live: LiveSession, session_id: str) -> asyncio.Task[None]:
        """Free the name; the rest is done by the task that this returns."""
        key = live.session.key
        if key in self._ending:
            raise not_found(session_id)
        self._ending.add(key)
        try:
            await self._free_name(live, session_id)
            error = SessionDeletedError("The session was deleted.", hint="Call again to begin a new one.")
            ending = self._tasks.spawn(self._end(live, error), f"delete {key[:8]}")
        except BaseException:
            self._ending.discard(key)
            raise
        ending.add_done_callback(lambda _: self._ending.discard(key))
        return ending

    async def _free_name(self, live: LiveSession, session_id: str) -> None:
        if not await self._records.session_destroying(live.session.key):
            raise not_found(session_id)
        self._check_open()  # where it is stopping, the next owner does the rest
        self._forget(live)

    async def _end(self, live: LiveSession, error: OrchestratorError) -> None:
        key = live.session.key
        self._ending.add(key)
        try:
            await live.end(error)
            await live.removed()
            await self.finish_delete(key)
        except StoreUnusableError as failure:  # the row stays, by which it is tried again
            logger.warning("its snapshots are not removed: %s", failure, extra=about(key))
        finally:
            self._ending.discard(key)

    async def finish_delete(self, key: str) -> None:
        """Remove what a session in `destroying` has, whose sandbox is gone. Idempotent."""
        await self._pieces.delete(key)
        await self._records.delete_session(key)

    @contextmanager
    def arriving(self, key: str) -> Iterator[None]:
        """The file of that key has no session yet, or never will: nobody is to take it for a stray meanwhile."""
        self._ending.add(key)
        try:
            yield
        finally:
            self._ending.discard(key)

    def ending(self) -> frozenset[str]:
        """The keys of sessions that are being deleted, or imported, right now."""
        return frozenset(self._ending)

    async def all(self) -> Sequence[Session]:
        """The records of all tenants' sessions."""
        return await self._records.all_sessions()

    def in_use(self) -> Collection[LiveSession]:
        """All sessions that have a queue or a sandbox."""
        return tuple(self._live.values())

    def fresh_text(self, session: Session, number: int) -> CellText | None:
        """What an execution was answered, where that is not in the session's file yet."""
        live = self._live.get((session.tenant, session.session_id))
        return None if live is None or live.session.key != session.key else live.text_of(number)

    def is_ending(self, key: str) -> bool:
        """Whether that session is just being deleted."""
        return key in self._ending

    async def adopt_all(self) -> None:
        """Have every session decide on the sandbox that an earlier owner has left to it, called or not, so that no
        lease runs out; what the engine does not answer for is tried again.
        """
        while undecided := self._sandboxes.survivors.undecided:
            try:
                for session in await self._records.all_sessions():
                    if session.key in undecided and session.state is not SessionState.DESTROYING:
                        (self._live.get((session.tenant, session.session_id)) or self._enliven(session)).adopt()
            except OrchestratorError as error:
                logger.warning("what an earlier owner has left alive cannot be looked for yet: %s", error)
            await asyncio.sleep(_ADOPTION_PAUSE)

    # one call

    async def _use(self, tenant: str, session_id: str, most: int | None) -> LiveSession:
        live = self._live.get((tenant, session_id))
        if live is not None:
            return live
        session = await self._records.find_session(tenant, session_id)
        if session is None:
            image = await self._engine.prepare()  # a session that could not start is not made
            session = await self._records.ensure_session(tenant, session_id, image.environment, most=most)
        self._check_open()
        # Another call may have come first; no await from here on.
        return self._live.get((tenant, session_id)) or self._enliven(session)

    async def find(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> LiveSession:
        """That session, ready to be used. Raises SessionNotFoundError and ShuttingDownError."""
        self._check_open()
        name = session_id_of(session_id)
        live = self._live.get((tenant, name))
        if live is not None:
            return live
        session = await self._records.find_session(tenant, name)
        self._check_open()
        if session is None:
            raise not_found(session_id)
        # Another call may have come first; no await from here on.
        return self._live.get((tenant, name)) or self._enliven(session)

    def _enliven(self, session: Session) -> LiveSession:
        live = LiveSession(session, self._equipment, self._forget)
        self._live[session.tenant, session.session_id] = live
        return live

    def _forget(self, live: LiveSession) -> None:
        key = live.session.tenant, live.session.session_id
        if self._live.get(key) is live:
            del self._live[key]

    # checks

    def _check_open(self) -> None:
        if self._closing:
            raise shutting_down()
