"""Which snapshot is intended and which is head: what may become head, what never does, and what is then covered."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.model import Loss, SessionState
from orchestrator.domain.snapshots import (
    SnapshotIntent,
)
from tests.contract.records.snapshot_steps import (
    head_of,
    in_state,
    intended,
    named,
    replacing,
    saved,
    state_of,
    written,
)
from tests.contract.records.steps import TENANT, opened, ready_session, run_cell, session_in, stored
from tests.manual_clock import ManualClock


async def test_an_intent_tells_what_the_snapshot_will_cover_and_may_share_with(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    await run_cell(sqlite, session)

    first = await saved(sqlite, session)
    second = await intended(sqlite, session)

    assert first == SnapshotIntent(session.key, 1, 1, 2, 2, None, replaces=False, seed=first.seed)
    assert second == SnapshotIntent(session.key, 2, 1, 2, 2, 1, replaces=False, seed=first.seed)
    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.sequence, record.intended, record.head) == (2, second, 1)
    assert (record.head_execution, record.head_activity, record.since) == (2, 2, 0)
    assert await sqlite.snapshot_records() == [record]


async def test_a_seed_that_was_told_is_no_sessions_any_more(sqlite: SqliteRecords) -> None:
    one, other = await ready_session(sqlite, "one"), await ready_session(sqlite, "other")
    told, kept = (await saved(sqlite, one)).seed, (await saved(sqlite, other)).seed
    in_flight = await intended(sqlite, one)

    await sqlite.imports.seed_told(told)

    record, untouched = await sqlite.snapshot_record(one.key), await sqlite.snapshot_record(other.key)
    assert record is not None
    assert untouched is not None
    assert record.seed not in (told, None)
    assert (record.renewed, untouched.renewed, untouched.seed) == (in_flight.sequence, 0, kept)
    assert (await intended(sqlite, one)).seed == record.seed


async def test_each_session_has_a_seed_of_its_own_for_all_its_snapshots(sqlite: SqliteRecords) -> None:
    one, other = await ready_session(sqlite, "one"), await ready_session(sqlite, "other")
    await sqlite.void_snapshots(other.key, 1)

    seeds = [(await intended(sqlite, session)).seed for session in (one, other, one, other)]

    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert all(0 <= seed < 2**63 for seed in seeds)


async def test_a_session_that_was_never_saved_has_no_record_and_no_listing(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)

    assert await sqlite.snapshot_record(session.key) is None
    assert await sqlite.snapshot_records() == []
    assert await sqlite.saved_listing(TENANT, "s") is None


async def test_nothing_is_intended_while_a_cell_is_open(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    number = await opened(sqlite, session)

    assert await sqlite.intend_snapshot(session.key, 1) is None
    assert await sqlite.intend_replacement(session.key, 1) is None

    await sqlite.close_execution(session.key, number, "ok", bound=[], removed=[], variable_count=0)
    assert await sqlite.intend_snapshot(session.key, 1)


@pytest.mark.parametrize(
    ("state", "snapshot", "replacement"),
    [
        ("creating", False, False),
        ("ready", True, True),
        ("snapshotting", True, True),
        ("hibernated", False, True),
        ("destroying", False, False),
    ],
)
async def test_what_may_be_intended_depends_on_the_state(
    sqlite: SqliteRecords, state: str, *, snapshot: bool, replacement: bool
) -> None:
    session = await ready_session(sqlite)
    await in_state(sqlite, session, state)

    assert (await sqlite.intend_snapshot(session.key, 1) is not None) == snapshot
    assert (await sqlite.intend_replacement(session.key, 1) is not None) == replacement


async def test_another_incarnation_intends_voids_and_hibernates_nothing(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await saved(sqlite, session)
    before = await sqlite.snapshot_record(session.key)

    for stale in (0, 2):
        assert await sqlite.intend_snapshot(session.key, stale) is None
        assert await sqlite.intend_replacement(session.key, stale) is None
        assert not await sqlite.void_snapshots(session.key, stale)
        assert not await sqlite.hibernate_saved(session.key, stale, 0)
    assert await sqlite.snapshot_record(session.key) == before


async def test_a_late_snapshot_of_an_older_incarnation_changes_nothing(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    late = await intended(sqlite, session)
    await sqlite.session_hibernated(session.key, 1)
    await sqlite.begin_creating(session.key, 1)
    await sqlite.session_ready(session.key, 2)

    assert not await sqlite.snapshot_committed(session.key, written(late))
    assert await head_of(sqlite, session) is None


async def test_only_the_last_intended_snapshot_becomes_head(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    older = await intended(sqlite, session)
    newer = await intended(sqlite, session)

    assert not await sqlite.snapshot_committed(session.key, written(older))
    assert await sqlite.snapshot_committed(session.key, written(newer))
    assert not await sqlite.snapshot_committed(session.key, written(newer)), "once is enough"
    assert await head_of(sqlite, session) == newer.sequence


async def test_a_takeover_by_a_savepoint_voids_what_is_in_flight(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    kept = await saved(sqlite, session)
    in_flight = await intended(sqlite, session)

    assert await sqlite.void_snapshots(session.key, 1)

    assert not await sqlite.snapshot_committed(session.key, written(in_flight))
    assert await head_of(sqlite, session) == kept.sequence
    assert (await intended(sqlite, session)).sequence == in_flight.sequence + 2


async def test_voiding_before_there_is_any_snapshot_is_harmless(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)

    assert await sqlite.void_snapshots(session.key, 1)

    assert await head_of(sqlite, session) is None
    assert (await intended(sqlite, session)).sequence == 2


async def test_calls_that_came_in_meanwhile_do_not_keep_a_snapshot_from_becoming_head(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    intent = await intended(sqlite, session)
    await opened(sqlite, session)

    assert await sqlite.snapshot_committed(session.key, written(intent))

    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.head_execution, record.head_activity) == (1, 1)


async def test_the_head_says_which_execution_it_holds_even_if_that_is_an_earlier_one(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    for _ in range(3):
        await run_cell(sqlite, session)
    intent = await intended(sqlite, session)

    assert await sqlite.snapshot_committed(session.key, written(replace(intent, execution=2)))

    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.head_execution, record.head_activity) == (2, 3)


# --- rollback, clear, import -------------------------------------------------------------------------------------


async def test_a_replacement_counts_as_activity_and_bars_what_was_before(
    sqlite: SqliteRecords, clock: ManualClock
) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    in_flight = await intended(sqlite, session)
    clock.advance(5)

    clear = await replacing(sqlite, session)
    assert not await sqlite.snapshot_committed(session.key, written(in_flight))
    assert await sqlite.snapshot_committed(session.key, written(clear))

    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.head, record.since, record.head_activity) == (2, 2, 2)
    row = await stored(sqlite, session.key)
    assert (row.activity, row.used_at) == (2, clock.now())
    assert await sqlite.hibernate_saved(session.key, 1, 2), "nothing is unsaved after it"


async def test_later_snapshots_keep_the_bar_of_the_last_replacement(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await sqlite.snapshot_committed(session.key, written(await replacing(sqlite, session)))
    await saved(sqlite, session)

    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.head, record.since) == (2, 1)


async def test_a_hibernated_session_is_cleared_without_being_woken(sqlite: SqliteRecords) -> None:
    session = await session_in(sqlite, SessionState.HIBERNATED)

    clear = await replacing(sqlite, session)

    assert await sqlite.snapshot_committed(session.key, written(clear))
    assert await state_of(sqlite, session) == "hibernated"


# --- recovery ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.DESTROYING])
async def test_recovery_adopts_exactly_what_was_intended_in_whatever_state(
    sqlite: SqliteRecords, state: SessionState
) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    older = await intended(sqlite, session)
    newer = await replacing(sqlite, session)
    await in_state(sqlite, session, state)

    assert not await sqlite.adopt_snapshot(session.key, written(older))
    assert await sqlite.adopt_snapshot(session.key, written(newer))

    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.head, record.since, record.intended) == (newer.sequence, newer.sequence, None)


async def test_recovery_adopts_nothing_for_a_session_on_its_way_out(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    intent = await intended(sqlite, session)
    await sqlite.session_destroying(session.key)

    assert not await sqlite.adopt_snapshot(session.key, written(intent))


async def test_what_recovery_adopts_first_is_not_told_as_lost(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    intent = await intended(sqlite, session)
    await run_cell(sqlite, session, bound=["y"])

    assert await sqlite.adopt_snapshot(session.key, written(intent, named("x")))
    await sqlite.recover("killed")

    after = await stored(sqlite, session.key)
    assert (after.untold_loss, after.variable_count) == (Loss(2, 2, "killed", ("y",)), 1)


async def test_a_clear_that_recovery_adopts_first_is_no_loss(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    clear = await replacing(sqlite, session)

    assert await sqlite.adopt_snapshot(session.key, written(clear))
    await sqlite.recover("killed")

    assert (await stored(sqlite, session.key)).untold_loss is None


async def test_recovery_adopts_nothing_once_the_session_has_woken_again(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    intent = await intended(sqlite, session)
    await sqlite.recover("killed")
    await sqlite.begin_creating(session.key, 1)
    await sqlite.session_hibernated(session.key, 2)

    assert not await sqlite.adopt_snapshot(session.key, written(intent))


async def test_what_was_intended_and_what_is_head_outlive_the_process(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as records:
        session = await ready_session(records)
        await saved(records, session, named("x"))
        await intended(records, session)
        before = await records.snapshot_record(session.key)

    async with open_records(path, clock) as records:
        assert await records.snapshot_record(session.key) == before
