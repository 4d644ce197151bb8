"""What every `Records` promises about namespaces that went: nothing is lost without somebody being told."""

from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.losses import MAX_LOSS_NAMES
from orchestrator.domain.model import Ending, Loss
from orchestrator.domain.ports import Records
from tests.contract.records.snapshot_steps import intended, written
from tests.contract.records.steps import opened, ready_session, run_cell, stored


async def test_a_loss_names_what_was_bound_and_not_removed_since(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["kept", "dropped"])
    await run_cell(records, session, bound=["later"], removed=["dropped"], variable_count=2)

    loss = await records.namespace_lost(session.key, session.incarnation, "the container was removed")

    assert loss == Loss(1, 2, "the container was removed", ("kept", "later"))
    after = await stored(records, session.key)
    assert after.untold_loss == loss
    assert (after.namespace_since, after.variable_count) == (3, 0)


async def test_a_name_bound_again_after_its_removal_is_in_the_loss(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    await run_cell(records, session, removed=["x"])
    await run_cell(records, session, bound=["x"])

    loss = await records.namespace_lost(session.key, session.incarnation, "gone")

    assert loss == Loss(1, 3, "gone", ("x",))


async def test_a_name_bound_before_the_ledger_begins_is_in_the_loss(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["df"])
    for _ in range(250):
        await run_cell(records, session, bound=["i"])

    loss = await records.namespace_lost(session.key, session.incarnation, "gone")

    assert loss == Loss(1, 251, "gone", ("df", "i"))


async def test_nothing_is_lost_where_nothing_ran(records: Records) -> None:
    session = await ready_session(records)

    assert await records.namespace_lost(session.key, session.incarnation, "gone") is None

    after = await stored(records, session.key)
    assert (after.untold_loss, after.namespace_since) == (None, 1)


async def test_executions_that_bound_nothing_or_left_nothing_bound_are_lost_all_the_same(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    await run_cell(records, session, removed=["x"])
    await run_cell(records, session)

    assert await records.namespace_lost(session.key, session.incarnation, "gone") == Loss(1, 3, "gone")
    assert (await stored(records, session.key)).namespace_since == 4


async def test_no_execution_is_in_two_losses(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session)
    await records.namespace_lost(session.key, session.incarnation, "gone")
    await records.loss_told(session.key)

    assert await records.namespace_lost(session.key, session.incarnation, "gone again") is None
    await run_cell(records, session)
    assert await records.namespace_lost(session.key, session.incarnation, "gone again") == Loss(2, 2, "gone again")


async def test_an_execution_that_is_still_open_may_have_bound_something(records: Records) -> None:
    session = await ready_session(records)
    await opened(records, session)

    assert await records.namespace_lost(session.key, session.incarnation, "gone") == Loss(1, 1, "gone")


async def test_a_late_answer_from_a_lost_namespace_binds_nothing_in_the_next(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)
    await records.namespace_lost(session.key, session.incarnation, "gone")
    await records.loss_told(session.key)

    await records.close_execution(session.key, number, "timeout", bound=["x"], removed=[], variable_count=5)

    assert (await stored(records, session.key)).variable_count == 0
    assert await records.namespace_lost(session.key, session.incarnation, "gone again") is None


async def test_a_namespace_that_went_before_an_execution_began_does_not_take_that_one_along(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    number = await opened(records, session)

    loss = await records.namespace_lost(session.key, session.incarnation, "a segfault", before=number)
    await records.close_execution(session.key, number, "ok", bound=["y"], removed=[], variable_count=1)

    assert loss == Loss(1, 1, "a segfault", ("x",))
    after = await stored(records, session.key)
    assert (after.namespace_since, after.variable_count) == (number, 1)
    await records.loss_told(session.key)
    assert await records.namespace_lost(session.key, session.incarnation, "gone") == Loss(2, 2, "gone", ("y",))


async def test_a_namespace_that_went_before_the_first_execution_is_no_loss(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)

    assert await records.namespace_lost(session.key, session.incarnation, "gone", before=number) is None
    assert (await stored(records, session.key)).namespace_since == number


async def test_a_loss_that_is_told_late_does_not_reach_into_what_was_cleared_since(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)
    await records.session_cleared(session.key, session.incarnation)

    assert await records.namespace_lost(session.key, session.incarnation, "gone", before=number) is None
    assert (await stored(records, session.key)).namespace_since == number + 1


async def test_a_loss_stays_untold_until_somebody_was_told(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    loss = await records.namespace_lost(session.key, session.incarnation, "gone")

    assert await records.namespace_lost(session.key, session.incarnation, "gone again") == loss
    assert (await stored(records, session.key)).untold_loss == loss

    await records.loss_told(session.key)
    assert (await stored(records, session.key)).untold_loss is None


async def test_two_untold_losses_are_told_as_one(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x", "y"])
    await records.namespace_lost(session.key, session.incarnation, "out of memory")
    await run_cell(records, session, bound=["y", "z"])

    loss = await records.namespace_lost(session.key, session.incarnation, "the engine restarted")

    assert loss == Loss(1, 2, "out of memory; the engine restarted", ("x", "y", "z"))


async def test_a_loss_of_another_incarnation_is_refused(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    before = await stored(records, session.key)

    assert await records.namespace_lost(session.key, session.incarnation - 1, "gone") is None
    assert await stored(records, session.key) == before


async def test_a_session_on_its_way_out_loses_nothing(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    await records.session_destroying(session.key)

    assert await records.namespace_lost(session.key, session.incarnation, "gone") is None


async def test_more_names_than_anybody_reads_are_counted(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=[f"a{i:04}" for i in range(500)])
    await run_cell(records, session, bound=["newest"])

    loss = await records.namespace_lost(session.key, session.incarnation, "gone")

    assert loss is not None
    assert len(loss.names) == MAX_LOSS_NAMES
    assert loss.names[-1] == "newest"
    assert loss.unlisted == 501 - MAX_LOSS_NAMES


async def test_a_session_that_binds_without_end_is_remembered_in_bounded_room(records: Records) -> None:
    session = await ready_session(records)
    for cell in range(12):
        await run_cell(records, session, bound=[f"v{cell:02}_{i:03}" for i in range(500)])

    loss = await records.namespace_lost(session.key, session.incarnation, "gone")

    assert loss is not None
    assert loss.names[-1] == "v11_499"
    assert MAX_LOSS_NAMES <= len(loss.names) + loss.unlisted <= 1_000


async def test_notes_of_a_wake_stay_until_a_caller_has_been_told(records: Records) -> None:
    session = await ready_session(records)
    await records.leave_notes(session.key, session.incarnation, ["older"])
    await records.leave_notes(session.key, session.incarnation, ["Not saved: f"])
    await records.leave_notes(session.key, session.incarnation + 1, ["of a sandbox that is not there"])
    assert (await stored(records, session.key)).untold_notes == ("Not saved: f",)

    await records.loss_told(session.key)

    assert (await stored(records, session.key)).untold_notes == ()


async def test_a_clear_leaves_nothing_to_tell(records: Records) -> None:
    session = await ready_session(records)
    await records.leave_notes(session.key, session.incarnation, ["Not saved: f"])
    await records.session_cleared(session.key, session.incarnation)
    assert (await stored(records, session.key)).untold_notes == ()


async def test_a_savepoint_keeps_what_came_before_it_and_that_may_still_be_lost(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x", "y"], variable_count=2)
    await run_cell(records, session, bound=["x", "z"], removed=["y"], variable_count=2)

    loss = await records.namespace_lost(session.key, session.incarnation, "killed", stands_at=1)

    assert loss == Loss(2, 2, "killed", ("x", "z"))
    assert await records.binding_executions(session.key) == {"x": 1, "y": 1}
    assert (await stored(records, session.key)).namespace_since == 1
    await records.loss_told(session.key)
    assert await records.namespace_lost(session.key, session.incarnation, "gone") == Loss(1, 2, "gone", ("x", "y"))


async def test_falling_back_to_one_savepoint_again_loses_each_execution_once(records: Records) -> None:
    session = await ready_session(records)
    for _ in range(3):
        await run_cell(records, session)

    assert await records.namespace_lost(session.key, session.incarnation, "killed", stands_at=2) == Loss(3, 3, "killed")
    await records.loss_told(session.key)
    await run_cell(records, session)
    assert await records.namespace_lost(session.key, session.incarnation, "killed", stands_at=2) == Loss(4, 4, "killed")


async def test_a_savepoint_as_of_the_last_execution_loses_nothing(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])

    assert await records.namespace_lost(session.key, session.incarnation, "killed", stands_at=1) is None
    assert await records.binding_executions(session.key) == {"x": 1}


async def test_a_session_that_goes_on_behind_its_head_has_lost_what_the_head_holds(records: SqliteRecords) -> None:
    """Nobody means to: its owner did not hear that the head had become one."""
    session = await ready_session(records)
    for _ in range(3):
        await run_cell(records, session)
    intent = await intended(records, session)
    assert await records.snapshot_committed(session.key, written(intent))

    assert await records.namespace_lost(session.key, session.incarnation, "killed", stands_at=1) == Loss(2, 3, "killed")


async def test_executions_that_never_began_are_no_loss(records: Records) -> None:
    session = await ready_session(records)
    endings: tuple[Ending, ...] = ("never_arrived", "ok", "never_arrived", "ok", "never_arrived")
    for ending in endings:
        number = await opened(records, session)
        await records.close_execution(session.key, number, ending, bound=[], removed=[], variable_count=None)

    assert await records.namespace_lost(session.key, session.incarnation, "it went") == Loss(2, 4, "it went")

    await records.loss_told(session.key)
    number = await opened(records, session)
    await records.close_execution(session.key, number, "never_arrived", bound=[], removed=[], variable_count=None)
    assert await records.namespace_lost(session.key, session.incarnation, "it went") is None
