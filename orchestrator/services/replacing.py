"""Clear, rollback and fork: a head of their own, after which nothing older comes back by itself."""

import functools
import logging
from collections.abc import Awaitable, Callable, Sequence

from orchestrator.domain.errors import InvalidRequestError, OrchestratorError
from orchestrator.domain.snapshots import (
    SnapshotDamagedError,
    SnapshotIntent,
    SnapshotNotFoundError,
    SnapshotVoidedError,
    StoredSnapshot,
)
from orchestrator.services.about import about
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.equipment import Equipment
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.keeping import Keeping
from orchestrator.services.saving import Saver

logger = logging.getLogger(__name__)


class Replacing:
    """What one session can be replaced by, in its queue's turn. Each is intended before anything is changed."""

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
        self._snapshots = equipment.snapshots
        self._pieces = equipment.pieces

    async def clear(self) -> None:
        """An empty namespace; files stay."""
        await self._quiet()
        if not await self._emptied_and_saved():
            await self._empty()
        self._book.owe_clear()
        await self._book.settle()
        self._saver.cleared(files_stay=self._incarnation.sandbox is not None)
        self._incarnation.filled()

    async def _emptied_and_saved(self) -> bool:
        """The usual way in a live sandbox: its files are saved beside the empty namespace before that is head, since
        those of the last head may be older, and a crash would bring them back unsaid. False where that cannot be done.
        """
        sandbox = self._incarnation.sandbox
        if sandbox is None:
            return False
        intent = await self._intend()
        try:
            await self._incarnation.empty_worker()
            if self._incarnation.sandbox is not sandbox:
                return False  # it was lost
            await self._saver.save(sandbox.agent, replacing=intent)
        except OrchestratorError as error:
            logger.warning("cleared without its files being saved: %s", error, extra=about(self._book.session))
            return False
        finally:
            if self._saver.head != intent.sequence:
                self._book.owe_void()
                await self._book.try_to_settle()
        self._book.replaced()
        return True

    async def _empty(self) -> None:
        """The way without a sandbox, or without room on the disk: the files of the head stay."""
        emptied = self._incarnation.sandbox is not None and self._incarnation.serving is None
        record = await self._saver.record()
        if record is not None and record.head is not None:
            try:
                await self._replace(functools.partial(self._files_of, record.head))
            except BaseException:
                if emptied:  # what the head has comes back, and no more
                    await self._incarnation.emptied("the session was being cleared, which could not be finished")
                    await self._book.try_to_settle()
                raise
        else:
            self._book.owe_void()  # nor may one come back that never became head
        if not emptied:
            await self._incarnation.empty_worker()

    async def roll_back(self, sequence: int) -> StoredSnapshot:
        """Stand at that snapshot. What is there now is saved first, where it can be, so that it can be had again."""
        await self._quiet()
        # Held open, so that the save does not push it out of the history.
        async with await self._pieces.open_snapshot(self._book.session.key, sequence):
            unsaved = await self._unsaved()
            stored = await self._replace(functools.partial(self._restated, sequence))
        self._book.owe_notes(unsaved)
        await self._incarnation.leave()
        return stored

    async def _unsaved(self) -> Sequence[str]:
        """Save what is there before it is replaced; where that fails, a sentence for the next caller."""
        try:
            await self._keeping.save()
        except OrchestratorError as error:
            logger.warning("replaced without having been saved: %s", error, extra=about(self._book.session))
            since = self._saver.saved_through
            kept = "nothing of it was saved before" if since is None else f"it was saved up to execution {since}"
            return [f"Before the rollback the session could not be saved ({error.message.rstrip('.')}): {kept}."]
        return ()

    async def fork_from(self, source: str, sequence: int) -> StoredSnapshot:
        """Begin as a copy of a snapshot of the session with that key. Raises InvalidRequestError where this session
        has begun as something else.
        """
        await self._quiet()
        session, record = await self._book.look(), await self._saver.record()
        if session.executions or (record is not None and record.head is not None):
            raise InvalidRequestError(f"There is a session {session.session_id!r} already.", hint="Choose another id.")
        return await self._replace(functools.partial(self._pieces.fork, source, sequence))

    async def _quiet(self) -> None:
        await self._book.settle()
        self._saver.abandon()
        await self._saver.ended()

    async def _replace(self, make: Callable[[SnapshotIntent], Awaitable[StoredSnapshot]]) -> StoredSnapshot:
        """A new head, or nothing changed: what was made of one that failed is not found by a recovery either."""
        intent = await self._intend()
        try:
            stored = await make(intent)
            await self._make_head(stored)
        except BaseException:
            self._book.owe_void()
            await self._book.try_to_settle()
            raise
        self._saver.replaced(intent, stored)
        self._book.replaced()
        return stored

    async def _intend(self) -> SnapshotIntent:
        session = self._book.session
        intent = await self._snapshots.intend_replacement(session.key, session.incarnation)
        if intent is None:
            raise await self._book.refused()
        return intent

    async def _make_head(self, stored: StoredSnapshot) -> None:
        if not await self._snapshots.snapshot_committed(self._book.session.key, stored):
            raise SnapshotVoidedError("Something newer came first; nothing was changed.", hint="Try again.")

    async def _restated(self, sequence: int, intent: SnapshotIntent) -> StoredSnapshot:
        return await self._pieces.restate(intent, sequence)

    async def _files_of(self, head: int, intent: SnapshotIntent) -> StoredSnapshot:
        try:
            return await self._pieces.restate(intent, head, namespace=False)
        except (SnapshotDamagedError, SnapshotNotFoundError):
            # Its files are beyond reach as well; what is in the sandbox is saved next.
            return await self._pieces.restate(intent, None)
