"""What every `Records` promises about sandboxes and their states."""

from collections.abc import Awaitable, Callable
from itertools import product

import pytest

from orchestrator.domain.lifecycle import SANDBOX_TRANSITIONS
from orchestrator.domain.model import SandboxState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import ready_session, sandbox_in, sandbox_state

Change = Callable[[Records, str], Awaitable[object]]

CHANGES: dict[SandboxState | None, Change] = {
    SandboxState.UNCLAIMED: lambda records, sandbox: records.sandbox_created(sandbox, "handle"),
    SandboxState.CLAIMED: lambda records, sandbox: records.sandbox_claimed(sandbox, "session", 1),
    SandboxState.FAILED: lambda records, sandbox: records.sandbox_ending(sandbox, SandboxState.FAILED),
    SandboxState.DESTROYING: lambda records, sandbox: records.sandbox_ending(sandbox, SandboxState.DESTROYING),
    None: lambda records, sandbox: records.close_sandbox(sandbox),
}


@pytest.mark.parametrize(("source", "target"), list(product(SandboxState, CHANGES)))
async def test_a_sandbox_changes_state_exactly_as_the_table_allows(
    records: Records, source: SandboxState, target: SandboxState | None
) -> None:
    sandbox = await sandbox_in(records, source)
    before = await records.sandboxes()

    answer = await CHANGES[target](records, sandbox)

    if target in SANDBOX_TRANSITIONS[source]:
        assert answer is (None if target is None else True)
        assert await sandbox_state(records, sandbox) is target
    else:
        assert not answer
        assert await records.sandboxes() == before


async def test_a_sandbox_ends_in_no_other_state(records: Records) -> None:
    sandbox = await sandbox_in(records, SandboxState.CREATING)

    with pytest.raises(ValueError, match="does not end in unclaimed"):
        await records.sandbox_ending(sandbox, SandboxState.UNCLAIMED)
    assert await sandbox_state(records, sandbox) is SandboxState.CREATING


async def test_a_new_sandbox_has_secrets_of_its_own_and_belongs_to_nobody(records: Records) -> None:
    first, second = await records.open_sandbox("image:tag"), await records.open_sandbox("image:tag")

    for record in (first, second):
        assert (len(record.id), len(record.secret)) == (32, 64)
        assert record.state is SandboxState.CREATING
        assert (record.image, record.handle, record.session, record.incarnation) == ("image:tag", None, None, 0)
        assert record.secret not in repr(record)
    assert first.id != second.id
    assert first.secret != second.secret
    assert await records.sandboxes() == [first, second]


async def test_a_claim_says_whom_the_sandbox_serves(records: Records) -> None:
    session = await ready_session(records)
    served, stateless = [await sandbox_in(records, SandboxState.UNCLAIMED) for _ in range(2)]

    assert await records.sandbox_claimed(served, session.key, session.incarnation)
    assert await records.sandbox_claimed(stateless, None, 0)

    rows = {row.id: row for row in await records.sandboxes()}
    assert (rows[served].session, rows[served].incarnation) == (session.key, session.incarnation)
    assert (rows[served].handle, rows[stateless].session) == ("handle", None)


async def test_a_sandbox_is_claimed_once(records: Records) -> None:
    sandbox = await sandbox_in(records, SandboxState.UNCLAIMED)

    assert await records.sandbox_claimed(sandbox, "first", 1)
    assert not await records.sandbox_claimed(sandbox, "second", 1)

    (row,) = await records.sandboxes()
    assert row.session == "first"


async def test_what_is_not_there_can_be_closed_but_not_changed(records: Records) -> None:
    assert not await records.sandbox_created("absent", "handle")
    assert not await records.sandbox_claimed("absent", None, 0)
    assert not await records.sandbox_ending("absent", SandboxState.FAILED)
    await records.close_sandbox("absent")


async def test_no_two_sandboxes_share_a_user_id(records: Records) -> None:
    uids = [(await records.open_sandbox("image:tag")).uid for _ in range(200)]

    assert len(set(uids)) == 200
    assert all(1_000 < uid < 65_536 for uid in uids)


async def test_the_sandbox_of_a_deleted_session_stays_until_it_is_closed(records: Records) -> None:
    session = await ready_session(records)
    sandbox = await sandbox_in(records, SandboxState.UNCLAIMED)
    await records.sandbox_claimed(sandbox, session.key, session.incarnation)

    await records.session_destroying(session.key)
    await records.delete_session(session.key)

    assert await sandbox_state(records, sandbox) is SandboxState.CLAIMED
