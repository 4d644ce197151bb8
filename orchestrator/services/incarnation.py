"""A session's sandbox: started, woken from the snapshot, found lost, hibernated. Everything in its queue's turn."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from orchestrator.domain.errors import (
    NamespaceLostError,
    OrchestratorError,
    SandboxLostError,
    StoreUnreachableError,
    StoreUnusableError,
)
from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.model import ResumedFrom
from orchestrator.domain.ports import Agent
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import (
    SaveFailedError,
    SectionName,
    SnapshotDamagedError,
    SnapshotNotFoundError,
    StoredSnapshot,
)
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.jobs import Job
from orchestrator.services.ladder import resumed_from
from orchestrator.services.sandboxes import Sandbox, Sandboxes
from orchestrator.services.saving import Saver
from orchestrator.services.saving_notes import unreadable_note
from orchestrator.services.slots import Slot, Ticket
from orchestrator.services.waking import BOTH, NAMESPACE, wake

logger = logging.getLogger(__name__)


class Incarnation:
    """The present sandbox of a session, if it has one, and the notes of how it came to hold what it holds."""

    def __init__(
        self, book: Bookkeeping, saver: Saver, *, sandboxes: Sandboxes, pieces: Pieces, restore_bound: float
    ) -> None:
        self._book = book
        self._saver = saver
        self._sandboxes = sandboxes
        self._pieces = pieces
        self._restore_bound = restore_bound
        self._waking: Ticket | None = None  # of the call that a sandbox is made for
        self._hollow = False  # the worker does not hold what the session stands at
        self._held: int | None = None  # the execution whose namespace the worker was last given; None: none was
        self._removal: asyncio.Task[None] | None = None
        self.hibernating = False
        self.sandbox: Sandbox | None = None

    @property
    def serving(self) -> Sandbox | None:
        """The sandbox, where it holds the session's namespace."""
        return None if self._hollow else self.sandbox

    async def agent(self, ticket: Ticket) -> Agent:
        """Of the session's live sandbox, its namespace in it; a fresh one where it has none, for which it may wait.

        Raises BusyError, EngineUnavailableError, StoreFullError, StoreUnreachableError, SandboxLostError and
        SaveFailedError; the session is `hibernated` then, with what its head holds.
        """
        sandbox = await self._whole() or await self._start(ticket)
        return sandbox.agent

    async def _whole(self) -> Sandbox | None:
        """The live sandbox with the session's namespace in it, if there is one; a lost one is recorded as that."""
        if self.sandbox is not None and self.sandbox.agent.lost is not None:
            await self.lost(self.sandbox.agent.lost)
        elif (found := self._saver.found_gone()) is not None:
            await self.gone(found)
        await self._book.settle()
        if self._book.session.state in ASLEEP:
            self.drop()  # it was saved, and only the answer of the records went missing
        if self.sandbox is not None and self._hollow:
            await self._refill(self.sandbox)
        return self.sandbox

    async def _start(self, ticket: Ticket) -> Sandbox:
        self._waking = ticket
        try:
            # What waits is not `creating` yet: that state is to be over soon.
            async with self._sandboxes.slot(self._book.session.tenant, ticket) as slot:
                return await self._start_in(slot)
        finally:
            self._waking = None

    async def _start_in(self, slot: Slot) -> Sandbox:
        creating = await self._book.creating()
        try:
            sandbox = self.sandbox = await self._sandboxes.start(
                slot, creating.key, creating.incarnation, creating.environment
            )
            await self._fill(sandbox, BOTH)
            await self._book.ready()
            self._require_kept()
            return sandbox  # noqa: TRY300 - the last thing that may fail is above
        except BaseException:
            self.drop()
            self._book.owe_hibernation()
            await self._book.try_to_settle()
            raise

    def _require_kept(self) -> None:
        if self.sandbox is None:
            raise SandboxLostError("The call was stopped while the session woke.", hint="Call again.")

    def stop_waking(self) -> None:
        """Somebody wants the session for something else: what waits for a sandbox waits no longer, and what is just
        being restored comes back another time.
        """
        if self._waking is not None:
            self._waking.give_up()
            if self.sandbox is not None:
                self.drop()

    async def _refill(self, sandbox: Sandbox) -> None:
        """The worker was killed and another stands: the head's namespace comes back, the files never went."""
        try:
            await sandbox.agent.clear()  # it may be a copy of an older moment
            await self._fill(sandbox, NAMESPACE)
        except (SaveFailedError, SandboxLostError, StoreUnreachableError) as error:
            await self.lost(error.message)
            raise

    async def _fill(self, sandbox: Sandbox, sections: Sequence[SectionName]) -> None:
        record = await self._saver.record()
        stored, whole = None, False
        if record is not None and record.head is not None:
            try:
                woken = await wake(sandbox.agent, self._pieces, record, sections=sections, bound=self._restore_bound)
            except StoreUnreachableError:
                raise  # it may be whole: the session stays asleep, and the next call tries again
            except (SnapshotNotFoundError, SnapshotDamagedError, StoreUnusableError) as error:
                stuck = isinstance(error, StoreUnusableError)
                self._book.owe_notes([unreadable_note(record.head, error.message, stuck=stuck)])
                await self._book.try_to_settle()  # before the agent forgets that it lacks something
                await sandbox.agent.clear()  # a part of it may have come
            else:
                stored, whole = woken.stored, woken.whole and not woken.skipped
                self._book.owe_notes(woken.notes(record.head, python=sandbox.python, environment=sandbox.environment))
        self._saver.begins(stored, whole=whole, environment=sandbox.environment)
        self.filled()

    # losses

    async def lost(self, reason: str, *, told: str | None = None) -> ResumedFrom:
        """The sandbox is gone, and with it what no snapshot holds: where the session stands. `told` is what callers
        hear of why. Idempotent.
        """
        if self.sandbox is not None or self._sandboxes.left_to(self._book.session.key):
            await self._saver.ended()  # it may have come through, and then less is lost
            self.drop()
            self._book.owe_loss(told or f"its sandbox was lost: {reason}")
            self._book.owe_hibernation()
        return ResumedFrom("new_sandbox", self._saver.stands_at)

    async def emptied(self, cause: str, *, before: int | None = None, resumed: int | None = None) -> ResumedFrom:
        """The worker is gone and another stands in the same sandbox: where the session stands.

        A copy of the worker that has `resumed` serves on, unless the head is newer.
        """
        await self._saver.ended()
        stands = resumed_from(resumed, self._held, self._saver.stands_at)
        savepoint = stands.execution if stands.rung == "savepoint" else None
        self._book.owe_loss(cause, before=before, stands_at=savepoint)
        self._hollow = stands.rung != "savepoint"
        return stands

    async def gone(self, error: NamespaceLostError | SandboxLostError) -> None:
        """A request found out that one or the other has happened."""
        if isinstance(error, NamespaceLostError):
            await self.emptied(error.cause, resumed=error.resumed)
        elif self.sandbox is not None:
            await self.lost(self.sandbox.agent.lost or error.message)

    async def mend(self) -> None:
        """Nothing runs: the record is to say what there is. What it says of a sandbox that nobody has is a loss."""
        if await self._whole() is None and (await self._book.look()).state not in ASLEEP:
            self._book.owe_loss("nobody served it any more")
            self._book.owe_hibernation()
            await self._book.settle()

    # saving

    async def save(self) -> StoredSnapshot | None:
        """Save what there is and wait for it; None where there is no sandbox. Raises what stood in the way."""
        try:
            sandbox = await self._whole()
            return None if sandbox is None else await self._saver.save(sandbox.agent)
        except (NamespaceLostError, SandboxLostError) as error:
            await self.gone(error)
            await self._book.try_to_settle()
            if isinstance(error, SandboxLostError) or self.serving is None:
                raise
        # A copy serves on, which can be saved as well.
        return await self._saver.save(self.serving.agent)

    async def begin_to_save(self) -> None:
        """Save in the background; what stands in the way is told, and it is tried again."""
        try:
            sandbox = await self._whole()
            if sandbox is not None:
                await self._saver.begin(sandbox.agent)
        except OrchestratorError as error:
            await self._not_saved(error)

    async def _not_saved(self, error: OrchestratorError) -> None:
        self._saver.failed(error)
        if isinstance(error, NamespaceLostError | SandboxLostError):
            await self.gone(error)
        await self._book.try_to_settle()

    # ends

    async def hibernate(self, job: Job[bool], wanted: Callable[[], bool] = lambda: True) -> bool:
        """Save all, then remove the sandbox; False where that could not be done, and the session serves on.

        Never removes a sandbox that holds what no snapshot has. `wanted` is asked when its turn has come.
        """
        if not wanted():
            return False
        try:
            sandbox = await self._whole()
        except OrchestratorError as error:
            await self._not_saved(error)
            return False
        if sandbox is None or (self._saver.container.saving and not await self._alone(job)):
            return False
        if not await self._hibernated(sandbox, job):
            self._book.owe_ready()
            await self._book.try_to_settle()
        # Asked of the record, since the answer to the change itself may have gone missing.
        if self.sandbox is None or self._book.session.state not in ASLEEP:
            return False
        # The snapshot knows nothing of what it holds only in part: what is yet to be told outlives this process, too.
        self._book.owe_notes(self._saver.log.taken())
        await self._book.try_to_settle()
        self.drop()
        return True

    async def _alone(self, job: Job[bool]) -> bool:
        """Wait for a save that goes on beside the cells; False where a call came first, which does not wait for it."""
        if job.stopped:
            return False
        waiting = asyncio.create_task(self._saver.ended(), name="wait for a save")

        def stop() -> None:
            waiting.cancel()

        job.can_be_stopped_by(stop)
        try:
            await asyncio.wait([waiting])
        finally:
            waiting.cancel()
        return not job.stopped

    async def _hibernated(self, sandbox: Sandbox, job: Job[bool]) -> bool:
        self.hibernating = True
        try:
            activity = await self._book.snapshotting()
            if activity is None or job.stopped:
                return False
            job.can_be_stopped_by(self._saver.abandon)
            await self._saver.save(sandbox.agent, final=True)
            return not job.stopped and await self._book.hibernate_saved(activity)
        except OrchestratorError as error:
            logger.warning("session %s: not hibernated: %s", self._book.session.key, error)
            if isinstance(error, NamespaceLostError | SandboxLostError):
                await self.gone(error)
            return False
        except BaseException:
            self._book.owe_ready()
            await self._book.try_to_settle()
            raise
        finally:
            self.hibernating = False

    async def empty_worker(self) -> None:
        """An empty namespace in the live sandbox. Until `filled`, the next call brings the head's back."""
        if self.sandbox is None:
            return
        try:
            await self.sandbox.agent.clear()
            self._hollow = True
        except SandboxLostError as error:
            await self.lost(error.message)
            await self._book.settle()

    def filled(self) -> None:
        """The worker holds what the head says."""
        self._hollow = False
        self._held = self._saver.stands_at

    async def leave(self) -> None:
        """The sandbox goes, nothing is lost, and the next call wakes what the head holds."""
        if self.sandbox is not None:
            self.drop()
            self._book.owe_hibernation()
            await self._book.settle()

    def adopt(self, sandbox: Sandbox) -> None:
        """A sandbox that was found alive is the session's; what its worker lacks, its agent says."""
        self.sandbox = sandbox
        self._sandboxes.adopted(self._book.session.key)

    async def let_go(self) -> None:
        """The owner ends: the sandbox lives on, and what it holds, for the next one to adopt."""
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            await self._sandboxes.let_go(sandbox)

    def drop(self) -> None:
        """Destroy the sandbox in the background, also one that was left and that nobody has decided on."""
        self._saver.abandon()
        if self.sandbox is not None:
            self._removal = self._sandboxes.end(self.sandbox)
            self.sandbox = None
        elif self._sandboxes.left_to(self._book.session.key):
            self._removal = self._sandboxes.give_up(self._book.session.key)
        self._hollow = False

    async def removed(self) -> None:
        """Wait until the last sandbox is gone."""
        if self._removal is not None:
            await asyncio.wait([self._removal])
