"""Takes over the sandbox that an earlier owner has left to a session, in its queue's turn and before anything else.

Everything may be cut short and begun again: what is told is noted before the row that it tells of is closed.
"""

import asyncio
import logging
from collections.abc import Sequence

from orchestrator.domain.errors import (
    EngineUnavailableError,
    NamespaceLostError,
    OrchestratorError,
    SandboxGoneError,
    SandboxLostError,
    StoreUnreachableError,
    StoreUnusableError,
)
from orchestrator.domain.kept_results import rest_of
from orchestrator.domain.model import CellReport, CellText, SessionState
from orchestrator.domain.ports import Agent
from orchestrator.domain.snapshots import SnapshotDamagedError, SnapshotNotFoundError, StoredSnapshot
from orchestrator.services.about import about
from orchestrator.services.adoption_notes import (
    alive_note,
    gone_note,
    never_arrived_note,
    outdated_note,
    result_note,
    unknown_note,
)
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.equipment import Equipment
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.jobs import Job
from orchestrator.services.keeping import Keeping
from orchestrator.services.results import Told, output_of, result_of, why_killed
from orchestrator.services.saving import Saver
from orchestrator.services.survivors import Sandbox

logger = logging.getLogger(__name__)

_MARGIN = 30.0  # seconds beyond the longest time limit that a found cell may take to end
_OWNER_GONE = "its orchestrator had ended, and its sandbox did not outlive that"


class Adopting:
    """Of one session. Until it is decided, nothing else happens to the session."""

    def __init__(
        self,
        book: Bookkeeping,
        saver: Saver,
        incarnation: Incarnation,
        keeping: Keeping,
        equipment: Equipment,
    ) -> None:
        self._book = book
        self._saver = saver
        self._incarnation = incarnation
        self._keeping = keeping
        self._sandboxes = equipment.sandboxes
        self._pieces = equipment.pieces
        self._limits = equipment.limits
        # Seconds that a cell may run.
        self._longest = equipment.limits.longest_call
        self.under_way = False
        self._obstacle: OrchestratorError | None = None

    @property
    def undecided(self) -> bool:
        """Whether there is a sandbox of which nobody knows yet whether it lives."""
        return self._sandboxes.survivors.left_to(self._book.session.key)

    @property
    def stuck(self) -> bool:
        """Whether it was tried to decide, in vain."""
        return self.undecided and self._obstacle is not None

    def require_decided(self) -> None:
        """Raises what keeps it undecided."""
        if self.undecided:
            raise self._obstacle or EngineUnavailableError(
                "The session's sandbox was not reached yet.", hint="Call again."
            )

    async def adopt(self, job: Job[None]) -> None:
        """Decide, where that can be done now, and wait for the cell that is found running; stopping interrupts it."""
        self._obstacle = None
        try:
            await self._decide(job)
        except OrchestratorError as error:
            self._obstacle = error
            logger.warning("not known yet whether it lives: %s", error, extra=about(self._book.session))
        except Exception:
            self._obstacle = OrchestratorError("Something unexpected happened; it is in the log.")
            logger.exception("taking over its sandbox failed", extra=about(self._book.session))

    async def _decide(self, job: Job[None]) -> None:
        session = await self._book.look()
        try:
            sandbox = await self._sandboxes.survivors.adopt(session.key)
        except SandboxLostError as error:
            await self._gone(error.cause if isinstance(error, SandboxGoneError) else error.message)
            return
        try:
            unanswered = await self._book.open_executions()
            self._saver.adopts(await self._head(), environment=sandbox.environment)
            if self._book.session.state is SessionState.SNAPSHOTTING:
                await self._book.ready()
        except BaseException:
            await sandbox.agent.close()
            raise
        self._incarnation.adopt(sandbox)
        logger.info("found alive, %d executions unanswered", len(unanswered), extra=about(session))
        # Whatever was on its way to the head is not any more.
        self._book.owe_void()
        arrived = sandbox.agent.hello.last_execution
        held = min((number - 1 for number in unanswered if number > arrived), default=session.executions)
        self._book.owe_notes([alive_note(held)])
        await self._answer(job, sandbox.agent, unanswered)
        await self._book.try_to_settle()
        await self._renew(sandbox)

    async def _head(self) -> StoredSnapshot | None:
        record = await self._saver.record()
        if record is None or record.head is None:
            return None
        try:
            return await self._pieces.snapshot(record.session, record.head)
        except StoreUnreachableError:
            raise  # it may be whole
        except (SnapshotNotFoundError, SnapshotDamagedError, StoreUnusableError) as error:
            logger.warning("its head cannot be read: %s", error, extra=about(record.session))
            return None

    async def _gone(self, cause: str) -> None:
        unanswered = await self._book.open_executions()
        await self._incarnation.lost(cause, told=f"{_OWNER_GONE}: {cause}")
        for number in unanswered:
            self._book.owe_close(number, "outcome_unknown")
        await self._book.settle()
        if self._book.untold is None:  # else that says it
            await self._saver.record()
            self._book.owe_notes([gone_note(cause, self._saver.stands_at)])
            await self._book.try_to_settle()

    # what its owner did not hear

    async def _answer(self, job: Job[None], agent: Agent, unanswered: Sequence[int]) -> None:
        for number in unanswered:
            if number > agent.hello.last_execution:
                self._book.owe_notes([never_arrived_note(number)])
                self._book.owe_close(number, "never_arrived")
                continue
            job.can_be_stopped_by(lambda number=number: agent.interrupt(number))  # type: ignore[misc]
            if job.stopped:  # before it could be asked: once the request below is on its way
                asyncio.get_running_loop().call_soon(agent.interrupt, number)
            try:
                report = await agent.result(number, seconds=self._longest + _MARGIN)
            except SandboxLostError as error:
                self._book.owe_close(number, "oom" if agent.lost_to_memory else "sandbox_lost", variable_count=0)
                await self._incarnation.lost(agent.lost or error.message)
                return
            except OrchestratorError as error:  # a row that stays open keeps the session from being saved
                logger.warning("execution %d: %s", number, error, extra=about(self._book.session, number))
                report = None
            await self._answered(number, report)

    async def _answered(self, number: int, report: CellReport | None) -> None:
        self._saver.executed(number)
        if report is None:
            self._book.owe_notes([unknown_note(number)])
            self._book.owe_close(number, "outcome_unknown")
            return
        self._book.owe_notes([result_note(number, report)])
        self._book.owe_close(
            number,
            report.outcome,
            bound=report.bound,
            removed=report.removed,
            variable_count=report.variable_count,
        )
        rest = self._rest(number, report)
        self._saver.texts.add(CellText(number, "", output_of(report), report.output_bytes, rest))
        if not report.namespace_kept:
            await self._incarnation.emptied(why_killed(report), resumed=report.resumed)

    def _rest(self, number: int, report: CellReport) -> str:
        """For who asks for the result. Which limit a cell had is not known any more: what reached it has only text."""
        if report.outcome == "timeout":
            return ""
        order = self._limits.order(number, "", self._limits.time_limit)
        told = Told(self._book.session.session_id, None, self._limits.profile)
        return rest_of(result_of(report, order, told), pictures=True)

    # an older agent

    async def _renew(self, sandbox: Sandbox) -> None:
        """Where a fresh sandbox would have another agent, the session is saved and wakes in one; where it cannot be
        saved, this one serves on until it can.
        """
        if self._incarnation.sandbox is not sandbox or not await self._sandboxes.survivors.is_outdated(sandbox):
            return
        try:
            slept = await self._keeping.hibernate(Job())
        except (NamespaceLostError, SandboxLostError) as error:
            await self._incarnation.gone(error)
            slept = False
        self._book.owe_notes([outdated_note(replaced=slept)])
        await self._book.try_to_settle()
