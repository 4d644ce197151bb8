"""A session's sandbox: started, woken from the snapshot, found lost, hibernated. Everything in its queue's turn."""

import asyncio
import logging
from collections.abc import Sequence

from orchestrator.domain.errors import NamespaceLostError, OrchestratorError, SandboxLostError, StoreUnusableError
from orchestrator.domain.ports import Agent
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import (
    SaveFailedError,
    SectionName,
    SnapshotDamagedError,
    SnapshotNotFoundError,
)
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.jobs import Job
from orchestrator.services.sandboxes import Sandbox, Sandboxes
from orchestrator.services.saving import Saver
from orchestrator.services.saving_notes import unreadable_note
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
        self._hollow = False  # a fresh worker that has not been given the session's namespace back
        self._removal: asyncio.Task[None] | None = None
        self.sandbox: Sandbox | None = None

    @property
    def serving(self) -> Sandbox | None:
        """The sandbox, where it holds the session's namespace."""
        return None if self._hollow else self.sandbox

    async def agent(self) -> Agent:
        """Of the session's live sandbox, its namespace in it; a fresh one where it has none.

        Raises BusyError, EngineUnavailableError, StoreFullError, SandboxLostError, SaveFailedError; the session is
        `hibernated` then, with what its head holds.
        """
        if self.sandbox is not None and self.sandbox.agent.lost is not None:
            await self.lost(self.sandbox.agent.lost)
        await self._book.settle()
        if self.sandbox is None:
            await self._start()
        elif self._hollow:
            await self._refill()
        if self.sandbox is None:
            raise AssertionError("a start that fails raises")
        return self.sandbox.agent

    async def _start(self) -> None:
        creating = await self._book.creating()
        try:
            sandbox = self.sandbox = await self._sandboxes.start(
                creating.key, creating.incarnation, creating.environment
            )
            await self._fill(sandbox, BOTH)
            await self._book.ready()
        except BaseException:
            self.drop()
            self._book.owe_hibernation()
            await self._book.try_to_settle()
            raise

    async def _refill(self) -> None:
        """The worker was killed and a fresh one stands: the head's namespace comes back, the files never went."""
        if self.sandbox is None:
            return
        try:
            await self._fill(self.sandbox, NAMESPACE)
        except (SaveFailedError, SandboxLostError) as error:
            await self.lost(error.message)
            raise

    async def _fill(self, sandbox: Sandbox, sections: Sequence[SectionName]) -> None:
        record = await self._saver.record()
        stored, whole = None, False
        if record is not None and record.head is not None:
            try:
                woken = await wake(sandbox.agent, self._pieces, record, sections=sections, bound=self._restore_bound)
            except (SnapshotNotFoundError, SnapshotDamagedError, StoreUnusableError) as error:
                self._book.owe_notes([unreadable_note(record.head, error.message)])
            else:
                stored, whole = woken.stored, woken.whole and not woken.skipped
                notes = woken.notes(record.head, python=sandbox.python, environment=sandbox.environment)
                if notes:
                    self._book.owe_notes(notes)
        self._saver.begins(stored, whole=whole, environment=sandbox.environment)
        self._hollow = False

    # losses

    async def lost(self, reason: str) -> None:
        """The sandbox is gone, and with it what no snapshot holds."""
        await self._saver.ended()  # it may have come through, and then less is lost
        self.drop()
        self._book.owe_loss(f"its sandbox was lost: {reason}")
        self._book.owe_hibernation()

    async def emptied(self, cause: str, *, before: int | None = None) -> None:
        """The worker is gone and a fresh one stands in the same sandbox."""
        await self._saver.ended()
        self._book.owe_loss(cause, before=before)
        self._hollow = True

    async def gone(self, error: NamespaceLostError | SandboxLostError) -> None:
        """A request found out that one or the other has happened."""
        if isinstance(error, NamespaceLostError):
            await self.emptied(error.cause)
        elif self.sandbox is not None:
            await self.lost(self.sandbox.agent.lost or error.message)

    # ends

    async def hibernate(self, job: Job[bool]) -> bool:
        """Save all, then remove the sandbox; False where that could not be done, and the session serves on.

        Never removes a sandbox that holds what no snapshot has.
        """
        sandbox = self.sandbox
        if sandbox is None or sandbox.agent.lost is not None or not self._book.settled:
            return False
        try:
            if self._hollow:
                await self._refill()  # its files are newer than those of the head
        except OrchestratorError as error:
            logger.warning("session %s: not hibernated: %s", self._book.session.key, error)
            return False
        await self._saver.ended()
        activity = await self._book.snapshotting()
        if activity is None:
            return False
        done = False
        try:
            if not job.stopped:
                job.can_be_stopped_by(self._saver.abandon)
                await self._saver.save(sandbox.agent, final=True, unwanted=lambda: job.stopped)
                done = await self._book.hibernate_saved(activity)
        except OrchestratorError as error:
            logger.warning("session %s: not hibernated: %s", self._book.session.key, error)
        finally:
            if not done:
                self._book.owe_ready()
                await self._book.try_to_settle()
        if done:
            self.drop()
        return done

    async def save_if_possible(self) -> None:
        """Save what is there, before something else takes its place."""
        sandbox = self.sandbox
        if sandbox is None or sandbox.agent.lost is not None or self._hollow:
            return
        try:
            await self._saver.save(sandbox.agent)
        except OrchestratorError as error:
            logger.warning("session %s: replaced without having been saved: %s", self._book.session.key, error)

    async def empty_worker(self) -> None:
        """An empty namespace in the live sandbox. Until `filled`, the next call brings the head's back."""
        if self.sandbox is None:
            return
        self._hollow = True
        try:
            await self.sandbox.agent.clear()
        except SandboxLostError as error:
            await self.lost(error.message)
            await self._book.settle()

    def filled(self) -> None:
        """The worker holds what the head says."""
        self._hollow = False

    async def leave(self) -> None:
        """The sandbox goes, nothing is lost, and the next call wakes what the head holds."""
        if self.sandbox is not None:
            self.drop()
            self._book.owe_hibernation()
            await self._book.settle()

    def drop(self) -> None:
        """Destroy the sandbox in the background."""
        self._saver.abandon()
        if self.sandbox is not None:
            self._removal = self._sandboxes.end(self.sandbox)
            self.sandbox = None
        self._hollow = False

    async def removed(self) -> None:
        """Wait until the last sandbox is gone."""
        if self._removal is not None:
            await asyncio.wait([self._removal])
