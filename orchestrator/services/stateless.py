"""Calls without a session: each in a fresh sandbox of its own, which ends with it."""

import asyncio
from dataclasses import replace
from functools import partial

from orchestrator.domain.errors import SandboxLostError
from orchestrator.domain.model import ExecutionResult
from orchestrator.services.checks import shutting_down
from orchestrator.services.equipment import Equipment
from orchestrator.services.jobs import Job, carry_out
from orchestrator.services.results import Told, lost_result, result_of
from orchestrator.services.survivors import Sandbox
from orchestrator.services.tickets import Ticket


class Stateless:
    """All such calls that are under way."""

    def __init__(self, equipment: Equipment) -> None:
        self._sandboxes = equipment.sandboxes
        self._tasks = equipment.tasks
        self._clock = equipment.clock
        self._limits = equipment.limits
        self._under_way: set[asyncio.Task[None]] = set()

    def cancel(self) -> None:
        """End them all."""
        for task in self._under_way:
            task.cancel()

    async def execute(self, code: str, time_limit: float, tenant: str, ticket: Ticket) -> ExecutionResult:
        """Run it; cancelling interrupts it."""
        job: Job[ExecutionResult] = Job()
        job.can_be_stopped_by(ticket.give_up)
        work = carry_out(job, partial(self._run, job, code, time_limit, tenant, ticket), shutting_down())
        task = self._tasks.spawn(work, "stateless call")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda _: job.fail(shutting_down()))  # where it was cancelled before its first step
        return await job.answer()

    async def _run(
        self, job: Job[ExecutionResult], code: str, time_limit: float, tenant: str, ticket: Ticket
    ) -> ExecutionResult:
        try:
            async with self._sandboxes.slot(tenant, ticket) as slot:
                await ticket.take_turn()
                sandbox = await self._sandboxes.start(slot, None, 1, profile=ticket.terms.profile)
            try:
                return await self._run_in(job, sandbox, code, time_limit, ticket)
            finally:
                self._sandboxes.end(sandbox)
        finally:
            ticket.turn_over()

    async def _run_in(
        self, job: Job[ExecutionResult], sandbox: Sandbox, code: str, time_limit: float, ticket: Ticket
    ) -> ExecutionResult:
        order = replace(self._limits.order(1, code, time_limit), heard=ticket.heard)
        told = Told(None, None, ticket.terms.profile or self._limits.profile)
        began = self._clock.monotonic()
        job.can_be_stopped_by(lambda: sandbox.agent.interrupt(1))
        if not job.awaited:
            raise shutting_down()  # nobody reads it
        ticket.begins()
        try:
            answer = result_of(await sandbox.agent.execute(order), order, told)
        except SandboxLostError as error:
            agent, duration = sandbox.agent, self._clock.monotonic() - began
            answer = lost_result(agent.lost or error.message, order, told, duration, for_memory=agent.lost_to_memory)
        await ticket.ended(answer)
        return answer
