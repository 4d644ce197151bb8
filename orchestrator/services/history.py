"""What can be done with the snapshots of sessions: list, save, roll back, fork, compare, check."""

import logging
from dataclasses import dataclass

from orchestrator.domain.comparison import Comparison, compare
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError, SessionNotFoundError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.snapshots import History, SnapshotCheck, SnapshotSummary
from orchestrator.services.live_session import Equipment
from orchestrator.services.sessions import Sessions

logger = logging.getLogger(__name__)


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
        self, session_id: str, new_id: str, *, sequence: int | None = None, tenant: str = LOCAL_TENANT
    ) -> SnapshotSummary:
        """Make a session that begins as a copy of that snapshot; None: of the session as it is, saved for it.

        Raises InvalidRequestError where `new_id` is taken, SnapshotNotFoundError and SnapshotDamagedError.
        """
        source = await self._sessions.find(session_id, tenant=tenant)
        wanted = session_id_of(new_id)
        if sequence is None:
            sequence = (await source.save()).summary.sequence
        if await self._records.find_session(tenant, wanted) is not None:
            raise InvalidRequestError(f"There is a session {wanted!r} already.", hint="Choose another id.")
        try:
            await self._records.ensure_session(tenant, wanted, source.session.environment)
            target = await self._sessions.find(wanted, tenant=tenant)
            return (await target.fork_from(source.session.key, sequence)).summary
        except InvalidRequestError:
            raise  # somebody else began it meanwhile
        except BaseException:
            await self._undo(wanted, tenant)
            raise

    async def _undo(self, session_id: str, tenant: str) -> None:
        """Nothing stays of a fork that failed, unless somebody uses it already."""
        try:
            session = await self._records.find_session(tenant, session_id)
            if session is not None and not session.executions:
                await self._sessions.delete(session_id, tenant=tenant)
        except OrchestratorError as error:
            logger.warning("session %r may be left empty by a fork that failed: %s", session_id, error)

    async def compare(self, session_id: str, before: int, after: int, *, tenant: str = LOCAL_TENANT) -> Comparison:
        """What differs between two snapshots of a session. Raises SnapshotNotFoundError and SnapshotDamagedError."""
        key = await self._key(session_id, tenant)
        return compare(await self._pieces.snapshot(key, before), await self._pieces.snapshot(key, after))

    async def check(self) -> CheckReport:
        """Read and verify the snapshots of all sessions of all tenants, and that records and files agree."""
        records = {record.session: record for record in await self._snapshots.snapshot_records()}
        sessions = {session.key: session for session in await self._records.all_sessions()}
        files = await self._pieces.keys()
        problems = [f"a file of no session: {key}" for key in sorted(files - sessions.keys())]
        problems += [f"a file of no session, set aside: {path}" for path in await self._pieces.aside()]
        checks: list[SnapshotCheck] = []
        for key in sessions:
            record = records.get(key)
            head = None if record is None else record.head
            if head is None and key not in files:
                continue
            try:
                checks.append(await self._pieces.check(key, head))
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

    async def _key(self, session_id: str, tenant: str) -> str:
        session = await self._records.find_session(tenant, session_id_of(session_id))
        if session is None:
            raise SessionNotFoundError(f"There is no session {session_id!r}.", hint="List the sessions.")
        return session.key
