"""What can be done with sessions: the one object behind the MCP server, the library and the command line."""

import asyncio
import logging
import math
import re
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from orchestrator.domain.errors import (
    InvalidRequestError,
    OrchestratorError,
    SandboxLostError,
    SessionDeletedError,
    SessionNotFoundError,
    ShuttingDownError,
    StoreUnusableError,
)
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.model import LOCAL_TENANT, ExecutionResult, Namespace, Session, SessionState, SessionSummary
from orchestrator.domain.ports import Engine
from orchestrator.services.equipment import Equipment
from orchestrator.services.jobs import Job, carry_out
from orchestrator.services.live_session import LiveSession
from orchestrator.services.results import Told, lost_result, result_of
from orchestrator.services.tasks import Patience

logger = logging.getLogger(__name__)

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
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
        self._pieces = equipment.pieces
        self._sandboxes = equipment.sandboxes
        self._tasks = equipment.tasks
        self._clock = equipment.clock
        self._limits = equipment.limits
        self._live: dict[tuple[str, str], LiveSession] = {}
        self._stateless: set[asyncio.Task[None]] = set()
        self._closing = False

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the cell, enforced in the sandbox
        tenant: str = LOCAL_TENANT,
    ) -> ExecutionResult:
        """Run a cell in that session, made on first use; without a session id in a fresh sandbox of its own.

        `timeout` is in seconds of running, from above 0 to 3600 (None: 60). A cell that fails is a result with an
        `error`. Raises InvalidRequestError, BusyError, SessionDeletedError, EngineUnavailableError, StoreFullError and
        ShuttingDownError where none ran. Cancelling interrupts the cell.
        """
        self._check_open()
        self._check_code(code)
        time_limit = self._time_limit(timeout)
        if not session_id:
            return await self._execute_stateless(code, time_limit)
        live = await self._use(tenant, session_id_of(session_id))
        return await live.execute(code, time_limit)

    async def list_variables(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> Namespace:
        """What the session's namespace holds; while a call runs or waits, what is known of it without asking.

        A sleeping session is not woken. Raises SessionNotFoundError.
        """
        live = await self.find(session_id, tenant=tenant)
        return await live.list_variables()

    async def list_sessions(self, *, tenant: str = LOCAL_TENANT) -> Sequence[SessionSummary]:
        """The tenant's sessions, oldest first; none is woken or waited for."""
        return [
            SessionSummary(
                session_id=session.session_id,
                created_at=session.created_at,
                variable_count=session.variable_count,
                total_executions=session.executions,
                state=session.state,
                last_used_at=session.used_at,
                saved_through=session.saved_through or None,
            )
            for session in await self._records.sessions(tenant)
        ]

    async def clear(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> None:
        """Empty the namespace, interrupting what runs; files in the workspace stay. Raises SessionNotFoundError."""
        live = await self.find(session_id, tenant=tenant)
        await live.clear()

    async def delete(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> None:
        """End the session for good; calls that run or wait in it are answered with SessionDeletedError.

        The name is free at once. Raises SessionNotFoundError.
        """
        live = await self.find(session_id, tenant=tenant)
        if not await self._records.session_destroying(live.session.key):
            raise not_found(session_id)
        self._check_open()  # where it is stopping, the next owner does the rest
        self._forget(live)
        error = SessionDeletedError("The session was deleted.", hint="Call again to begin a new one.")
        ending = self._tasks.spawn(self._end(live, error), f"delete {live.session.key[:8]}")
        await asyncio.wait([ending], timeout=_DELETE_PATIENCE)

    async def close(self, *, seconds: float = STOP_SECONDS) -> None:
        """End all calls, save and hibernate all sessions, and remove their sandboxes. Idempotent.

        Ends in bounded time: the sandbox of a session that is not saved in most of `seconds`, or when patience is lost,
        is left alive with all that it holds, for the next owner to adopt; what the engine has not removed after them is
        left to that owner, too, as are rows that cannot be written.
        """
        self._closing = True
        deadline = asyncio.get_running_loop().time() + seconds
        for task in self._stateless:
            task.cancel()
        lives, self._live = list(self._live.values()), {}
        # A part of the time is the engine's, for what was not saved in the rest.
        await self._all_of([live.retire(_shutting_down()) for live in lives], seconds * _SAVING_SHARE)
        # However great the hurry: it waits for nobody.
        await self._all_of([live.let_go(_shutting_down()) for live in lives], _ABORT_PATIENCE, patience=Patience())
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

    async def _end(self, live: LiveSession, error: OrchestratorError) -> None:
        await live.end(error)
        await live.removed()
        try:
            await self._pieces.delete(live.session.key)
        except StoreUnusableError as failure:  # the row stays, by which the next owner tries again
            logger.warning("session %s: its snapshots are not removed: %s", live.session.key, failure)
            return
        await self._records.delete_session(live.session.key)

    def in_use(self) -> Collection[LiveSession]:
        """All sessions that have a queue or a sandbox."""
        return tuple(self._live.values())

    async def adopt_all(self) -> None:
        """Have every session decide on the sandbox that an earlier owner has left to it, called or not, so that no
        lease runs out; what the engine does not answer for is tried again.
        """
        while undecided := self._sandboxes.undecided:
            try:
                for session in await self._records.all_sessions():
                    if session.key in undecided and session.state is not SessionState.DESTROYING:
                        (self._live.get((session.tenant, session.session_id)) or self._enliven(session)).adopt()
            except OrchestratorError as error:
                logger.warning("what an earlier owner has left alive cannot be looked for yet: %s", error)
            await asyncio.sleep(_ADOPTION_PAUSE)

    # one call

    async def _execute_stateless(self, code: str, time_limit: float) -> ExecutionResult:
        job: Job[ExecutionResult] = Job()
        work = carry_out(job, self._run_alone(job, code, time_limit), _shutting_down())
        task = self._tasks.spawn(work, "stateless call")
        self._stateless.add(task)
        task.add_done_callback(self._stateless.discard)
        return await job.answer()

    async def _run_alone(self, job: Job[ExecutionResult], code: str, time_limit: float) -> ExecutionResult:
        sandbox = await self._sandboxes.start(None, 1)
        order = self._limits.order(1, code, time_limit)
        told = Told(None, None, self._limits.profile)
        began = self._clock.monotonic()
        job.can_be_stopped_by(lambda: sandbox.agent.interrupt(1))
        try:
            if not job.awaited:
                raise _shutting_down()  # nobody reads it
            return result_of(await sandbox.agent.execute(order), order, told)
        except SandboxLostError as error:
            agent, duration = sandbox.agent, self._clock.monotonic() - began
            return lost_result(agent.lost or error.message, order, told, duration, for_memory=agent.lost_to_memory)
        finally:
            self._sandboxes.end(sandbox)

    async def _use(self, tenant: str, session_id: str) -> LiveSession:
        live = self._live.get((tenant, session_id))
        if live is not None:
            return live
        session = await self._records.find_session(tenant, session_id)
        if session is None:
            image = await self._engine.prepare()  # a session that could not start is not made
            session = await self._records.ensure_session(tenant, session_id, image.environment)
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
            raise _shutting_down()

    def _check_code(self, code: str) -> None:
        if not code.strip():
            raise InvalidRequestError("The code is empty.", hint="Give at least one statement.")
        wrong = _NOT_TEXT.search(code)
        if wrong is not None:
            line = code.count("\n", 0, wrong.start()) + 1
            what = "a null byte" if wrong[0] == "\0" else f"a lone surrogate (U+{ord(wrong[0]):04X})"
            raise InvalidRequestError(
                f"The code has {what} in line {line}.", hint="Write it as an escape, such as \\x00, in a string."
            )
        size = len(code.encode("utf-8", "surrogatepass"))
        if size > self._limits.max_code:
            raise InvalidRequestError(
                f"The code has {size:,} bytes; at most {self._limits.max_code:,} are allowed.",
                hint="Write data to a file in several cells and read it from there.",
            )

    def _time_limit(self, timeout: float | None) -> float:
        if timeout is None:
            return self._limits.time_limit
        if not math.isfinite(timeout) or not 0 < timeout <= self._limits.max_time_limit:
            raise InvalidRequestError(
                f"The timeout is {timeout:g} s; it must be above 0 and at most {self._limits.max_time_limit:g} s.",
                hint="Leave it out for the default.",
            )
        return timeout


def not_found(session_id: str) -> SessionNotFoundError:
    """The one answer for a session that is absent, or another tenant's."""
    return SessionNotFoundError(
        f"There is no session {session_id!r}.",
        hint="List the sessions to see which there are; running code in a session creates it.",
    )


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("The orchestrator is stopping.", hint="Call again when it runs.")
