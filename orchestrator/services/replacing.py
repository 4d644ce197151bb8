"""Clear, rollback and fork: a head of their own, after which nothing older comes back by itself."""

from orchestrator.domain.snapshot_ports import Pieces, SnapshotRecords
from orchestrator.domain.snapshots import (
    SnapshotDamagedError,
    SnapshotIntent,
    SnapshotNotFoundError,
    SnapshotVoidedError,
    StoredSnapshot,
)
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.saving import Saver


class Replacing:
    """What one session can be replaced by, in its queue's turn. Each is intended before anything is changed."""

    def __init__(
        self,
        book: Bookkeeping,
        saver: Saver,
        incarnation: Incarnation,
        *,
        snapshots: SnapshotRecords,
        pieces: Pieces,
    ) -> None:
        self._book = book
        self._saver = saver
        self._incarnation = incarnation
        self._snapshots = snapshots
        self._pieces = pieces

    async def clear(self) -> None:
        """An empty namespace; files stay."""
        await self._quiet()
        record = await self._saver.record()
        head = None if record is None else record.head
        intent = None if head is None else await self._intend()
        await self._incarnation.empty_worker()
        if head is not None and intent is not None:
            await self._make_head(intent, await self._files_of(intent, head))
        self._book.owe_clear()
        await self._book.settle()
        self._saver.cleared()
        self._incarnation.filled()

    async def roll_back(self, sequence: int) -> StoredSnapshot:
        """Stand at that snapshot. What is there now is saved first, where it can be, so that it can be had again."""
        await self._quiet()
        # Held open, so that the save does not push it out of the history.
        async with await self._pieces.open_snapshot(self._book.session.key, sequence):
            await self._incarnation.save_if_possible()
            intent = await self._intend()
            stored = await self._pieces.restate(intent, sequence)
            await self._make_head(intent, stored)
        await self._incarnation.leave()
        return stored

    async def fork_from(self, source: str, sequence: int) -> StoredSnapshot:
        """Begin as a copy of a snapshot of the session with that key."""
        await self._quiet()
        intent = await self._intend()
        stored = await self._pieces.fork(source, sequence, intent)
        await self._make_head(intent, stored)
        return stored

    async def _quiet(self) -> None:
        await self._book.settle()
        self._saver.abandon()
        await self._saver.ended()

    async def _intend(self) -> SnapshotIntent:
        session = self._book.session
        intent = await self._snapshots.intend_replacement(session.key, session.incarnation)
        if intent is None:
            raise await self._book.refused()
        return intent

    async def _files_of(self, intent: SnapshotIntent, head: int) -> StoredSnapshot:
        try:
            return await self._pieces.restate(intent, head, namespace=False)
        except (SnapshotDamagedError, SnapshotNotFoundError):
            # Its files are beyond reach as well; what is in the sandbox is saved next.
            return await self._pieces.restate(intent, None)

    async def _make_head(self, intent: SnapshotIntent, stored: StoredSnapshot) -> None:
        if not await self._snapshots.snapshot_committed(self._book.session.key, stored):
            raise SnapshotVoidedError("Something newer came first; nothing was changed.", hint="Try again.")
        self._saver.replaced(intent, stored)
