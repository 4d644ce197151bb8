"""What every `Records` promises to many callers at once, and to those who go away."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.domain.errors import ShuttingDownError
from orchestrator.domain.model import SandboxState, Session, SessionState
from orchestrator.domain.ports import Records
from tests.contract.records.steps import (
    ENVIRONMENT,
    TENANT,
    Opener,
    ready_session,
    run_cell,
    sandbox_in,
    session_in,
    stored,
)

Call = Callable[[Records, Session, str], Awaitable[object]]

CALLS: dict[str, Call] = {
    "remembered": lambda r, _s, _b: r.remembered("k"),
    "remember": lambda r, _s, _b: r.remember("k", "v"),
    "find_session": lambda r, _s, _b: r.find_session(TENANT, "s"),
    "ensure_session": lambda r, _s, _b: r.ensure_session(TENANT, "another", ENVIRONMENT),
    "sessions": lambda r, _s, _b: r.sessions(TENANT),
    "all_sessions": lambda r, _s, _b: r.all_sessions(),
    "begin_creating": lambda r, s, _b: r.begin_creating(s.key, s.incarnation),
    "session_ready": lambda r, s, _b: r.session_ready(s.key, s.incarnation),
    "session_snapshotting": lambda r, s, _b: r.session_snapshotting(s.key, s.incarnation, s.activity),
    "session_hibernated": lambda r, s, _b: r.session_hibernated(s.key, s.incarnation),
    "session_destroying": lambda r, s, _b: r.session_destroying(s.key),
    "delete_session": lambda r, s, _b: r.delete_session(s.key),
    "namespace_lost": lambda r, s, _b: r.namespace_lost(s.key, s.incarnation, "gone"),
    "loss_told": lambda r, s, _b: r.loss_told(s.key),
    "session_cleared": lambda r, s, _b: r.session_cleared(s.key, s.incarnation),
    "open_execution": lambda r, s, _b: r.open_execution(s.key, s.incarnation),
    "close_execution": lambda r, s, _b: r.close_execution(
        s.key, s.executions, "ok", bound=["x"], removed=["y"], variable_count=1
    ),
    "executions": lambda r, _s, _b: r.executions(TENANT, "s"),
    "leave_notes": lambda r, s, _b: r.leave_notes(s.key, s.incarnation, ["a note"]),
    "binding_executions": lambda r, s, _b: r.binding_executions(s.key, ["x"]),
    "open_sandbox": lambda r, _s, _b: r.open_sandbox("image:tag"),
    "sandbox_created": lambda r, _s, b: r.sandbox_created(b, "handle"),
    "sandbox_claimed": lambda r, s, b: r.sandbox_claimed(b, s.key, s.incarnation),
    "sandbox_ending": lambda r, _s, b: r.sandbox_ending(b, SandboxState.FAILED),
    "close_sandbox": lambda r, _s, b: r.close_sandbox(b),
    "sandboxes": lambda r, _s, _b: r.sandboxes(),
    "recover": lambda r, _s, _b: r.recover("killed"),
}


def test_every_method_of_the_port_is_cancelled_below() -> None:
    methods = {name for name, value in vars(Records).items() if callable(value) and not name.startswith("_")}
    assert methods - {"close"} == set(CALLS)


async def _cancelled_after(steps: int, call: Awaitable[object]) -> None:
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    # A call that was faster than its cancellation is fine too.
    await asyncio.wait([task], timeout=10)
    assert task.done()


async def _assert_whole(records: Records, key: str) -> None:
    """What one transaction wrote is there together, or not at all."""
    session = await stored(records, key)
    numbers = [row.number for row in await records.executions(session.tenant, session.session_id)]
    assert numbers == list(range(session.executions, 0, -1))


@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_has_happened_whole_or_not_at_all(records: Records, name: str) -> None:
    for steps in (*range(12), 25, 50):
        session = await ready_session(records, f"session-{steps}")
        number = await records.open_execution(session.key, session.incarnation)
        assert number == 1
        session = await stored(records, session.key)
        sandbox = await sandbox_in(records, SandboxState.CREATING)

        await _cancelled_after(steps, CALLS[name](records, session, sandbox))

        await records.recover("the next call works")
        await _assert_whole_if_there(records, session.key)


async def _assert_whole_if_there(records: Records, key: str) -> None:
    if any(session.key == key for session in await records.all_sessions()):
        await _assert_whole(records, key)


async def test_many_cancelled_writers_leave_the_others_unharmed(records: Records) -> None:
    session = await ready_session(records)
    tasks = [asyncio.ensure_future(run_cell(records, session, bound=["x"])) for _ in range(300)]
    for position, task in enumerate(tasks):
        if position % 3 == 0:
            task.cancel()
        if position % 10 == 0:
            await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    numbers = [answer for answer in answers if isinstance(answer, int)]
    assert all(isinstance(answer, int | asyncio.CancelledError) for answer in answers)
    assert len(set(numbers)) == len(numbers) >= 200


async def test_many_tasks_at_once_get_numbers_of_their_own(records: Records) -> None:
    sessions = [await ready_session(records, f"s{i}") for i in range(10)]

    async with asyncio.TaskGroup() as group:
        tasks = {
            session.key: [group.create_task(run_cell(records, session)) for _ in range(15)] for session in sessions
        }

    for session in sessions:
        assert sorted(task.result() for task in tasks[session.key]) == list(range(1, 16))
        await _assert_whole(records, session.key)


async def test_many_tasks_that_ensure_one_session_get_the_same(records: Records) -> None:
    made = await asyncio.gather(*(records.ensure_session(TENANT, "s", ENVIRONMENT) for _ in range(50)))

    assert len({session.key for session in made}) == 1


async def test_of_many_that_claim_one_sandbox_one_wins(records: Records) -> None:
    sandbox = await sandbox_in(records, SandboxState.UNCLAIMED)

    answers = await asyncio.gather(*(records.sandbox_claimed(sandbox, f"session-{i}", 1) for i in range(50)))

    assert answers.count(True) == 1


async def test_of_many_that_begin_creating_one_wins(records: Records) -> None:
    session = await session_in(records, SessionState.HIBERNATED)

    answers = await asyncio.gather(*(records.begin_creating(session.key, 0) for _ in range(50)))

    assert sum(answer is not None for answer in answers) == 1
    assert (await stored(records, session.key)).incarnation == 1


async def test_closing_twice_or_at_once_is_harmless(records: Records) -> None:
    await asyncio.gather(records.close(), records.close(), records.close())
    await records.close()


async def test_closing_finishes_what_was_begun_and_refuses_the_rest(open_again: Opener) -> None:
    async with open_again() as records:
        begun = [asyncio.ensure_future(records.ensure_session(TENANT, f"s{i}", ENVIRONMENT)) for i in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(records.close())
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDownError):
            await records.all_sessions()
        made = await asyncio.gather(*begun)
        await closing

    async with open_again() as records:
        assert await records.all_sessions() == made


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancelled_close_still_closes(open_again: Opener, steps: int) -> None:
    async with open_again() as records:
        await records.ensure_session(TENANT, "s", ENVIRONMENT)
        await _cancelled_after(steps, records.close())
        await records.close()

    async with open_again() as records:
        assert len(await records.all_sessions()) == 1
