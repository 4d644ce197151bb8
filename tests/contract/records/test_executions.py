"""What every `Records` promises about the ledger of executions and the cells' text."""

import pytest

from orchestrator.domain.model import ExecutionRecord, SessionState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import TENANT, opened, ready_session, run_cell, session_in, stored
from tests.manual_clock import ManualClock


async def test_an_open_execution_counts_as_activity_and_use(records: Records, clock: ManualClock) -> None:
    session = await ready_session(records)
    clock.advance(7)

    assert await opened(records, session, "x = 1") == 1

    after = await stored(records, session.key)
    assert (after.executions, after.activity, after.used_at) == (1, session.activity + 1, clock.now())
    assert await records.executions(TENANT, "s") == [
        ExecutionRecord(1, session.incarnation, None, clock.now(), None, (), ())
    ]
    assert await records.cell(TENANT, "s", 1) == "x = 1"


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.READY])
async def test_an_execution_opens_only_in_a_ready_session(records: Records, state: SessionState) -> None:
    session = await session_in(records, state)

    assert await records.open_execution(session.key, session.incarnation, "x = 1") is None
    assert await stored(records, session.key) == session


@pytest.mark.parametrize("seen", [-1, 1])
async def test_an_execution_of_another_incarnation_does_not_open(records: Records, seen: int) -> None:
    session = await ready_session(records)

    assert await records.open_execution(session.key, session.incarnation + seen, "x = 1") is None
    assert await records.executions(TENANT, "s") == []


async def test_no_execution_opens_in_a_session_that_was_deleted(records: Records) -> None:
    session = await ready_session(records)
    await records.session_destroying(session.key)
    await records.delete_session(session.key)

    assert await records.open_execution(session.key, session.incarnation, "x = 1") is None


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
    assert await records.cell("another tenant", "s", 1) is None


async def test_the_ledger_keeps_the_last_200_executions_of_each_session(records: Records) -> None:
    session, other = await ready_session(records), await ready_session(records, "other")
    await run_cell(records, other)
    for _ in range(205):
        await run_cell(records, session)

    assert [row.number for row in await records.executions(TENANT, "s", limit=1_000)] == list(range(205, 5, -1))
    assert await records.cell(TENANT, "s", 5) is None
    assert await records.cell(TENANT, "s", 6) == "pass"
    assert await records.cell(TENANT, "other", 1) == "pass"


async def test_the_text_of_cells_is_kept_up_to_ten_megabytes_newest_first(records: Records) -> None:
    session = await ready_session(records)
    for _ in range(11):
        await run_cell(records, session, code="é" * 500_000)  # a megabyte each, in bytes
    await run_cell(records, session, code="small")

    kept = [number for number in range(1, 13) if await records.cell(TENANT, "s", number) is not None]
    assert kept == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert len(await records.executions(TENANT, "s")) == 12


async def test_a_cell_beyond_the_limit_is_forgotten_and_leaves_room_for_the_next(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, code="x" * 10_000_001)
    await run_cell(records, session, code="y = 1")

    assert await records.cell(TENANT, "s", 1) is None
    assert await records.cell(TENANT, "s", 2) == "y = 1"
    assert len(await records.executions(TENANT, "s")) == 2


@pytest.mark.parametrize("code", ["", "x = '\0'", "'\ud800'", "'日本 🎉 \r\n\u2028'", "'; DROP TABLE sessions; --"])
async def test_any_text_is_kept_as_it_was_sent(records: Records, code: str) -> None:
    session = await ready_session(records)

    number = await run_cell(records, session, code=code)

    assert await records.cell(TENANT, "s", number) == code
