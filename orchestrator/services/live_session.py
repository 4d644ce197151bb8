"""One session while it is in use: its queue, its sandbox, and what its callers have yet to be told."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.domain.errors import OrchestratorError, SandboxLostError, SessionDeletedError
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, CellReport, ExecutionResult, Loss, Namespace, Session
from orchestrator.domain.ports import Clock, Records
from orchestrator.services.jobs import Job, JobQueue
from orchestrator.services.results import Told, loss_note, lost_result, result_of
from orchestrator.services.sandboxes import Sandbox, Sandboxes
from orchestrator.services.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds every session. Times in seconds, sizes in bytes."""

    time_limit: float = 60.0  # where the caller names none
    max_time_limit: float = 3600.0
    grace: float = 2.0
    output_head: int = 48 * 1024
    output_tail: int = 16 * 1024
    max_code: int = 1024 * 1024
    queue: int = 16
    profile: SandboxProfile = field(default_factory=SandboxProfile)

    def order(self, execution: int, code: str, time_limit: float) -> CellOrder:
        """What the agent is told."""
        return CellOrder(execution, code, time_limit, self.grace, self.output_head, self.output_tail)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every session works with."""

    records: Records
    sandboxes: Sandboxes
    tasks: Tasks
    clock: Clock
    limits: Limits


class LiveSession:
    """Everything that happens to one session happens in its queue, one thing after the other."""

    def __init__(self, session: Session, equipment: Equipment, unused: Callable[["LiveSession"], None]) -> None:
        self._session = session
        self._records = equipment.records
        self._sandboxes = equipment.sandboxes
        self._clock = equipment.clock
        self._limits = limits = equipment.limits
        self._unused = unused
        self._untold = session.untold_loss
        self._sandbox: Sandbox | None = None
        self._removal: asyncio.Task[None] | None = None
        self._queue = JobQueue(equipment.tasks, f"session {session.key[:8]}", limit=limits.queue, idle=self._idle)

    @property
    def session(self) -> Session:
        """The record as of its last change of state."""
        return self._session

    async def execute(self, code: str, time_limit: float) -> ExecutionResult:
        """Run a cell when its turn comes."""
        return await self._queue.submit(lambda job: self._execute(job, code, time_limit))

    async def list_variables(self) -> Namespace:
        """Describe the namespace when its turn comes; a session without a sandbox is not woken for it."""
        return await self._queue.submit(lambda _: self._list())

    async def clear(self) -> None:
        """Interrupt what runs, and empty the namespace when its turn comes."""
        await self._queue.submit(lambda _: self._clear(), interrupts=True)

    async def end(self, error: OrchestratorError) -> None:
        """Answer all calls with `error` and destroy the sandbox; returns when it is gone. The row stays."""
        self._queue.end(error)
        # Without its sandbox a running cell ends at once; a start under way is cut short instead.
        if self._sandbox is not None:
            self._drop_sandbox()
        else:
            self._queue.abort()
        await self._queue.ended()
        if self._sandbox is not None:
            self._drop_sandbox()
        if self._removal is not None:
            await asyncio.wait([self._removal])

    def _idle(self) -> None:
        if self._sandbox is None:
            self._unused(self)

    # in the queue

    async def _execute(self, job: Job[ExecutionResult], code: str, time_limit: float) -> ExecutionResult:
        sandbox = await self._awake()
        number = await self._records.open_execution(self._session.key, self._session.incarnation, code)
        if number is None:
            raise _deleted()
        order = self._limits.order(number, code, time_limit)
        agent = sandbox.agent
        job.can_be_stopped_by(lambda: agent.interrupt(number))
        began = self._clock.monotonic()
        try:
            # No await between this look and the sending of the cell: an interrupt after it finds it there.
            if not job.awaited:
                return await self._not_sent(order)
            report = await agent.execute(order)
        except SandboxLostError as error:
            return await self._lost_under_way(job, order, agent.lost or error.message, self._clock.monotonic() - began)
        if report.lost_before is not None:
            await self._namespace_gone(report.lost_before, before=number)
        await self._close(order, report)
        if not report.namespace_kept:
            await self._namespace_gone(_why_killed(report))
        return result_of(report, order, await self._told(job))

    async def _not_sent(self, order: CellOrder) -> ExecutionResult:
        # Its caller has gone while the row was opened. Nobody reads this answer.
        await self._records.close_execution(
            self._session.key,
            order.execution,
            "interrupted",
            bound=(),
            removed=(),
            variable_count=None,
        )
        raise _deleted()

    async def _lost_under_way(
        self, job: Job[ExecutionResult], order: CellOrder, reason: str, duration: float
    ) -> ExecutionResult:
        await self._records.close_execution(
            self._session.key, order.execution, "sandbox_lost", bound=(), removed=(), variable_count=0
        )
        await self._sandbox_gone(reason)
        return lost_result(reason, order, await self._told(job), duration)

    async def _list(self) -> Namespace:
        if self._sandbox is not None and self._sandbox.agent.lost is None:
            try:
                return await self._sandbox.agent.list_variables()
            except SandboxLostError as error:
                await self._sandbox_gone(self._sandbox.agent.lost or error.message)
        elif self._sandbox is not None:
            await self._sandbox_gone(str(self._sandbox.agent.lost))
        return Namespace((), (), () if self._untold is None else (loss_note(self._untold),))

    async def _clear(self) -> None:
        if self._sandbox is not None:
            try:
                await self._sandbox.agent.clear()
            except SandboxLostError as error:
                await self._sandbox_gone(error.message)
        if not await self._records.session_cleared(self._session.key, self._session.incarnation):
            raise _deleted()
        self._untold = None

    async def _awake(self) -> Sandbox:
        """The session's live sandbox; a fresh one where it has none."""
        if self._sandbox is not None:
            if self._sandbox.agent.lost is None:
                return self._sandbox
            await self._sandbox_gone(self._sandbox.agent.lost)
        creating = await self._records.begin_creating(self._session.key, self._session.incarnation)
        if creating is None:
            raise _deleted()
        self._session = creating
        try:
            sandbox = await self._sandboxes.start(creating.key, creating.incarnation)
        except BaseException:
            await self._records.session_hibernated(creating.key, creating.incarnation)
            raise
        self._sandbox = sandbox
        ready = await self._records.session_ready(creating.key, creating.incarnation)
        if ready is None:
            self._drop_sandbox()
            raise _deleted()
        self._session = ready
        return sandbox

    # losses

    async def _sandbox_gone(self, reason: str) -> None:
        self._drop_sandbox()
        await self._namespace_gone(f"its sandbox was lost: {reason}")
        await self._records.session_hibernated(self._session.key, self._session.incarnation)

    async def _namespace_gone(self, cause: str, *, before: int | None = None) -> None:
        key, incarnation = self._session.key, self._session.incarnation
        self._untold = await self._records.namespace_lost(key, incarnation, cause, before=before)

    async def _told(self, job: Job[ExecutionResult]) -> Told:
        """What this answer tells beside its own; it counts as told only where somebody waits for the answer."""
        loss: Loss | None = None
        if self._untold is not None and job.awaited:
            loss, self._untold = self._untold, None
            await self._records.loss_told(self._session.key)
        return Told(self._session.session_id, loss, self._limits.profile)

    async def _close(self, order: CellOrder, report: CellReport) -> None:
        await self._records.close_execution(
            self._session.key,
            order.execution,
            report.outcome,
            bound=report.bound,
            removed=report.removed,
            variable_count=report.variable_count,
        )

    def _drop_sandbox(self) -> None:
        if self._sandbox is not None:
            self._removal = self._sandboxes.end(self._sandbox)
            self._sandbox = None


def _deleted() -> SessionDeletedError:
    return SessionDeletedError("The session was deleted meanwhile.", hint="Call again to begin a new one.")


def _why_killed(report: CellReport) -> str:
    reasons = {
        "timeout": "a cell outran its time limit and had to be killed",
        "interrupted": "a cell was interrupted and had to be killed",
        "oom": "a cell reached the memory limit",
    }
    return reasons.get(report.outcome, f"a cell ended its process ({report.error_message or report.outcome})")
