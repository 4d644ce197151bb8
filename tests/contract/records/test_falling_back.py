"""What a session with a head loses, and where it stands afterwards."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.adapters.store import names
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.model import Loss, Session
from tests.contract.records.snapshot_steps import intended, named, replacing, saved, written
from tests.contract.records.steps import opened, ready_session, run_cell, stored


async def bindings(records: SqliteRecords, session: Session) -> Mapping[str, int]:
    """All names that the records believe to be there, and which execution bound them last."""
    rows = await records._db.read(lambda tx: tx.rows("SELECT name FROM names WHERE session = ?", (session.key,)))
    return await records.binding_executions(session.key, [row["name"] for row in rows])


async def _lost(records: SqliteRecords, session: Session, cause: str = "gone") -> Loss | None:
    """The loss, told at once."""
    loss = await records.namespace_lost(session.key, session.incarnation, cause)
    await records.loss_told(session.key)
    return loss


async def test_only_what_came_after_the_head_is_lost(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["kept", "rebound", "removed"], variable_count=3)
    await saved(sqlite, session, named("kept"), named("rebound"), named("removed"))
    await run_cell(sqlite, session, bound=["rebound", "new"], removed=["removed"], variable_count=3)

    assert await _lost(sqlite, session) == Loss(2, 2, "gone", ("new", "rebound"))

    after = await stored(sqlite, session.key)
    assert (after.namespace_since, after.variable_count) == (3, 3)
    assert await bindings(sqlite, session) == {"kept": 1, "rebound": 1, "removed": 1}


async def test_a_session_whose_head_holds_the_last_execution_loses_nothing(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await saved(sqlite, session, named("x"))

    assert await _lost(sqlite, session) is None
    after = await stored(sqlite, session.key)
    assert (after.namespace_since, after.variable_count) == (2, 1)
    assert await bindings(sqlite, session) == {"x": 1}


async def test_an_execution_after_the_head_is_lost_though_it_bound_nothing(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["xs"])
    await saved(sqlite, session, named("xs"))
    await run_cell(sqlite, session)  # such as xs.append(1)

    assert await _lost(sqlite, session) == Loss(2, 2, "gone")


async def test_a_head_that_holds_an_earlier_execution_than_the_last_keeps_only_that(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await run_cell(sqlite, session, bound=["y"])
    intent = await intended(sqlite, session)
    await sqlite.snapshot_committed(session.key, written(replace(intent, execution=1), named("x")))

    assert await _lost(sqlite, session) == Loss(2, 2, "gone", ("y",))


async def test_a_second_loss_before_the_next_snapshot_tells_only_what_ran_since(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await saved(sqlite, session, named("x"))
    await run_cell(sqlite, session, bound=["y"])
    await _lost(sqlite, session)

    assert await _lost(sqlite, session) is None
    await run_cell(sqlite, session, bound=["z"])
    assert await _lost(sqlite, session) == Loss(3, 3, "gone", ("z",))
    assert await bindings(sqlite, session) == {"x": 1}


async def test_a_loss_before_an_open_execution_leaves_that_one_alone(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await saved(sqlite, session, named("x"))
    await run_cell(sqlite, session, bound=["y"])
    number = await opened(sqlite, session)

    loss = await sqlite.namespace_lost(session.key, 1, "gone", before=number)
    await sqlite.close_execution(session.key, number, "ok", bound=["z"], removed=[], variable_count=2)

    assert loss == Loss(2, 2, "gone", ("y",))
    assert await bindings(sqlite, session) == {"x": 1, "z": 3}
    assert (await stored(sqlite, session.key)).variable_count == 2


@pytest.mark.parametrize("clears", [1, 2])
async def test_a_loss_of_a_namespace_that_was_cleared_since_leaves_the_next_one_alone(
    sqlite: SqliteRecords, clears: int
) -> None:
    session = await ready_session(sqlite)
    number = await opened(sqlite, session)
    for _ in range(clears):
        await sqlite.session_cleared(session.key, 1)
    await run_cell(sqlite, session, bound=["x"], variable_count=1)

    assert await sqlite.namespace_lost(session.key, 1, "gone", before=number) is None
    assert (await stored(sqlite, session.key)).variable_count == 1
    assert await bindings(sqlite, session) == {"x": 2}


async def test_after_a_loss_variables_are_counted_as_the_head_holds_them(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x", "os", "lost"], variable_count=7)
    module = replace(named("os"), kind="module")
    code = replace(named("f"), kind="code")
    held = (named("x"), module, code, named("lost", "refused"), named("odd", "unrehearsed"), named("_private"))
    await saved(sqlite, session, *held, named("x"))
    await run_cell(sqlite, session, bound=["y"])

    await _lost(sqlite, session)

    assert (await stored(sqlite, session.key)).variable_count == 3
    assert (await bindings(sqlite, session)).keys() == {"x", "f", "odd", "os", "lost"}


async def test_what_a_long_head_does_not_list_is_counted_and_its_names_take_bounded_room(
    sqlite: SqliteRecords,
) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    many = [named(f"v{i}") for i in range(6_000)]
    await saved(sqlite, session, *many)

    await _lost(sqlite, session)

    assert (await stored(sqlite, session.key)).variable_count == 6_000
    assert len(await bindings(sqlite, session)) == names.KEPT_NAMES


async def test_what_was_replaced_on_purpose_is_never_told_as_lost(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x", "y"])
    await saved(sqlite, session, named("x"), named("y"))
    await run_cell(sqlite, session, bound=["z"])
    await sqlite.namespace_lost(session.key, 1, "gone")
    await run_cell(sqlite, session, bound=["z"], variable_count=3)

    rollback = await replacing(sqlite, session)
    assert await sqlite.snapshot_committed(session.key, written(rollback, named("x"), named("refused", "refused")))

    after = await stored(sqlite, session.key)
    assert (after.untold_loss, after.namespace_since, after.variable_count) == (None, 4, 1)
    assert await bindings(sqlite, session) == {"x": 3}
    assert await _lost(sqlite, session) is None


async def test_a_replacement_that_did_not_become_head_replaces_nothing(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    clear = await replacing(sqlite, session)
    await sqlite.void_snapshots(session.key, 1)

    assert not await sqlite.snapshot_committed(session.key, written(clear))

    assert await bindings(sqlite, session) == {"x": 1}
    assert await _lost(sqlite, session) == Loss(1, 1, "gone", ("x",))


async def test_a_replacement_whose_manifest_claims_an_earlier_execution_brings_no_loss_back(
    sqlite: SqliteRecords,
) -> None:
    session = await ready_session(sqlite)
    for _ in range(3):
        await run_cell(sqlite, session, bound=["x"])
    imported = replace(await replacing(sqlite, session), execution=1)
    await sqlite.snapshot_committed(session.key, written(imported, named("y")))

    assert await _lost(sqlite, session) is None
    assert (await stored(sqlite, session.key)).namespace_since == 4


async def test_recovery_tells_what_came_after_the_head_and_leaves_the_session_there(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await saved(sqlite, session, named("x"))
    await run_cell(sqlite, session, bound=["y"])
    await opened(sqlite, session)

    await sqlite.recover("killed")

    after = await stored(sqlite, session.key)
    assert after.untold_loss == Loss(2, 3, "killed", ("y",))
    assert (after.namespace_since, after.variable_count) == (4, 1)


async def test_a_hibernated_session_that_wakes_and_dies_before_it_ran_anything_loses_nothing(
    sqlite: SqliteRecords,
) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await saved(sqlite, session, named("x"))
    assert await sqlite.hibernate_saved(session.key, 1, 1)
    await sqlite.begin_creating(session.key, 1)
    await sqlite.session_ready(session.key, 2)

    await sqlite.recover("killed")

    assert (await stored(sqlite, session.key)).untold_loss is None


async def test_what_the_savepoint_held_is_told_as_lost_when_the_sandbox_goes_before_anybody_heard_of_the_first_fall(
    sqlite: SqliteRecords,
) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await saved(sqlite, session, named("x"))
    await run_cell(sqlite, session, bound=["y"])
    await run_cell(sqlite, session, bound=["z"])
    assert await sqlite.namespace_lost(session.key, 1, "crash", stands_at=2) == Loss(3, 3, "crash", ("z",))

    loss = await sqlite.namespace_lost(session.key, 1, "lost")

    assert loss is not None
    assert (loss.first, loss.last, set(loss.names)) == (2, 3, {"y", "z"})
