"""One session while it is in use: its queue, its sandbox, and what its callers have yet to be told."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from orchestrator.domain.errors import BusyError, NamespaceLostError, OrchestratorError, SandboxLostError
from orchestrator.domain.model import (
    CellText,
    ExecutionResult,
    Namespace,
    Session,
)
from orchestrator.domain.plan import ContainerRow, SessionRow
from orchestrator.domain.snapshots import SnapshotNotFoundError, StoredSnapshot
from orchestrator.domain.telemetry import Subject
from orchestrator.services.adopting import Adopting
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.equipment import Equipment
from orchestrator.services.executing import Executing
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.jobs import Job, JobQueue, Kind
from orchestrator.services.keeping import Keeping
from orchestrator.services.listings import last_known, saved_namespace, with_notes
from orchestrator.services.replacing import Replacing
from orchestrator.services.results import (
    loss_note,
)
from orchestrator.services.saving import Saver
from orchestrator.services.slots import Ticket

T = TypeVar("T")


class LiveSession:
    """Everything that happens to one session happens in its queue, one thing after the other."""

    def __init__(self, session: Session, equipment: Equipment, unused: Callable[["LiveSession"], None]) -> None:
        self._book = Bookkeeping(session, equipment.records, equipment.snapshots)
        self._snapshots = equipment.snapshots
        self._pieces = equipment.pieces
        self._clock = equipment.clock
        self._telemetry = equipment.telemetry
        limits = equipment.limits
        self._unused = unused
        self._saver = Saver(
            self._book,
            snapshots=equipment.snapshots,
            pieces=equipment.pieces,
            tasks=equipment.tasks,
            clock=equipment.clock,
            limits=limits.saving,
        )
        self._incarnation = Incarnation(
            self._book,
            self._saver,
            sandboxes=equipment.sandboxes,
            pieces=equipment.pieces,
            restore_bound=limits.saving.restore_bound,
        )
        self._keeping = Keeping(self._book, self._saver, self._incarnation, equipment.spent)
        self._executing = Executing(self._book, self._saver, self._incarnation, equipment, later=self._later)
        self._replacing = Replacing(self._book, self._saver, self._incarnation, self._keeping, equipment)
        self._adopting = Adopting(self._book, self._saver, self._incarnation, self._keeping, equipment)
        self._queue = JobQueue(equipment.tasks, f"session {session.key[:8]}", limit=limits.queue, idle=self._idle)
        self.adopt()

    @property
    def session(self) -> Session:
        """The record as of its last change of state."""
        return self._book.session

    @property
    def row(self) -> SessionRow:
        """What plans ask of it."""
        busy = self._queue.busy or self._adopting.under_way
        active_at = self._clock.monotonic() if busy else self._executing.ended_at
        return SessionRow(self.session.key, busy, active_at, self._saver.unsaved_since)

    @property
    def container(self) -> ContainerRow | None:
        """What plans ask of its sandbox, if it has one."""
        return None if self._incarnation.sandbox is None else self._saver.container

    # calls

    async def execute(self, code: str, time_limit: float, ticket: Ticket) -> ExecutionResult:
        """Run a cell when its turn comes."""
        since = self._telemetry.mark()

        async def in_turn(job: Job[ExecutionResult]) -> ExecutionResult:
            with self._telemetry.turn(since, Subject(self.session.tenant, self.session.key)):
                return await self._executing.execute(job, code, time_limit, ticket)

        return await self._submit(in_turn)

    async def list_variables(self) -> Namespace:
        """Describe the namespace: at once from what is known while something is under way, or without a sandbox."""
        if self._queue.busy or self._keeping.hibernating or self._adopting.under_way or self._adopting.stuck:
            self.adopt()
            listing = await self._snapshots.saved_listing_of(self.session.key)
            names = await self._book.binding_executions()
            return last_known(listing, names)
        return await self._submit(lambda _: self._list())

    def text_of(self, number: int) -> CellText | None:
        """What an execution said, where that is not in the session's file yet."""
        return self._saver.texts.find(number)

    def interrupt(self) -> bool:
        """Have the call that runs end early; whether one runs."""
        return self._queue.interrupt()

    async def clear(self) -> None:
        """Interrupt what runs, and empty the namespace when its turn comes."""
        await self._submit(lambda _: self._replacing.clear(), kind="interrupting")

    async def save(self) -> StoredSnapshot:
        """Save now, and wait for it. Raises SnapshotNotFoundError for a session that never held anything."""
        return await self._submit(lambda _: self._save())

    async def roll_back(self, sequence: int) -> StoredSnapshot:
        """Interrupt what runs, and let the session stand at that snapshot."""
        return await self._submit(lambda _: self._replacing.roll_back(sequence), kind="interrupting")

    async def fork_from(self, source: str, sequence: int) -> StoredSnapshot:
        """Begin as a copy of another session's snapshot."""
        return await self._submit(lambda _: self._replacing.fork_from(source, sequence))

    async def _submit(self, work: Callable[[Job[T]], Awaitable[T]], *, kind: Kind = "call") -> T:
        self.adopt()

        async def in_turn(job: Job[T]) -> T:
            self._adopting.require_decided()
            return await work(job)

        return await self._queue.submit(in_turn, kind=kind)

    def adopt(self) -> None:
        """Decide on the sandbox that an earlier owner has left to it, if there is one, before anything else."""
        if self._adopting.undecided and not self._adopting.under_way and not self._queue.is_ended:
            self._queue.begin(self._adopt)
            self._adopting.under_way = True

    async def _adopt(self, job: Job[None]) -> None:
        try:
            await self._adopting.adopt(job)
        finally:
            self._adopting.under_way = False

    def _later(self, work: Callable[[], Awaitable[None]]) -> None:
        with suppress(OrchestratorError):  # it ends, and the next owner does it
            self._queue.begin(lambda _: work())

    # what plans want

    async def save_when_due(self, *, first: bool) -> None:
        """Begin a snapshot between two cells; with `first`, before the calls that wait."""
        await self._submit(lambda _: self._keeping.begin_to_save(), kind="next" if first else "yielding")

    async def hibernate(self, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Save all and remove the sandbox, unless a call comes or it is `wanted` no more. Whether it was done."""
        return await self._submit(lambda job: self._keeping.hibernate(job, wanted), kind="yielding")

    async def put_to_sleep(self) -> bool:
        """Hibernate because somebody says so; False where it has no sandbox. Raises BusyError where it was not done."""
        if await self._submit(lambda job: self._keeping.hibernate(job, lambda: True), kind="yielding"):
            return True
        if self._incarnation.sandbox is None:
            return False
        raise BusyError("The session was not hibernated: a call came, or it cannot be saved.", hint="Try again.")

    async def wake(self, ticket: Ticket) -> None:
        """Have a sandbox, with what the session stands at in it."""

        async def in_turn(job: Job[None]) -> None:
            job.can_be_stopped_by(ticket.give_up)
            await self._incarnation.agent(ticket)

        await self._submit(in_turn)

    async def in_turn(self, work: Callable[[Job[T], Incarnation], Awaitable[T]]) -> T:
        """Do that when nothing else happens in the session; it is asked to stop when a call comes."""
        return await self._submit(lambda job: work(job, self._incarnation), kind="yielding")

    # ends

    def gone(self, error: OrchestratorError) -> None:
        """It is deleted, in whose turn this is: whoever has hold of it still is answered with `error`."""
        self._unused(self)
        self._queue.end(error)

    async def retire(self, error: OrchestratorError) -> None:
        """Answer all calls with `error` and hibernate, where that can be done; `let_go` does the rest."""
        self._queue.end(error)
        if self._incarnation.sandbox is None:
            self._queue.abort()  # a start under way is of no use any more
        await self._queue.ended()
        await self._saver.ended()
        await self._keeping.hibernate(Job())
        await self._saver.texts.write()
        await self._book.try_to_settle()

    async def let_go(self, error: OrchestratorError) -> None:
        """Answer all calls with `error`, and leave the sandbox alive to the next owner, with what runs in it."""
        self._queue.end(error)
        self.abort()  # first: what runs must not take the end of the connection for that of the sandbox
        await self._queue.ended()
        await self._saver.ended()
        await self._incarnation.let_go()
        self._book.owe_notes(self._saver.log.taken())
        await self._book.try_to_settle()

    async def end(self, error: OrchestratorError) -> None:
        """Answer all calls with `error` and have the sandbox destroyed: `removed` waits for that. The row stays."""
        self._queue.end(error)
        # Without its sandbox a running cell ends at once; a start under way is cut short instead.
        if self._incarnation.sandbox is not None:
            self._incarnation.drop()
        else:
            self._queue.abort()
        await self._queue.ended()
        self._incarnation.drop()
        await self._saver.ended()

    async def removed(self) -> None:
        """Wait until the last sandbox is gone."""
        await self._incarnation.removed()

    def abort(self) -> None:
        """Cut short what still runs after `end` or `retire`."""
        self._queue.abort()
        self._saver.cut()

    def _idle(self) -> None:
        if self._incarnation.sandbox is None and self._book.settled and not self._saver.log.pending:
            self._unused(self)

    # in the queue

    async def _list(self) -> Namespace:
        await self._book.try_to_settle()
        listing = await self._snapshots.saved_listing_of(self.session.key)
        sandbox = self._incarnation.serving
        notes = [*self._book.untold_notes, *self._saver.log.pending]
        if self._book.untold is not None:
            notes.insert(0, loss_note(self._book.untold))
        if sandbox is not None:
            try:
                return with_notes(await sandbox.agent.list_variables(), listing, notes)
            except (NamespaceLostError, SandboxLostError) as error:
                await self._incarnation.gone(error)
                notes += await self._book.try_to_settle()
                if self._book.untold is not None:
                    notes.insert(0, loss_note(self._book.untold))
        return saved_namespace(listing, notes)

    async def _save(self) -> StoredSnapshot:
        stored = await self._keeping.save()
        if stored is not None:
            return stored
        record = await self._saver.record()
        if record is None or record.head is None:
            raise SnapshotNotFoundError("The session holds nothing that could be saved.")
        return await self._pieces.snapshot(self.session.key, record.head)
