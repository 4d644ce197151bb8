"""One cell of a session, from its row in the records to its answer, in its queue's turn."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from orchestrator.domain.ageing import expiry_of
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.errors import NamespaceLostError, OrchestratorError, SandboxLostError
from orchestrator.domain.kept_results import rest_of
from orchestrator.domain.model import CellOrder, CellReport, CellText, ExecutionResult, Loss, ResumedFrom
from orchestrator.domain.ports import Agent
from orchestrator.domain.snapshots import SaveFailedError
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.equipment import Equipment
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.jobs import Job
from orchestrator.services.listings import saved_namespace
from orchestrator.services.results import Told, largest_note, lost_result, not_run_result, result_of, why_killed
from orchestrator.services.saving import Saver
from orchestrator.services.saving_notes import slow_note
from orchestrator.services.slots import Ticket


class Executing:
    """Of one session."""

    def __init__(
        self,
        book: Bookkeeping,
        saver: Saver,
        incarnation: Incarnation,
        equipment: Equipment,
        *,
        later: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        """`later` has something done in another turn of the session's, or not at all where it ends."""
        self._book = book
        self._saver = saver
        self._incarnation = incarnation
        self._snapshots = equipment.snapshots
        self._clock = equipment.clock
        self._limits = equipment.limits
        self._later = later
        self.ended_at = self._clock.monotonic()  # the last cell, or the session's coming into use

    async def execute(self, job: Job[ExecutionResult], code: str, time_limit: float, ticket: Ticket) -> ExecutionResult:
        """Run it, and say what became of it."""
        try:
            return await self._execute(job, code, time_limit, ticket)
        finally:
            ticket.turn_over()

    async def _execute(
        self, job: Job[ExecutionResult], code: str, time_limit: float, ticket: Ticket
    ) -> ExecutionResult:
        job.can_be_stopped_by(lambda: self._wait_no_longer(ticket))
        if self._incarnation.serving is not None:
            await ticket.take_turn()  # else it waits for a sandbox first
        try:
            agent = await self._incarnation.agent(ticket)
        except (SandboxLostError, SaveFailedError):
            if not job.stopped:
                raise
            return await self._not_woken(ticket)  # it was given up for that
        return await self._execute_in(agent, job, code, time_limit, ticket)

    async def _execute_in(
        self, agent: Agent, job: Job[ExecutionResult], code: str, time_limit: float, ticket: Ticket
    ) -> ExecutionResult:
        number = await self._book.open_execution(ticket.terms.repeat, ticket.beginning())
        order = replace(self._limits.order(number, code, time_limit), heard=ticket.heard)
        job.can_be_stopped_by(lambda: agent.interrupt(number))
        began = self._clock.monotonic()
        try:
            # No await between this look and the sending of the cell: an interrupt after it finds it there.
            if job.stopped or not job.awaited:
                entry = self._entry(ticket, lambda told: not_run_result(order, told))
                self._book.owe_close(number, "interrupted", entry=entry)
                return await self._answer(job, ticket, order, None, lambda told: not_run_result(order, told))
            ticket.begins()
            report = await self._run(agent, order, ticket)
        except (NamespaceLostError, SandboxLostError, SaveFailedError) as error:
            reason, duration = agent.lost or error.message, self._clock.monotonic() - began
            memory = agent.lost_to_memory
            entry = self._entry(ticket, lambda told: lost_result(reason, order, told, duration, for_memory=memory))
            self._book.owe_close(number, "oom" if memory else "sandbox_lost", variable_count=0, entry=entry)
            incarnation = self._incarnation
            gone = incarnation.asleep if incarnation.sandbox is None else await incarnation.lost(reason)
            return await self._answer(
                job, ticket, order, gone, lambda told: lost_result(reason, order, told, duration, for_memory=memory)
            )
        except OrchestratorError as error:
            self._book.owe_close(number, "interrupted", entry=ticket.failing(error))  # it never began
            raise
        self._owe_close(number, report, self._entry(ticket, lambda told: result_of(report, order, told)))
        stands: ResumedFrom | None = None
        if not report.namespace_kept:
            stands = await self._incarnation.emptied(why_killed(report), resumed=report.resumed)
        if report.outcome == "oom":
            report = replace(report, notes=(*report.notes, *await self._largest()))
        return await self._answer(job, ticket, order, stands, lambda told: result_of(report, order, told))

    async def _not_woken(self, ticket: Ticket) -> ExecutionResult:
        """The answer to a call that was interrupted while its session was being restored: it has no number yet, and
        what is to be told waits for the next one.
        """
        session, profile = self._book.session, ticket.terms.profile or self._limits.profile
        answer = not_run_result(self._limits.order(0, "", 0.0), Told(session.session_id, None, profile))
        answer = replace(answer, execution=None, incarnation=session.incarnation, state=session.state)
        await ticket.ended(answer)
        return answer

    def _wait_no_longer(self, ticket: Ticket) -> None:
        ticket.give_up()
        self._incarnation.stop_waking()

    async def _run(self, agent: Agent, order: CellOrder, ticket: Ticket) -> CellReport:
        try:
            return await agent.execute(order)
        except NamespaceLostError as error:
            # Nothing was run. The same number may be ordered again, since it never began.
            await self._incarnation.emptied(error.cause, before=order.execution, resumed=error.resumed)
            again = await self._incarnation.agent(ticket)
            return await again.execute(order)

    async def _largest(self) -> tuple[str, ...]:
        """What takes most of the memory, for a caller whose cell met its limit."""
        if self._incarnation.serving is not None:
            try:
                return largest_note((await self._incarnation.serving.agent.list_variables()).variables)
            except OrchestratorError:  # the next call finds out what it is
                return ()
        listing = await self._snapshots.saved_listing_of(self._book.session.key)
        return largest_note(saved_namespace(listing, ()).variables)

    # what happened

    def _entry(self, ticket: Ticket, result: Callable[[Told], ExecutionResult]) -> AuditEntry | None:
        """For the commit that closes its row, which comes before all is known that the answer tells."""
        session, profile = self._book.session, ticket.terms.profile or self._limits.profile
        answer = result(Told(session.session_id, None, profile))
        return ticket.closing(replace(answer, incarnation=session.incarnation))

    def _owe_close(self, number: int, report: CellReport, entry: AuditEntry | None) -> None:
        self._book.owe_close(
            number,
            report.outcome,
            bound=report.bound,
            removed=report.removed,
            variable_count=report.variable_count,
            entry=entry,
        )
        self._saver.executed(number)

    async def _answer(
        self,
        job: Job[ExecutionResult],
        ticket: Ticket,
        order: CellOrder,
        stands: ResumedFrom | None,
        result: Callable[[Told], ExecutionResult],
    ) -> ExecutionResult:
        """The result of what was done, recorded where that is possible, with all that is to be told."""
        self.ended_at = self._clock.monotonic()
        unrecorded = await self._book.try_to_settle()
        loss, notes = self._book.untold, self._book.untold_notes
        pending = (*notes, *self._saver.log.pending)
        policy, duration = self._limits.policy, self._saver.container.duration
        slow = slow_note(policy.max_age(duration), duration, policy.snapshot_max_age)
        session, profile = self._book.session, ticket.terms.profile or self._limits.profile
        answer = result(Told(session.session_id, loss, profile, self._saver.saved_through, stands))
        answer = replace(
            answer,
            notes=tuple(dict.fromkeys((*answer.notes, *pending, *slow, *unrecorded))),
            incarnation=session.incarnation,
            state=session.state,
            expires_at=expiry_of(self._clock.now(), 0.0, self._clock.now(), self._limits.ageing),
        )
        if loss is not None or pending:
            job.once_received(lambda: self._handed_over(ticket, lambda: self._told(loss, notes, pending)))
        await self._keep(order, answer, ticket)
        # Without a sandbox nothing may follow that would write them.
        if self._saver.texts.many or self._incarnation.sandbox is None:
            job.afterwards(self._saver.texts.write)
        return answer

    async def _keep(self, order: CellOrder, answer: ExecutionResult, ticket: Ticket) -> None:
        """For who asks for it later."""
        is_repeatable = ticket.terms.repeat is not None
        rest = rest_of(answer, pictures=is_repeatable)
        self._saver.texts.add(CellText(order.execution, order.code, answer.output, answer.output_bytes, rest))
        if is_repeatable:
            await self._saver.texts.write()  # before the answer leaves: it may be asked for again after any end of ours

    async def _handed_over(self, ticket: Ticket, told: Callable[[], Awaitable[None]]) -> None:
        if ticket.receipt is None:
            await told()
        else:
            ticket.receipt.when_received(lambda: self._later(told))

    async def _told(self, loss: Loss | None, notes: tuple[str, ...], pending: tuple[str, ...]) -> None:
        self._saver.log.told(pending)
        if loss is not None or notes:
            await self._book.told(loss, notes)
