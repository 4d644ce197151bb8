"""What a session's record has yet to be told: kept in order, and written again until it is."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.errors import OrchestratorError, SandboxLostError, SessionDeletedError
from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.model import Ending, Loss, Session, SessionState
from orchestrator.domain.ports import Records
from orchestrator.domain.repeats import Repeat
from orchestrator.domain.snapshot_ports import SnapshotRecords
from orchestrator.services.about import about
from orchestrator.services.saving_notes import capped

logger = logging.getLogger(__name__)


class Bookkeeping:
    """A session's record as its live session knows it. One call at a time.

    What has happened is *owed* first and then written by `settle`, so that a full disk delays a record and never
    loses it. Every owed write may be made twice: a cancelled one may have happened.
    """

    def __init__(self, session: Session, records: Records, snapshots: SnapshotRecords) -> None:
        self.session = session
        self.untold = session.untold_loss
        self.untold_notes = session.untold_notes
        self._records = records
        self._snapshots = snapshots
        self._owed: deque[Callable[[], Awaitable[None]]] = deque()

    @property
    def settled(self) -> bool:
        """Whether nothing is owed."""
        return not self._owed

    # what has happened

    def owe_close(
        self,
        number: int,
        outcome: Ending,
        *,
        bound: Sequence[str] = (),
        removed: Sequence[str] = (),
        variable_count: int | None = None,
        entry: AuditEntry | None = None,
    ) -> None:
        """An execution has ended."""

        async def close() -> None:
            await self._records.close_execution(
                self.session.key,
                number,
                outcome,
                bound=bound,
                removed=removed,
                variable_count=variable_count,
                entry=entry,
            )

        self._owed.append(close)

    def owe_loss(self, cause: str, *, before: int | None = None, stands_at: int | None = None) -> None:
        """The namespace is gone; see `Records.namespace_lost`."""
        key, incarnation = self.session.key, self.session.incarnation

        async def lose() -> None:
            # What was committed and could not be made head must not be found by a recovery: it is told as lost now.
            await self._snapshots.void_snapshots(key, incarnation)
            self.untold = await self._records.namespace_lost(
                key, incarnation, cause, before=before, stands_at=stands_at
            )

        self._owed.append(lose)

    def owe_hibernation(self) -> None:
        """The session has no sandbox any more, or got none."""
        self._owed.append(self._hibernate)

    def owe_ready(self) -> None:
        """A hibernation was given up: the sandbox serves on."""

        async def ready() -> None:
            found = await self.look()
            if found.state is SessionState.SNAPSHOTTING:
                await self.ready()

        self._owed.append(ready)

    def owe_clear(self) -> None:
        """The namespace was emptied on request."""

        async def clear() -> None:
            if not await self._records.session_cleared(self.session.key, self.session.incarnation):
                raise await self.refused()
            self.untold, self.untold_notes = None, ()

        self._owed.append(clear)

    def owe_notes(self, notes: Sequence[str]) -> None:
        """There is something to tell, whoever asks next, and whichever owner is there then."""
        if not notes:
            return
        key, incarnation = self.session.key, self.session.incarnation
        left = self.untold_notes = capped((*self.untold_notes, *notes))

        async def leave() -> None:
            await self._records.leave_notes(key, incarnation, left)

        self._owed.append(leave)

    def owe_void(self) -> None:
        """What was intended failed: no recovery may find it."""
        key, incarnation = self.session.key, self.session.incarnation

        async def void() -> None:
            await self._snapshots.void_snapshots(key, incarnation)

        self._owed.append(void)

    def replaced(self) -> None:
        """A head of its own stands instead of all that there was to tell of."""
        self.untold, self.untold_notes = None, ()

    async def told(self, loss: Loss | None, notes: Sequence[str]) -> None:
        """A caller has the answer that tells these. Where there is more by now, all of it is told once more."""
        if (self.untold, tuple(self.untold_notes)) != (loss, tuple(notes)):
            return

        async def forget() -> None:
            found = await self.look()
            if (found.untold_loss, found.untold_notes) == (loss, tuple(notes)):
                await self._records.loss_told(self.session.key)

        self.untold, self.untold_notes = None, ()
        self._owed.append(forget)
        await self.try_to_settle()

    # writing it

    async def settle(self) -> None:
        """Write what is owed. Raises what the records raise, and then the rest stays owed; raises SessionDeletedError
        at the end, since the audit takes what a deleted session has done.
        """
        deleted: SessionDeletedError | None = None
        while self._owed:
            try:
                await self._owed[0]()
            except SessionDeletedError as error:
                deleted = error
            self._owed.popleft()
        if deleted is not None:
            raise deleted

    async def try_to_settle(self) -> tuple[str, ...]:
        """Write what is owed; where that fails, a sentence that says so."""
        try:
            await self.settle()
        except OrchestratorError as error:
            logger.warning("what happened is not recorded yet: %s", error, extra=about(self.session))
            return (f"What happened could not be recorded yet: {error.message} It is tried again at the next call.",)
        return ()

    async def creating(self) -> Session:
        """A sandbox is going to be made. Raises SessionDeletedError."""
        session = await self._records.begin_creating(self.session.key, self.session.incarnation)
        if session is None:
            await self._hibernate()
            session = await self._records.begin_creating(self.session.key, self.session.incarnation)
        if session is None:
            raise await self.refused()
        self.session = session
        return session

    async def ready(self) -> None:
        """It has one. Raises SessionDeletedError."""
        session = await self._records.session_ready(self.session.key, self.session.incarnation)
        if session is None:
            raise await self.refused()
        self.session = session

    async def open_execution(self, repeat: Repeat | None = None, entry: AuditEntry | None = None) -> int:
        """The number of an execution that is going to be sent. Raises SessionDeletedError."""
        number = await self._records.open_execution(
            self.session.key, self.session.incarnation, repeat=repeat, entry=entry
        )
        if number is None:
            raise await self.refused()
        return number

    async def open_executions(self) -> Sequence[int]:
        """The numbers of those that this incarnation has not answered, in their order."""
        session = self.session
        rows = await self._records.executions(session.tenant, session.session_id)
        return sorted(row.number for row in rows if row.outcome is None and row.incarnation == session.incarnation)

    async def snapshotting(self) -> int | None:
        """The session is going to be hibernated: the activity that must be saved; None where it may not be."""
        session = await self.look()
        changed = await self._records.session_snapshotting(session.key, session.incarnation, session.activity)
        return session.activity if changed else None

    async def hibernate_saved(self, activity: int) -> bool:
        """The session's head covers that activity: its sandbox may go. False where something came between."""
        changed = await self._snapshots.hibernate_saved(self.session.key, self.session.incarnation, activity)
        await self.look()
        return changed

    async def binding_executions(self, names: Sequence[str] | None = None) -> Mapping[str, int]:
        """Which execution bound each of those names (None: of all) last, as far as is known."""
        return await self._records.binding_executions(self.session.key, names)

    async def _hibernate(self) -> None:
        """Whatever of our earlier writes has happened, the session is asleep afterwards."""
        found = await self.look()
        if found.state not in ASLEEP:
            changed = await self._records.session_hibernated(found.key, found.incarnation)
            if changed is None:
                raise await self.refused()
            self.session = changed

    async def look(self) -> Session:
        """The record as it is now. Raises SessionDeletedError."""
        found = await self._records.find_session(self.session.tenant, self.session.session_id)
        if found is None or found.key != self.session.key:
            raise SessionDeletedError("The session was deleted meanwhile.", hint="Call again to begin a new one.")
        self.session = found
        return found

    async def refused(self) -> OrchestratorError:
        """Why a guarded change was refused."""
        try:
            found = await self.look()
        except SessionDeletedError as error:
            return error
        return SandboxLostError(f"The session was found {found.state}, which it should not be.", hint="Call again.")
