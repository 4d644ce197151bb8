"""A session's sandbox: started, woken from the snapshot, found lost, hibernated. Everything in its queue's turn."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

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
)
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.ladder import resumed_from
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.saving import Saver
from orchestrator.services.saving_notes import unreadable_note
from orchestrator.services.slots import Slot, Ticket
from orchestrator.services.survivors import Sandbox
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
        sandbox = await self.whole() or await self._start(ticket)
        return sandbox.agent

    async def whole(self) -> Sandbox | None:
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
                await ticket.take_turn()
                return await self._start_in(slot, ticket)
        finally:
            self._waking = None

    async def _start_in(self, slot: Slot, ticket: Ticket) -> Sandbox:
        creating = await self._book.creating()
        try:
            sandbox = self.sandbox = await self._sandboxes.start(
                slot, creating.key, creating.incarnation, creating.environment, ticket.terms.profile
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
            # It may be a copy of an older moment; and where there is nothing to give back, it need not wait for that.
            await sandbox.agent.clear()
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
                await self._book.try_to_settle()  # the next owner finds it alive, and not what it lacks
        self._saver.begins(stored, whole=whole, environment=sandbox.environment)
        self.filled()

    # losses

    async def lost(self, reason: str, *, told: str | None = None) -> ResumedFrom:
        """The sandbox is gone, and with it what no snapshot holds: where the session stands. `told` is what callers
        hear of why.
        """
        await self._saves_over()  # it may have come through, and then less is lost
        self.drop()
        self._book.owe_loss(told or f"its sandbox was lost: {reason}")
        self._book.owe_hibernation()
        return self.asleep

    async def _saves_over(self) -> None:
        """None is under way, and what the last one came to is known. What it found gone is just being noted."""
        await self._saver.ended()
        self._saver.found_gone()
        with contextlib.suppress(OrchestratorError):  # the records tell a loss by what they know themselves
            await self._saver.record()

    @property
    def asleep(self) -> ResumedFrom:
        """Where the session stands without a sandbox."""
        return ResumedFrom("new_sandbox", self._saver.stands_at)

    async def emptied(self, cause: str, *, before: int | None = None, resumed: int | None = None) -> ResumedFrom:
        """The worker is gone and another stands in the same sandbox: where the session stands.

        A copy of the worker that has `resumed` serves on, unless the head is newer.
        """
        await self._saves_over()
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
        if await self.whole() is None and (await self._book.look()).state not in ASLEEP:
            self._book.owe_loss("nobody served it any more")
            self._book.owe_hibernation()
            await self._book.settle()

    # what it holds

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
        self._sandboxes.survivors.adopted(self._book.session.key)

    async def let_go(self) -> None:
        """The owner ends: the sandbox lives on, and what it holds, for the next one to adopt."""
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            await self._sandboxes.survivors.let_go(sandbox)

    def drop(self) -> None:
        """Destroy the sandbox in the background, also one that was left and that nobody has decided on."""
        self._saver.abandon()
        if self.sandbox is not None:
            self._removal = self._sandboxes.end(self.sandbox)
            self.sandbox = None
        elif self._sandboxes.survivors.left_to(self._book.session.key):
            self._removal = self._sandboxes.give_up(self._book.session.key)
        self._hollow = False

    async def removed(self) -> None:
        """Wait until the last sandbox is gone."""
        if self._removal is not None:
            await asyncio.wait([self._removal])
