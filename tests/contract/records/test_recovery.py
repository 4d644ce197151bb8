"""What every `Records` promises to an owner that takes over after another's death."""

import pytest

from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.model import Loss, SandboxState, SessionState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import TENANT, Opener, opened, ready_session, run_cell, sandbox_in, session_in, stored


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
async def test_no_session_has_a_sandbox_after_recovery(
    records: Records, state: SessionState, after: SessionState | None
) -> None:
    await session_in(records, state)

    touched = await records.recover("the orchestrator was killed")

    assert touched == (0 if state in ASLEEP else 1)
    assert [session.state for session in await records.all_sessions()] == ([after] if after else [])
    assert await records.recover("again") == 0


async def test_recovery_tells_each_session_what_it_lost(records: Records) -> None:
    first, second = await ready_session(records, "first"), await ready_session(records, "second")
    await run_cell(records, first, bound=["x"])
    await run_cell(records, second, bound=["y"])
    await opened(records, second)

    assert await records.recover("the orchestrator was killed") == 2

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


@pytest.mark.parametrize("state", SandboxState)
async def test_every_sandbox_is_to_be_destroyed_after_recovery(records: Records, state: SandboxState) -> None:
    await sandbox_in(records, state)

    await records.recover("killed")

    assert [row.state for row in await records.sandboxes()] == [SandboxState.DESTROYING]
