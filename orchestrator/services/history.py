"""What can be done with the snapshots of sessions: list, save, roll back, fork, compare, check."""

import logging
from dataclasses import dataclass, replace

from orchestrator.domain.agreement import disagreements
from orchestrator.domain.comparison import Comparison, compare
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError, QuotaError, StoreUnusableError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.model import LOCAL_TENANT, Session, SessionState
from orchestrator.domain.snapshots import (
    History,
    SnapshotCheck,
    SnapshotDamagedError,
    SnapshotNotFoundError,
    SnapshotRecord,
    SnapshotSummary,
    StoredSnapshot,
)
from orchestrator.services.about import about
from orchestrator.services.checks import not_found
from orchestrator.services.equipment import Equipment
from orchestrator.services.sessions import Sessions

logger = logging.getLogger(__name__)

_LOOKS = 3  # at a session that is in use
_EVER = 2**62  # beyond every snapshot


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of everything found: a sentence for each problem, none when all is well."""

    sessions: int
    snapshots: int
    pieces: int
    problems: tuple[str, ...]


class Histories:
    """The snapshots behind `Sessions`. Every method raises SessionNotFoundError where there is no such session."""

    def __init__(self, sessions: Sessions, equipment: Equipment) -> None:
        self._sessions = sessions
        self._records = equipment.records
        self._snapshots = equipment.snapshots
        self._pieces = equipment.pieces
        self._upkeep = equipment.upkeep

    async def history(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> History:
        """The session's snapshots, newest first; the first one is what a wake restores."""
        key = await self._key(session_id, tenant)
        record = await self._snapshots.snapshot_record(key)
        if record is None or record.head is None:
            return History((), ())
        return await self._pieces.history(key, record.head)

    async def save(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> SnapshotSummary:
        """Save the session now and wait for it. Raises SaveFailedError, StoreFullError and SnapshotNotFoundError (a
        session that never held anything).
        """
        live = await self._sessions.find(session_id, tenant=tenant)
        return (await live.save()).summary

    async def roll_back(self, session_id: str, sequence: int, *, tenant: str = LOCAL_TENANT) -> SnapshotSummary:
        """Let the session stand at that snapshot again: namespace and files; what runs is interrupted.

        What was there before is saved first where it can be, so a rollback can itself be rolled back. Raises
        SnapshotNotFoundError and SnapshotDamagedError; nothing is changed then.
        """
        live = await self._sessions.find(session_id, tenant=tenant)
        return (await live.roll_back(sequence)).summary

    async def fork(
        self,
        session_id: str,
        new_id: str,
        *,
        sequence: int | None = None,
        tenant: str = LOCAL_TENANT,
        most: int | None = None,
    ) -> SnapshotSummary:
        """Make a session that begins as a copy of that snapshot; None: of the session as it is, saved for it.

        Raises InvalidRequestError where `new_id` is taken, QuotaError where the tenant has `most` sessions already,
        SnapshotNotFoundError and SnapshotDamagedError.
        """
        source = await self._sessions.find(session_id, tenant=tenant)
        wanted = session_id_of(new_id)
        if sequence is None:
            sequence = (await source.save()).summary.sequence
        if await self._records.find_session(tenant, wanted) is not None:
            raise InvalidRequestError(f"There is a session {wanted!r} already.", hint="Choose another id.")
        # Not to be deleted for its age while it is copied.
        await self._upkeep.used(source.session.key)
        try:
            await self._records.ensure_session(tenant, wanted, source.session.environment, most=most)
            target = await self._sessions.find(wanted, tenant=tenant)
            return (await target.fork_from(source.session.key, sequence)).summary
        except (InvalidRequestError, QuotaError):
            raise  # somebody else began it meanwhile
        except BaseException:
            await self._undo(wanted, tenant)
            raise

    async def _undo(self, session_id: str, tenant: str) -> None:
        """Nothing stays of a fork that failed, unless somebody uses it already."""
        whose: Session | str = session_id
        try:
            session = await self._records.find_session(tenant, session_id)
            if session is not None and not session.executions:
                whose = session
                await self._sessions.delete(session_id, tenant=tenant)
        except OrchestratorError as error:
            logger.warning("may be left empty by a fork that failed: %s", error, extra=about(whose))

    async def compare(self, session_id: str, before: int, after: int, *, tenant: str = LOCAL_TENANT) -> Comparison:
        """What differs between two snapshots of a session. Raises SnapshotNotFoundError and SnapshotDamagedError."""
        key = await self._key(session_id, tenant)
        return compare(await self._pieces.snapshot(key, before), await self._pieces.snapshot(key, after))

    async def check(self) -> CheckReport:
        """Read and verify the snapshots of all sessions of all tenants, and that records and files agree."""
        # The files first: a session that begins meanwhile has its row before its file.
        files = await self._pieces.keys()
        sessions = {session.key: session for session in await self._records.all_sessions()}
        doomed = {key for key, session in sessions.items() if session.state is SessionState.DESTROYING}
        # One that is just being deleted has its file yet; one that was deleted meanwhile lost it before its row.
        strays = {key for key in files - (sessions.keys() - doomed) if not self._sessions.is_ending(key)}
        if strays:
            strays &= await self._pieces.keys()
        problems = [f"a file of {'a deleted' if key in doomed else 'no'} session: {key}" for key in sorted(strays)]
        problems += [f"a file of no session, set aside: {path}" for path in await self._pieces.aside()]
        checks: list[SnapshotCheck] = []
        for key, session in sessions.items():
            if key in doomed:
                continue
            try:
                checks.append(await self._checked(session))
            except OrchestratorError as error:
                problems.append(f"session {key}: {error.message}")
            else:
                problems += [f"session {key}: {problem}" for problem in checks[-1].problems]
        return CheckReport(
            sessions=len(sessions),
            snapshots=sum(check.snapshots for check in checks),
            pieces=sum(check.pieces for check in checks),
            problems=tuple(problems),
        )

    async def _checked(self, listed: Session) -> SnapshotCheck:
        """Of one session: its file, and that the records agree with it."""
        key = listed.key
        record = await self._snapshots.snapshot_record(key)
        checked = await self._pieces.check(key, None if record is None else record.head)
        for _ in range(_LOOKS):
            session, record = await self._now(listed)
            listing = await self._snapshots.saved_listing_of(key)
            head, newest = await self._in_the_file(key, record)
            # What was read is of one moment where nothing has changed from its begin to its end.
            if await self._now(listed) == (session, record):
                break
        else:
            return checked  # in use; whoever uses it would stumble over what is wrong
        if session is None:
            return SnapshotCheck(0, 0, ())
        said: list[str] = []
        if record is not None:
            said += disagreements(session, record, listing, head)
        if newest > (0 if record is None else record.sequence):
            said.append(f"The file holds snapshot {newest}, which the records have never intended.")
        return replace(checked, problems=(*checked.problems, *said))

    async def _now(self, session: Session) -> tuple[Session | None, SnapshotRecord | None]:
        """What the records say of it, where it is the same one still."""
        found = await self._records.find_session(session.tenant, session.session_id)
        same = found if found is not None and found.key == session.key else None
        return same, await self._snapshots.snapshot_record(session.key)

    async def _in_the_file(self, key: str, record: SnapshotRecord | None) -> tuple[StoredSnapshot | None, int]:
        """The head, where it can be read, and the newest snapshot, be it head or not."""
        try:
            history = await self._pieces.history(key, _EVER)
            newest = max((summary.sequence for summary in history.snapshots), default=0)
            if record is None or record.head is None:
                return None, newest
            return await self._pieces.snapshot(key, record.head), newest
        except (SnapshotNotFoundError, SnapshotDamagedError, StoreUnusableError):
            return None, 0  # the check of the file says so

    async def _key(self, session_id: str, tenant: str) -> str:
        session = await self._records.find_session(tenant, session_id_of(session_id))
        if session is None:
            raise not_found(session_id)
        return session.key
