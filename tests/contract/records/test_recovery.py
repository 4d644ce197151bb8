"""What every `Records` promises to an owner that takes over after another's death."""

import pytest

from orchestrator.domain.model import Ending, Loss, SandboxState, SessionState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import (
    TENANT,
    Opener,
    claimed_by,
    opened,
    ready_session,
    run_cell,
    sandbox_in,
    sandbox_state,
    session_in,
    stored,
)


async def test_records_outlive_their_connection(open_again: Opener) -> None:
    async with open_again() as records:
        installation = records.installation
        session = await ready_session(records)
        await run_cell(records, session, bound=["x"])
        await records.open_sandbox("image:tag")
        await records.remember("probe", "answer")
        before = (await records.all_sessions(), await records.sandboxes(), await records.executions(TENANT, "s"))

    async with open_again() as records:
        after = (await records.all_sessions(), await records.sandboxes(), await records.executions(TENANT, "s"))
        assert after == before
        assert records.installation == installation
        assert await records.remembered("probe") == "answer"


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (SessionState.CREATING, SessionState.HIBERNATED),
        (SessionState.READY, SessionState.HIBERNATED),
        (SessionState.SNAPSHOTTING, SessionState.HIBERNATED),
        (SessionState.HIBERNATED, SessionState.HIBERNATED),
        (SessionState.INACTIVE, SessionState.INACTIVE),
        (SessionState.EXPIRED, SessionState.EXPIRED),
        (SessionState.DESTROYING, None),
    ],
)
async def test_a_session_without_a_claimed_sandbox_sleeps_after_recovery(
    records: Records, state: SessionState, after: SessionState | None
) -> None:
    await session_in(records, state)

    assert await records.recover("the orchestrator was killed") == []

    assert [session.state for session in await records.all_sessions()] == ([after] if after else [])
    assert await records.recover("again") == []


async def test_recovery_tells_each_session_what_it_lost(records: Records) -> None:
    first, second = await ready_session(records, "first"), await ready_session(records, "second")
    await run_cell(records, first, bound=["x"])
    await run_cell(records, second, bound=["y"])
    await opened(records, second)

    await records.recover("the orchestrator was killed")

    losses = [(await stored(records, session.key)).untold_loss for session in (first, second)]
    assert losses == [
        Loss(1, 1, "the orchestrator was killed", ("x",)),
        Loss(1, 2, "the orchestrator was killed", ("y",)),
    ]


async def test_an_untold_loss_outlives_another_recovery(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, bound=["x"])
    await records.recover("first kill")

    await records.recover("second kill")

    assert (await stored(records, session.key)).untold_loss == Loss(1, 1, "first kill", ("x",))


async def test_executions_that_were_running_become_unknown_and_others_stay(records: Records) -> None:
    session = await ready_session(records)
    await run_cell(records, session, outcome="exception")
    await opened(records, session)

    await records.recover("killed")

    rows = await records.executions(TENANT, "s")
    assert [(row.outcome, row.finished_at is None) for row in rows] == [
        ("outcome_unknown", True),
        ("exception", False),
    ]


async def test_a_call_of_the_dead_owner_can_not_be_answered_any_more(records: Records) -> None:
    session = await ready_session(records)
    number = await opened(records, session)
    await records.recover("killed")

    await records.close_execution(session.key, number, "ok", bound=["x"], removed=[], variable_count=1)
    assert await records.open_execution(session.key, session.incarnation) is None

    after = await stored(records, session.key)
    assert (after.executions, after.variable_count) == (1, 0)


@pytest.mark.parametrize("state", [SessionState.READY, SessionState.SNAPSHOTTING])
async def test_a_session_whose_sandbox_may_live_stays_with_all_that_is_open(
    records: Records, state: SessionState
) -> None:
    session = await ready_session(records)
    sandbox = await claimed_by(records, session)
    await run_cell(records, session, bound=["x"])
    if state is SessionState.READY:
        await opened(records, session)
    else:
        seen = await stored(records, session.key)
        assert await records.session_snapshotting(session.key, session.incarnation, seen.activity)
    before = (await records.all_sessions(), await records.sandboxes(), await records.executions(TENANT, "s"))

    for _ in range(2):  # it may be cut short and begun again
        assert [kept.id for kept in await records.recover("killed")] == [sandbox]
        after = (await records.all_sessions(), await records.sandboxes(), await records.executions(TENANT, "s"))
        assert after == before

    assert (await stored(records, session.key)).state is state
    assert await sandbox_state(records, sandbox) is SandboxState.CLAIMED


async def test_a_sandbox_of_an_earlier_incarnation_keeps_nobody_awake(records: Records) -> None:
    session = await ready_session(records)
    sandbox = await claimed_by(records, session, incarnation=session.incarnation - 1)
    await run_cell(records, session, bound=["x"])

    assert await records.recover("killed") == []

    after = await stored(records, session.key)
    assert (after.state, after.untold_loss) == (SessionState.HIBERNATED, Loss(1, 1, "killed", ("x",)))
    assert await sandbox_state(records, sandbox) is SandboxState.DESTROYING


@pytest.mark.parametrize("state", [SessionState.CREATING, SessionState.HIBERNATED, SessionState.DESTROYING])
async def test_a_claimed_sandbox_of_a_session_that_is_not_awake_goes(records: Records, state: SessionState) -> None:
    session = await session_in(records, state)
    sandbox = await claimed_by(records, session)

    assert await records.recover("killed") == []

    assert await sandbox_state(records, sandbox) is SandboxState.DESTROYING


async def test_those_that_may_live_and_those_that_do_not_are_told_apart(records: Records) -> None:
    alive, dead = await ready_session(records, "alive"), await ready_session(records, "dead")
    await claimed_by(records, alive)
    await sandbox_in(records, SandboxState.CLAIMED)  # of a stateless call
    for session in (alive, dead):
        await opened(records, session)

    (kept,) = await records.recover("killed")

    assert (kept.session, kept.incarnation) == (alive.key, alive.incarnation)
    outcomes = {name: (await records.executions(TENANT, name))[0].outcome for name in ("alive", "dead")}
    assert outcomes == {"alive": None, "dead": "outcome_unknown"}


@pytest.mark.parametrize("ending", ["never_arrived", "outcome_unknown"])
async def test_an_execution_that_nobody_can_tell_of_is_closed_without_a_time(records: Records, ending: Ending) -> None:
    session = await ready_session(records)
    number = await opened(records, session)

    await records.close_execution(session.key, number, ending, bound=[], removed=[], variable_count=None)

    (row,) = await records.executions(TENANT, "s")
    assert (row.outcome, row.finished_at) == (ending, None)


@pytest.mark.parametrize("state", SandboxState)
async def test_a_sandbox_of_no_session_is_to_be_destroyed_after_recovery(records: Records, state: SandboxState) -> None:
    await sandbox_in(records, state)

    await records.recover("killed")

    assert [row.state for row in await records.sandboxes()] == [SandboxState.DESTROYING]
