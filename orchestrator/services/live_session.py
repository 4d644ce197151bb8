"""One session while it is in use: its queue, its sandbox, and what its callers have yet to be told."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from orchestrator.domain.errors import OrchestratorError, SandboxLostError
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, CellReport, ExecutionResult, Namespace, Session
from orchestrator.domain.ports import Clock, Records
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.jobs import Job, JobQueue
from orchestrator.services.results import Told, loss_note, lost_result, not_run_result, result_of
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
        self._book = Bookkeeping(session, equipment.records)
        self._sandboxes = equipment.sandboxes
        self._clock = equipment.clock
        self._limits = limits = equipment.limits
        self._unused = unused
        self._sandbox: Sandbox | None = None
        self._removal: asyncio.Task[None] | None = None
        self._queue = JobQueue(equipment.tasks, f"session {session.key[:8]}", limit=limits.queue, idle=self._idle)

    @property
    def session(self) -> Session:
        """The record as of its last change of state."""
        return self._book.session

    @property
    def untold(self) -> bool:
        """Whether something was lost that no caller has been told of, as far as is known."""
        return self._book.untold is not None or not self._book.settled

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

    def abort(self) -> None:
        """Cut short what still runs after `end`."""
        self._queue.abort()

    def _idle(self) -> None:
        if self._sandbox is None and self._book.settled:
            self._unused(self)

    # in the queue

    async def _execute(self, job: Job[ExecutionResult], code: str, time_limit: float) -> ExecutionResult:
        sandbox = await self._awake()
        number = await self._book.open_execution()
        order = self._limits.order(number, code, time_limit)
        agent = sandbox.agent
        job.can_be_stopped_by(lambda: agent.interrupt(number))
        began = self._clock.monotonic()
        try:
            # No await between this look and the sending of the cell: an interrupt after it finds it there.
            if job.stopped or not job.awaited:
                self._book.owe_close(number, "interrupted")
                return await self._answer(job, lambda told: not_run_result(order, told))
            report = await agent.execute(order)
        except SandboxLostError as error:
            reason, duration = agent.lost or error.message, self._clock.monotonic() - began
            self._book.owe_close(number, "sandbox_lost", variable_count=0)
            self._sandbox_gone(reason)
            return await self._answer(job, lambda told: lost_result(reason, order, told, duration))
        self._owe(number, report)
        return await self._answer(job, lambda told: result_of(report, order, told))

    async def _list(self) -> Namespace:
        sandbox = self._sandbox
        if sandbox is not None:
            try:
                if sandbox.agent.lost is None:
                    return await sandbox.agent.list_variables()
                self._sandbox_gone(sandbox.agent.lost)
            except SandboxLostError as error:
                self._sandbox_gone(sandbox.agent.lost or error.message)
        notes = await self._book.try_to_settle()
        untold = self._book.untold
        return Namespace((), (), notes if untold is None else (loss_note(untold), *notes))

    async def _clear(self) -> None:
        await self._book.settle()
        if self._sandbox is not None:
            try:
                await self._sandbox.agent.clear()
            except SandboxLostError as error:
                self._sandbox_gone(error.message)
        self._book.owe_clear()
        await self._book.settle()

    async def _awake(self) -> Sandbox:
        """The session's live sandbox; a fresh one where it has none."""
        if self._sandbox is not None and self._sandbox.agent.lost is not None:
            self._sandbox_gone(self._sandbox.agent.lost)
        await self._book.settle()
        if self._sandbox is not None:
            return self._sandbox
        creating = await self._book.creating()
        try:
            sandbox = self._sandbox = await self._sandboxes.start(creating.key, creating.incarnation)
            await self._book.ready()
        except BaseException:
            self._drop_sandbox()
            self._book.owe_hibernation()
            await self._book.try_to_settle()
            raise
        return sandbox

    # what happened

    def _owe(self, number: int, report: CellReport) -> None:
        if report.lost_before is not None:
            self._book.owe_loss(report.lost_before, before=number)
        self._book.owe_close(
            number,
            report.outcome,
            bound=report.bound,
            removed=report.removed,
            variable_count=report.variable_count,
        )
        if not report.namespace_kept:
            self._book.owe_loss(_why_killed(report))

    def _sandbox_gone(self, reason: str) -> None:
        self._drop_sandbox()
        self._book.owe_loss(f"its sandbox was lost: {reason}")
        self._book.owe_hibernation()

    async def _answer(self, job: Job[ExecutionResult], result: Callable[[Told], ExecutionResult]) -> ExecutionResult:
        """The result of what was done, recorded where that is possible, with the loss that is to be told."""
        notes = await self._book.try_to_settle()
        loss = self._book.untold
        if loss is not None:
            job.once_received(self._book.told)
        answer = result(Told(self.session.session_id, loss, self._limits.profile))
        return replace(answer, notes=(*answer.notes, *notes))

    def _drop_sandbox(self) -> None:
        if self._sandbox is not None:
            self._removal = self._sandboxes.end(self._sandbox)
            self._sandbox = None


def _why_killed(report: CellReport) -> str:
    reasons = {
        "timeout": "a cell outran its time limit and had to be killed",
        "interrupted": "a cell was interrupted and had to be killed",
        "oom": "a cell reached the memory limit",
    }
    return reasons.get(report.outcome, f"a cell ended its process ({report.error_message or report.outcome})")
