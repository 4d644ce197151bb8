"""Steps that the records' contract suite shares."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.ageing import AgedSession
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.model import Outcome, SandboxState, Session, SessionState
from orchestrator.domain.ports import Records
from orchestrator.domain.upkeep import UpkeepRecords
from tests.manual_clock import ManualClock

TENANT = "local"
ENVIRONMENT = "environment-digest"

# Opens the one data directory of a test, as often as the test likes.
Opener = Callable[[], AbstractAsyncContextManager[Records]]


async def session_in(records: Records, state: SessionState, name: str = "s") -> Session:
    """A session in that state; of incarnation 1 where the state needs a sandbox, else 0."""
    made = await records.ensure_session(TENANT, name, ENVIRONMENT)
    if state in {SessionState.CREATING, SessionState.READY, SessionState.SNAPSHOTTING}:
        assert await records.begin_creating(made.key, made.incarnation)
    if state in {SessionState.READY, SessionState.SNAPSHOTTING}:
        assert await records.session_ready(made.key, made.incarnation + 1)
    if state is SessionState.SNAPSHOTTING:
        assert await records.session_snapshotting(made.key, made.incarnation + 1, made.activity)
    if state in {SessionState.INACTIVE, SessionState.EXPIRED}:
        assert await upkeep_of(records).age(as_seen(made), state)
    if state is SessionState.DESTROYING:
        assert await records.session_destroying(made.key)
    return await stored(records, made.key)


def upkeep_of(records: Records) -> UpkeepRecords:
    """What the same records do for ageing and sweeping."""
    assert isinstance(records, SqliteRecords)
    return records.upkeep


def as_seen(session: Session) -> AgedSession:
    """The session as a decision about its age names it, before anything was counted."""
    return AgedSession(
        key=session.key,
        tenant=session.tenant,
        session_id=session.session_id,
        state=session.state,
        incarnation=session.incarnation,
        activity=session.activity,
        stamp=0 if session.state is SessionState.EXPIRED else 1,
        seconds=0.0,
    )


async def ready_session(records: Records, name: str = "s") -> Session:
    return await session_in(records, SessionState.READY, name)


async def stored(records: Records, key: str) -> Session:
    (found,) = [session for session in await records.all_sessions() if session.key == key]
    return found


async def opened(records: Records, session: Session) -> int:
    number = await records.open_execution(session.key, session.incarnation)
    assert number is not None
    return number


async def run_cell(
    records: Records,
    session: Session,
    *,
    bound: Sequence[str] = (),
    removed: Sequence[str] = (),
    outcome: Outcome = "ok",
    variable_count: int = 1,
) -> int:
    """An execution from its opening to its answer: its number."""
    number = await opened(records, session)
    await records.close_execution(
        session.key, number, outcome, bound=bound, removed=removed, variable_count=variable_count
    )
    return number


async def sandbox_in(records: Records, state: SandboxState) -> str:
    """A sandbox in that state: its id."""
    made = await records.open_sandbox("image:tag")
    if state in {SandboxState.UNCLAIMED, SandboxState.CLAIMED}:
        assert await records.sandbox_created(made.id, "handle")
    if state is SandboxState.CLAIMED:
        assert await records.sandbox_claimed(made.id, None, 0)
    if state in {SandboxState.FAILED, SandboxState.DESTROYING}:
        assert await records.sandbox_ending(made.id, state)
    return made.id


async def claimed_by(records: Records, session: Session, *, incarnation: int | None = None) -> str:
    """A sandbox that serves that session, in its present incarnation where none is named: its id."""
    made = await records.open_sandbox("image:tag")
    assert await records.sandbox_created(made.id, f"handle-{made.id}")
    served = session.incarnation if incarnation is None else incarnation
    assert await records.sandbox_claimed(made.id, session.key, served)
    return made.id


async def sandbox_state(records: Records, sandbox_id: str) -> SandboxState | None:
    return next((row.state for row in await records.sandboxes() if row.id == sandbox_id), None)


async def refused_at_opening(path: Path) -> OrchestratorError:
    with pytest.raises(OrchestratorError) as refused:
        async with open_records(path, ManualClock()):
            pass
    return refused.value
