"""What the records promise to ageing and to sweeping."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.ageing import AgedSession, AgeingCounts
from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.model import SandboxState, Session, SessionState
from orchestrator.domain.strays import HeldSandbox, OpenExecution, SessionBetween
from orchestrator.domain.ticks import Counted
from orchestrator.domain.upkeep import UpkeepRecords
from tests.contract.records.snapshot_steps import in_state, replacing
from tests.contract.records.steps import (
    ENVIRONMENT,
    TENANT,
    Opener,
    as_seen,
    opened,
    ready_session,
    run_cell,
    sandbox_in,
    session_in,
    stored,
    upkeep_of,
)
from tests.manual_clock import ManualClock

DAY = 86_400.0
HIBERNATED, INACTIVE, EXPIRED, DESTROYING = (
    SessionState.HIBERNATED,
    SessionState.INACTIVE,
    SessionState.EXPIRED,
    SessionState.DESTROYING,
)


@pytest.fixture
def upkeep(sqlite: SqliteRecords) -> UpkeepRecords:
    return sqlite.upkeep


async def asleep(records: SqliteRecords, name: str = "s") -> Session:
    return await session_in(records, HIBERNATED, name)


async def passed(records: SqliteRecords, seconds: float, *, watched: float | None = None) -> None:
    """An accepted tick, that much later."""
    before = await records.upkeep.counted()
    watched = seconds if watched is None else watched
    await records.upkeep.count(Counted(before.seconds + seconds, before.watched + watched, ManualClock().now()))


async def seen(records: SqliteRecords, state: SessionState = HIBERNATED, at_least: float = 0.0) -> AgedSession:
    (found,) = await records.upkeep.aged(state, at_least)
    return found


async def unused(records: SqliteRecords, session: Session) -> float:
    return (await records.upkeep.unused(TENANT))[session.key]


# --- counted time ------------------------------------------------------------------------------------------------


async def test_the_time_that_counts_outlives_the_process(open_again: Opener) -> None:
    counted = Counted(12.5, 7.25, ManualClock().now())
    async with open_again() as records:
        assert await upkeep_of(records).counted() == Counted(0.0, 0.0, None)
        await upkeep_of(records).count(counted)
    async with open_again() as records:
        assert await upkeep_of(records).counted() == counted


async def test_a_session_grows_older_with_every_tick(sqlite: SqliteRecords) -> None:
    await passed(sqlite, 5 * DAY)
    session = await asleep(sqlite)
    await passed(sqlite, 60)
    assert await unused(sqlite, session) == 0, "made since the last tick: it counts from this one on"
    for _ in range(3):
        await passed(sqlite, DAY)

    assert await unused(sqlite, session) == 3 * DAY
    assert await sqlite.upkeep.unused("somebody else") == {}


Use = Callable[[SqliteRecords, Session], Awaitable[object]]
USES: dict[str, Use] = {
    "a call": lambda records, session: records.begin_creating(session.key, session.incarnation),
    "a clear": lambda records, session: records.session_cleared(session.key, session.incarnation),
    "a rollback": replacing,
    "a fork from it": lambda records, session: records.upkeep.used(session.key),
}


@pytest.mark.parametrize("state", [HIBERNATED, INACTIVE, EXPIRED])
@pytest.mark.parametrize("use", USES)
async def test_whatever_uses_a_session_makes_it_young_and_nothing_decided_before_holds(
    sqlite: SqliteRecords, use: str, state: SessionState, clock: ManualClock
) -> None:
    session = await session_in(sqlite, state)
    await passed(sqlite, 60)
    await passed(sqlite, 40 * DAY)
    before = await seen(sqlite, state)
    clock.advance(40 * DAY)

    await USES[use](sqlite, session)

    after = await stored(sqlite, session.key)
    assert after.state is (SessionState.CREATING if use == "a call" else HIBERNATED)
    assert after.used_at == clock.now()
    for target in (INACTIVE, EXPIRED, DESTROYING):
        assert not await sqlite.upkeep.age(before, target)
    await passed(sqlite, DAY)
    assert await unused(sqlite, session) == 0
    await passed(sqlite, DAY)
    assert await unused(sqlite, session) == DAY


async def test_running_a_cell_is_use_at_its_begin_and_at_its_end(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await passed(sqlite, 60)
    await passed(sqlite, DAY)
    number = await opened(sqlite, session)
    await passed(sqlite, DAY)
    assert await unused(sqlite, session) == 0
    await passed(sqlite, DAY)
    assert await unused(sqlite, session) == DAY
    await sqlite.close_execution(session.key, number, "ok", bound=[], removed=[], variable_count=0)
    await passed(sqlite, DAY)
    assert await unused(sqlite, session) == 0


async def test_looking_at_a_session_is_no_use(sqlite: SqliteRecords) -> None:
    session = await asleep(sqlite)
    await passed(sqlite, 60)
    await passed(sqlite, DAY)
    await sqlite.find_session(TENANT, "s")
    await sqlite.sessions(TENANT)
    await sqlite.saved_listing(TENANT, "s")
    await sqlite.ensure_session(TENANT, "s", ENVIRONMENT)
    await passed(sqlite, DAY)

    assert await unused(sqlite, session) == 2 * DAY


async def test_time_that_passed_before_a_session_was_used_does_not_make_it_older(sqlite: SqliteRecords) -> None:
    old = await asleep(sqlite, "old")
    await passed(sqlite, 60)
    await passed(sqlite, 60)
    began_at = (await sqlite.upkeep.counted()).seconds
    young = await asleep(sqlite, "young")
    await passed(sqlite, 600)
    await passed(sqlite, 600)

    await sqlite.upkeep.count(Counted(began_at + 1_200 + DAY, 1_200, None), late=DAY, began_at=began_at)

    assert await unused(sqlite, old) == 60 + 1_200 + DAY
    assert await unused(sqlite, young) == 600


# --- growing older -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [HIBERNATED, INACTIVE])
async def test_sessions_of_an_age_are_found_page_by_page_the_oldest_first(
    sqlite: SqliteRecords, state: SessionState
) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await in_state(sqlite, await asleep(sqlite, name), state)
        await passed(sqlite, 60)
        await passed(sqlite, DAY)
    await session_in(sqlite, SessionState.READY, "awake")

    pages: list[list[str]] = []
    last = None
    while page := await sqlite.upkeep.aged(state, 2 * DAY, after=last, limit=2):
        pages.append([row.session_id for row in page])
        last = page[-1]

    assert pages == [["a", "b"], ["c", "d"]]


async def test_an_expired_session_ages_by_watched_time_since_it_expired(sqlite: SqliteRecords) -> None:
    session = await asleep(sqlite)
    await passed(sqlite, 40 * DAY)
    await passed(sqlite, 40 * DAY)
    assert await sqlite.upkeep.age(await seen(sqlite), EXPIRED)
    await passed(sqlite, 2 * DAY, watched=3_600)

    assert (await seen(sqlite, EXPIRED)).seconds == 3_600
    assert await sqlite.upkeep.aged(EXPIRED, 3_601) == []
    assert (await stored(sqlite, session.key)).state is EXPIRED


async def test_a_session_that_expires_again_has_its_whole_day_again(sqlite: SqliteRecords) -> None:
    session = await asleep(sqlite)
    assert await sqlite.upkeep.age(as_seen(session), EXPIRED)
    await passed(sqlite, 10 * DAY)
    await sqlite.upkeep.used(session.key)
    await passed(sqlite, 10 * DAY)
    assert await sqlite.upkeep.age(await seen(sqlite), EXPIRED)

    assert (await seen(sqlite, EXPIRED)).seconds == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("incarnation", 1), ("activity", 1), ("stamp", 2), ("state", INACTIVE), ("key", "0" * 32)],
)
@pytest.mark.parametrize("target", [INACTIVE, EXPIRED, DESTROYING])
async def test_a_decision_that_saw_something_else_changes_nothing(
    sqlite: SqliteRecords, field: str, value: object, target: SessionState
) -> None:
    session = await asleep(sqlite)
    right = as_seen(session)
    wrong = AgedSession(**{name: getattr(right, name) for name in AgedSession.__slots__} | {field: value})

    assert not await sqlite.upkeep.age(wrong, target)
    assert await stored(sqlite, session.key) == session


@pytest.mark.parametrize("state", [state for state in SessionState if state not in ASLEEP])
@pytest.mark.parametrize("target", [INACTIVE, EXPIRED, DESTROYING])
async def test_only_who_sleeps_ages(sqlite: SqliteRecords, state: SessionState, target: SessionState) -> None:
    session = await session_in(sqlite, state)

    assert not await sqlite.upkeep.age(as_seen(session), target)
    assert (await stored(sqlite, session.key)).state is state


async def test_counts_are_of_all_sessions_and_of_those_that_would_expire(sqlite: SqliteRecords) -> None:
    for name, state in enumerate((HIBERNATED, INACTIVE, EXPIRED, SessionState.READY, DESTROYING)):
        await session_in(sqlite, state, str(name))
    await passed(sqlite, 60)
    await passed(sqlite, 40 * DAY)
    await asleep(sqlite, "young")

    assert await sqlite.upkeep.ageing_counts(30 * DAY) == AgeingCounts(sessions=5, expiring=2)


async def test_an_expired_session_is_listed_nowhere_and_found_by_who_names_it(sqlite: SqliteRecords) -> None:
    session = await session_in(sqlite, EXPIRED)
    other = await session_in(sqlite, INACTIVE, "other")

    assert [row.session_id for row in await sqlite.sessions(TENANT)] == [other.session_id]
    assert await sqlite.find_session(TENANT, "s") == session
    assert await sqlite.ensure_session(TENANT, "s", ENVIRONMENT) == session
    assert await sqlite.begin_creating(session.key, session.incarnation)


@pytest.mark.parametrize("state", [INACTIVE, EXPIRED])
async def test_a_snapshot_of_a_session_that_sleeps_for_long_becomes_head_as_ever(
    sqlite: SqliteRecords, state: SessionState
) -> None:
    session = await ready_session(sqlite)
    intent = await replacing(sqlite, session)
    await in_state(sqlite, session, state)

    assert await sqlite.void_snapshots(session.key, session.incarnation)
    assert (await replacing(sqlite, session)).sequence == intent.sequence + 2


# --- a call that comes at the last moment ------------------------------------------------------------------------


async def test_a_session_that_age_was_ending_is_taken_back(sqlite: SqliteRecords) -> None:
    session = await session_in(sqlite, EXPIRED)
    assert await sqlite.upkeep.age(as_seen(session), DESTROYING)
    assert await sqlite.find_session(TENANT, "s") is None

    assert await sqlite.upkeep.spare(as_seen(session))

    assert await sqlite.find_session(TENANT, "s") == session
    assert not await sqlite.upkeep.spare(as_seen(session)), "once"


async def test_a_name_that_was_taken_meanwhile_is_not_given_back(sqlite: SqliteRecords) -> None:
    session = await session_in(sqlite, EXPIRED)
    assert await sqlite.upkeep.age(as_seen(session), DESTROYING)
    other = await asleep(sqlite)

    assert not await sqlite.upkeep.spare(as_seen(session))
    assert await sqlite.find_session(TENANT, "s") == other


# --- what stands between two states ------------------------------------------------------------------------------


async def test_what_is_between_two_states_is_found(sqlite: SqliteRecords) -> None:
    sessions = [await session_in(sqlite, state, state.value) for state in SessionState]

    assert set(await sqlite.upkeep.between()) == {
        SessionBetween(session.key, TENANT, session.session_id, session.state, session.incarnation)
        for session in sessions
        if session.state not in ASLEEP
    }


async def test_open_executions_are_found_and_closed_up_to_an_incarnation(sqlite: SqliteRecords) -> None:
    session, other = await ready_session(sqlite), await ready_session(sqlite, "other")
    await run_cell(sqlite, session)
    await opened(sqlite, session)
    await opened(sqlite, other)
    assert (
        await sqlite.upkeep.open_executions()
        == [
            OpenExecution(session.key, TENANT, "s", 2),
            OpenExecution(other.key, TENANT, "other", 1),
        ]
        or len(await sqlite.upkeep.open_executions()) == 2
    )

    assert await sqlite.upkeep.abandon_executions(session.key, session.incarnation - 1) == 0
    assert await sqlite.upkeep.abandon_executions(session.key, session.incarnation) == 1
    assert await sqlite.upkeep.abandon_executions(session.key, session.incarnation) == 0

    assert [row.outcome for row in await sqlite.executions(TENANT, "s")] == ["outcome_unknown", "ok"]
    assert await sqlite.upkeep.open_executions() == [OpenExecution(other.key, TENANT, "other", 1)]


async def test_sandboxes_come_with_what_their_sessions_say(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    claimed = await sandbox_in(sqlite, SandboxState.UNCLAIMED)
    assert await sqlite.sandbox_claimed(claimed, session.key, 1)
    lost = await sandbox_in(sqlite, SandboxState.UNCLAIMED)
    assert await sqlite.sandbox_claimed(lost, "f" * 32, 3)
    starting = await sandbox_in(sqlite, SandboxState.CREATING)

    assert set(await sqlite.upkeep.held_sandboxes()) == {
        HeldSandbox(claimed, SandboxState.CLAIMED, session.key, 1, SessionState.READY, 1),
        HeldSandbox(lost, SandboxState.CLAIMED, "f" * 32, 3, None, None),
        HeldSandbox(starting, SandboxState.CREATING, None, 0, None, None),
    }


async def test_keys_that_no_session_has_are_unknown(sqlite: SqliteRecords) -> None:
    keys = [(await session_in(sqlite, state, state.value)).key for state in SessionState]

    assert await sqlite.upkeep.unknown([*keys, "f" * 32]) == {"f" * 32}
    assert await sqlite.upkeep.unknown([]) == frozenset()


# --- cancelled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancelled_change_has_happened_whole_or_not_at_all(sqlite: SqliteRecords, steps: int) -> None:
    session = await session_in(sqlite, EXPIRED)
    for change in (
        sqlite.upkeep.age(as_seen(session), DESTROYING),
        sqlite.upkeep.spare(as_seen(session)),
        sqlite.upkeep.used(session.key),
        sqlite.upkeep.count(Counted(5.0, 5.0, None)),
        sqlite.upkeep.maintain(),
    ):
        task = asyncio.ensure_future(change)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.done()

    assert (await stored(sqlite, session.key)).state in {EXPIRED, DESTROYING, HIBERNATED}
    assert not await sqlite._db.run(lambda raw: raw.in_transaction)
