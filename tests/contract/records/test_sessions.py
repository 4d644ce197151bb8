"""What every `Records` promises about sessions and their states."""

from collections.abc import Awaitable, Callable
from itertools import product

import pytest

from orchestrator.domain.lifecycle import SESSION_TRANSITIONS
from orchestrator.domain.model import Session, SessionState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import (
    ENVIRONMENT,
    TENANT,
    as_seen,
    opened,
    ready_session,
    run_cell,
    session_in,
    stored,
    upkeep_of,
)
from tests.manual_clock import ManualClock

Change = Callable[[Records, Session], Awaitable[object]]


async def _expire(records: Records, session: Session) -> bool:
    if session.state is SessionState.DESTROYING:
        return await upkeep_of(records).spare(as_seen(session))
    return await upkeep_of(records).age(as_seen(session), SessionState.EXPIRED)


CHANGES: dict[SessionState | None, Change] = {
    SessionState.CREATING: lambda records, session: records.begin_creating(session.key, session.incarnation),
    SessionState.READY: lambda records, session: records.session_ready(session.key, session.incarnation),
    SessionState.SNAPSHOTTING: lambda records, session: records.session_snapshotting(
        session.key, session.incarnation, session.activity
    ),
    SessionState.HIBERNATED: lambda records, session: records.session_hibernated(session.key, session.incarnation),
    SessionState.INACTIVE: lambda records, session: upkeep_of(records).age(as_seen(session), SessionState.INACTIVE),
    SessionState.EXPIRED: _expire,
    SessionState.DESTROYING: lambda records, session: records.session_destroying(session.key),
    None: lambda records, session: records.delete_session(session.key),
}


@pytest.mark.parametrize(("source", "target"), list(product(SessionState, (*SessionState, None))))
async def test_a_session_changes_state_exactly_as_the_table_allows(
    records: Records, source: SessionState, target: SessionState | None
) -> None:
    before = await session_in(records, source)

    answer = await CHANGES[target](records, before)

    after = {session.key: session for session in await records.all_sessions()}.get(before.key)
    if target not in SESSION_TRANSITIONS[source]:
        assert not answer
        assert after == before
    elif target is None:
        assert after is None
    else:
        assert answer
        assert after is not None
        assert after.state is target
        assert after.incarnation == before.incarnation + (target is SessionState.CREATING)


@pytest.mark.parametrize("target", [SessionState.CREATING, SessionState.READY, SessionState.HIBERNATED])
@pytest.mark.parametrize("seen", [-1, 1])
async def test_a_change_that_saw_another_incarnation_changes_nothing(
    records: Records, target: SessionState, seen: int
) -> None:
    source = next(state for state in SessionState if target in SESSION_TRANSITIONS[state])
    session = await session_in(records, source)
    stale = {
        SessionState.CREATING: records.begin_creating,
        SessionState.READY: records.session_ready,
        SessionState.HIBERNATED: records.session_hibernated,
    }[target]

    assert await stale(session.key, session.incarnation + seen) is None
    assert await stored(records, session.key) == session


@pytest.mark.parametrize(("incarnation", "activity"), [(0, 1), (2, 1), (1, 0), (1, 2)])
async def test_a_hibernation_begins_only_of_what_its_caller_saw(
    records: Records, incarnation: int, activity: int
) -> None:
    session = await ready_session(records)
    await run_cell(records, session)

    assert not await records.session_snapshotting(session.key, incarnation, activity)
    assert (await stored(records, session.key)).state is SessionState.READY
    assert await records.session_snapshotting(session.key, 1, 1)


async def test_no_hibernation_begins_while_a_cell_is_open_and_no_cell_while_one_is_under_way(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)
    assert not await records.session_snapshotting(session.key, 1, 1)
    await records.close_execution(session.key, number, "ok", bound=[], removed=[], variable_count=0)

    assert await records.session_snapshotting(session.key, 1, 1)
    assert await records.open_execution(session.key, 1) is None
    assert await records.session_ready(session.key, 1), "a call came in: the hibernation is abandoned"
    assert await run_cell(records, session) == number + 1


async def test_a_change_returns_the_row_as_it_is_stored(records: Records) -> None:
    session = await session_in(records, SessionState.HIBERNATED)

    assert await records.begin_creating(session.key, 0) == await stored(records, session.key)


async def test_a_new_session_has_no_sandbox_and_nothing_in_it(records: Records, clock: ManualClock) -> None:
    session = await records.ensure_session(TENANT, "s", ENVIRONMENT)

    assert session == Session(
        key=session.key,
        tenant=TENANT,
        session_id="s",
        state=SessionState.HIBERNATED,
        incarnation=0,
        activity=0,
        executions=0,
        namespace_since=1,
        untold_loss=None,
        untold_notes=(),
        variable_count=0,
        saved_through=0,
        environment=ENVIRONMENT,
        created_at=clock.now(),
        used_at=clock.now(),
    )
    assert len(session.key) == 32
    assert int(session.key, 16) >= 0


async def test_a_session_that_stands_is_found_and_keeps_its_environment(records: Records) -> None:
    first = await records.ensure_session(TENANT, "s", ENVIRONMENT)

    assert await records.ensure_session(TENANT, "s", "another environment") == first
    assert await records.find_session(TENANT, "s") == first


async def test_a_name_belongs_to_its_tenant(records: Records) -> None:
    mine = await records.ensure_session("a", "s", ENVIRONMENT)
    theirs = await records.ensure_session("b", "s", ENVIRONMENT)

    assert mine.key != theirs.key
    assert await records.find_session("a", "s") == mine
    assert await records.find_session("c", "s") is None
    assert await records.sessions("b") == [theirs]


async def test_names_are_compared_to_the_letter(records: Records) -> None:
    names = ["s", "S", "s ", "sS", "%", "_", "a'b", 'a"b', "zażółć", "会話"]
    keys = {(await records.ensure_session(TENANT, name, ENVIRONMENT)).key for name in names}

    assert len(keys) == len(names)
    assert [session.session_id for session in await records.sessions(TENANT)] == names


async def test_a_session_being_destroyed_is_found_by_nobody_but_recovery(records: Records) -> None:
    session = await session_in(records, SessionState.DESTROYING)

    assert await records.find_session(TENANT, "s") is None
    assert await records.sessions(TENANT) == []
    assert await records.executions(TENANT, "s") == []
    assert await records.all_sessions() == [session]


async def test_a_name_used_again_is_another_session_that_starts_empty(records: Records) -> None:
    old = await ready_session(records)
    await run_cell(records, old, bound=["secret"])
    await records.session_destroying(old.key)

    new = await records.ensure_session(TENANT, "s", ENVIRONMENT)

    assert new.key != old.key
    assert (new.executions, new.variable_count, new.incarnation) == (0, 0, 0)
    assert await records.executions(TENANT, "s") == []
    await records.delete_session(old.key)
    assert await records.all_sessions() == [new]


async def test_several_sessions_of_one_name_may_be_on_their_way_out(records: Records) -> None:
    for _ in range(3):
        await session_in(records, SessionState.DESTROYING)

    assert len(await records.all_sessions()) == 3


async def test_deleting_twice_is_harmless(records: Records) -> None:
    session = await session_in(records, SessionState.DESTROYING)

    await records.delete_session(session.key)
    await records.delete_session(session.key)

    assert await records.all_sessions() == []


async def test_sessions_are_listed_oldest_first_also_within_one_moment(records: Records, clock: ManualClock) -> None:
    for name in ("b", "a", "d"):
        await records.ensure_session(TENANT, name, ENVIRONMENT)
    clock.advance(1)
    await records.ensure_session(TENANT, "c", ENVIRONMENT)

    assert [session.session_id for session in await records.sessions(TENANT)] == ["b", "a", "d", "c"]


async def test_times_are_kept_to_the_microsecond_and_in_utc(records: Records, clock: ManualClock) -> None:
    clock.advance(0.123_457)
    session = await records.ensure_session(TENANT, "s", ENVIRONMENT)

    found = await stored(records, session.key)
    assert found.created_at == clock.now()
    assert found.created_at.utcoffset() == clock.now().utcoffset()


async def test_clearing_counts_as_activity_and_begins_a_namespace_without_a_loss(
    records: Records, clock: ManualClock
) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"], variable_count=1)
    before = await stored(records, session.key)
    clock.advance(5)

    assert await records.session_cleared(session.key, session.incarnation)

    after = await stored(records, session.key)
    assert after.activity == before.activity + 1
    assert after.used_at == clock.now()
    assert (after.namespace_since, after.variable_count) == (2, 0)
    assert await records.namespace_lost(session.key, session.incarnation, "gone") is None


async def test_clearing_forgets_an_untold_loss(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    assert await records.namespace_lost(session.key, session.incarnation, "gone")

    await records.session_cleared(session.key, session.incarnation)

    assert (await stored(records, session.key)).untold_loss is None


async def test_clearing_another_incarnation_or_a_session_on_its_way_out_is_refused(records: Records) -> None:
    session = await ready_session(records)
    assert not await records.session_cleared(session.key, session.incarnation - 1)

    await records.session_destroying(session.key)
    assert not await records.session_cleared(session.key, session.incarnation)


async def test_the_installation_keeps_its_id_and_what_was_noted(records: Records) -> None:
    assert len(records.installation) == 32
    assert int(records.installation, 16) >= 0
    assert await records.remembered("installation") is None

    await records.remember("probe", "first")
    await records.remember("probe", "second")

    assert await records.remembered("probe") == "second"
