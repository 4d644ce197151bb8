"""What every `Records` promises about the ledger of executions."""

import pytest

from orchestrator.domain.model import ExecutionRecord, SessionState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import TENANT, opened, ready_session, run_cell, session_in, stored
from tests.manual_clock import ManualClock


async def test_an_open_execution_counts_as_activity_and_use(records: Records, clock: ManualClock) -> None:
    session = await ready_session(records)
    clock.advance(7)

    assert await opened(records, session) == 1

    after = await stored(records, session.key)
    assert (after.executions, after.activity, after.used_at) == (1, session.activity + 1, clock.now())
    assert await records.executions(TENANT, "s") == [
        ExecutionRecord(1, session.incarnation, None, clock.now(), None, (), ())
    ]


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.READY])
async def test_an_execution_opens_only_in_a_ready_session(records: Records, state: SessionState) -> None:
    session = await session_in(records, state)

    assert await records.open_execution(session.key, session.incarnation) is None
    assert await stored(records, session.key) == session


@pytest.mark.parametrize("seen", [-1, 1])
async def test_an_execution_of_another_incarnation_does_not_open(records: Records, seen: int) -> None:
    session = await ready_session(records)

    assert await records.open_execution(session.key, session.incarnation + seen) is None
    assert await records.executions(TENANT, "s") == []


async def test_no_execution_opens_in_a_session_that_was_deleted(records: Records) -> None:
    session = await ready_session(records)
    await records.session_destroying(session.key)
    await records.delete_session(session.key)

    assert await records.open_execution(session.key, session.incarnation) is None


async def test_closing_notes_the_answer(records: Records, clock: ManualClock) -> None:
    session = await ready_session(records)
    started = clock.now()
    number = await opened(records, session)
    clock.advance(3)

    await records.close_execution(session.key, number, "exception", bound=["a", "b"], removed=["c"], variable_count=9)

    assert await records.executions(TENANT, "s") == [
        ExecutionRecord(number, session.incarnation, "exception", started, clock.now(), ("a", "b"), ("c",))
    ]
    after = await stored(records, session.key)
    assert (after.variable_count, after.used_at) == (9, clock.now())
    assert after.activity == session.activity + 1


async def test_an_answer_without_a_count_leaves_the_last_one(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x", "y"], variable_count=2)
    number = await opened(records, session)

    await records.close_execution(session.key, number, "interrupted", bound=[], removed=[], variable_count=None)

    assert (await stored(records, session.key)).variable_count == 2


async def test_a_closed_execution_is_not_changed(records: Records, clock: ManualClock) -> None:
    session = await ready_session(records)
    number = await run_cell(records, session, bound=["x"], variable_count=1)
    ledger, row = await records.executions(TENANT, "s"), await stored(records, session.key)
    clock.advance(3)

    await records.close_execution(session.key, number, "crashed", bound=[], removed=["x"], variable_count=0)

    assert await records.executions(TENANT, "s") == ledger
    assert await stored(records, session.key) == row


async def test_closing_what_was_never_opened_or_was_deleted_is_harmless(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)
    await records.close_execution(session.key, number + 1, "ok", bound=["x"], removed=[], variable_count=1)
    assert (await stored(records, session.key)).variable_count == 0

    await records.session_destroying(session.key)
    await records.delete_session(session.key)
    await records.close_execution(session.key, number, "deleted", bound=[], removed=[], variable_count=0)

    assert await records.all_sessions() == []


async def test_an_execution_of_a_session_on_its_way_out_still_closes(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)
    await records.session_destroying(session.key)

    await records.close_execution(session.key, number, "deleted", bound=[], removed=[], variable_count=0)

    assert (await stored(records, session.key)).state is SessionState.DESTROYING


async def test_numbers_rise_across_incarnations(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session)
    await records.session_hibernated(session.key, session.incarnation)
    second = await ready_session(records)

    assert await run_cell(records, second) == 2
    assert [(row.number, row.incarnation) for row in await records.executions(TENANT, "s")] == [(2, 2), (1, 1)]


async def test_the_newest_executions_come_first_and_as_many_as_asked(records: Records) -> None:
    session = await ready_session(records)
    for _ in range(5):
        await run_cell(records, session)

    assert [row.number for row in await records.executions(TENANT, "s", limit=2)] == [5, 4]
    assert await records.executions(TENANT, "s", limit=0) == []
    assert await records.executions("another tenant", "s") == []


async def test_each_name_has_the_execution_that_bound_it_last(records: Records) -> None:
    session, other = await ready_session(records), await ready_session(records, "other")
    await run_cell(records, session, bound=["x", "y", "gone"])
    await run_cell(records, session, bound=["y", "it's", "名"], removed=["gone"])
    await run_cell(records, other, bound=["z"])

    found = await records.binding_executions(session.key, ["x", "y", "y", "it's", "名", "gone", "z"])

    assert found == {"x": 1, "y": 2, "it's": 2, "名": 2}
    assert await records.binding_executions(session.key, []) == {}
    assert await records.binding_executions("0" * 32, ["x"]) == {}


async def test_a_name_bound_before_the_ledger_begins_has_its_execution_still(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    for _ in range(201):
        await run_cell(records, session)

    assert await records.binding_executions(session.key, ["x"]) == {"x": 1}


async def test_the_ledger_keeps_the_last_200_executions_of_each_session(records: Records) -> None:
    session, other = await ready_session(records), await ready_session(records, "other")
    await run_cell(records, other)
    for _ in range(205):
        await run_cell(records, session)

    assert [row.number for row in await records.executions(TENANT, "s", limit=1_000)] == list(range(205, 5, -1))
    assert [row.number for row in await records.executions(TENANT, "other")] == [1]
