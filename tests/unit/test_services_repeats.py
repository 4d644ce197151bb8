"""A call with an idempotency key runs once, however often it is made, and whoever ends meanwhile."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.errors import BusyError, InvalidRequestError, OutcomeUnknownError, SessionNotFoundError
from orchestrator.domain.model import ExecutionResult
from orchestrator.services.tenant_sessions import TenantSessions
from tests.unit.pretended_agent import ENDLESS
from tests.unit.pretended_engine import FakeEngine, House, house, runs, until


def again(sessions: TenantSessions, code: str = "x = 1\nx", key: str = "k") -> asyncio.Task[ExecutionResult]:
    return asyncio.create_task(sessions.execute(code, session_id="s", idempotency_key=key))


def cells(opened: House) -> list[str]:
    return [code for agent in opened.engine.agents for code in agent.ran]


async def test_a_call_that_is_made_again_is_answered_as_it_was_and_not_run(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        first = await again(sessions)
        second = await again(sessions)
        assert cells(opened) == ["x = 1\nx"]
        assert (second.value, second.execution, second.bound) == (first.value, first.execution, first.bound)
        assert second.notes == ("This is the answer that the execution had; it was not run again.",)
        assert (await again(sessions, "x", "other")).execution == 2


async def test_calls_made_at_once_with_one_key_share_the_run(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        answers = await asyncio.gather(*(again(sessions) for _ in range(5)))
        assert cells(opened) == ["x = 1\nx"]
        assert {answer.execution for answer in answers} == {1}


async def test_who_goes_away_ends_a_shared_call_only_as_the_last_one(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        one, other = again(sessions, ENDLESS), again(sessions, ENDLESS)
        await until(lambda: runs(opened))
        one.cancel()
        await asyncio.wait([one])
        await asyncio.sleep(0.05)
        assert not other.done()
        other.cancel()
        await asyncio.wait([other])

        async def told() -> bool:
            return (await sessions.result("s", 1)).outcome == "interrupted"

        await until(told)
        answer = await again(sessions, ENDLESS)
        assert answer.error is not None
        assert answer.error.code == "interrupted"
        assert cells(opened) == [ENDLESS]


async def test_an_answer_outlives_a_kill_of_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "data"
    async with house(path) as opened:
        await again(opened.on_behalf("a"))
        left = opened.die()
    async with house(left) as opened:
        answer = await again(opened.on_behalf("a"))
        assert (answer.value, answer.execution) == ("1", 1)
        assert cells(opened) == []


async def test_what_was_running_when_the_owner_was_killed_is_never_run_again(tmp_path: Path) -> None:
    path = tmp_path / "data"
    async with house(path) as opened:
        call = again(opened.on_behalf("a"), ENDLESS)
        await until(lambda: runs(opened))
        left = opened.die()
        call.cancel()
        await asyncio.wait([call])
    async with house(left, engine=FakeEngine()) as opened:
        sessions = opened.on_behalf("a")
        await sessions.execute("y = 1", session_id="s")
        with pytest.raises(OutcomeUnknownError) as caught:
            await again(sessions, ENDLESS)
        assert caught.value.execution == 1
        assert cells(opened) == ["y = 1"]


async def test_a_call_that_outlives_its_owner_is_answered_by_the_next_one(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as opened:
        call = again(opened.on_behalf("a"), ENDLESS, "endless")
        await until(lambda: runs(opened))
        left, engine = opened.die(), opened.engine.as_it_is()
        call.cancel()
        await asyncio.wait([call])
    (agent,) = engine.there.values()
    assert agent.order is not None
    agent.end_cell(agent.order)
    async with house(left, engine=engine) as opened:
        with pytest.raises(BusyError, match="under way"):
            await again(opened.on_behalf("a"), ENDLESS, "endless")
        await opened.sessions.find("s", tenant="a")  # as an owner does by itself with all that lives

        async def answered() -> bool:
            return (await opened.on_behalf("a").result("s", 1)).outcome is not None

        await until(answered)
        answer = await again(opened.on_behalf("a"), ENDLESS, "endless")
        assert answer.error is not None
        assert answer.error.code == "interrupted"
        assert cells(opened).count(ENDLESS) == 1


async def test_a_key_stands_for_one_call_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await again(sessions)
        with pytest.raises(InvalidRequestError, match="another call"):
            await again(sessions, "x = 2")
        with pytest.raises(InvalidRequestError, match="needs a session"):
            await sessions.execute("x = 1", idempotency_key="k")
        for key in ("", " ", "k" * 257):
            with pytest.raises(InvalidRequestError, match="256"):
                await again(sessions, key=key)


async def test_a_key_is_of_its_tenant_and_its_session(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=4) as opened:
        await again(opened.on_behalf("a"), "x = 1\nx")
        other = await again(opened.on_behalf("b"), "x = 2\nx")
        assert other.value == "2"
        beside = await opened.on_behalf("a").execute("x = 3\nx", session_id="t", idempotency_key="k")
        assert beside.value == "3"


async def test_a_session_that_was_deleted_and_began_anew_does_not_run_the_call_again(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await again(sessions)
        await sessions.delete("s")
        with pytest.raises(OutcomeUnknownError, match="deleted since"):
            await again(sessions)
        await sessions.execute("x = 5", session_id="s")
        with pytest.raises(OutcomeUnknownError, match="deleted since"):
            await again(sessions)


async def test_a_call_that_never_began_may_be_made_again(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=0.1) as opened:
        blocking = asyncio.create_task(opened.on_behalf("b").execute(ENDLESS, session_id="s"))
        await until(lambda: runs(opened))
        (refused,) = await asyncio.gather(again(opened.on_behalf("a")), return_exceptions=True)
        assert isinstance(refused, Exception)
        blocking.cancel()
        await asyncio.wait([blocking])
        assert (await again(opened.on_behalf("a"))).value == "1"


async def test_keys_are_forgotten_after_their_time(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await again(sessions)
        opened.clock.advance(86_400 + 1)
        await opened.tenancy.repeats.forget_old()
        assert (await again(sessions)).execution == 2


async def test_results_are_picked_up_by_their_number_from_memory_and_from_the_file(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        for number in (1, 2):
            await sessions.execute(f"x = {number}\nx", session_id="s")
        for _ in range(2):
            kept = await sessions.result("s", 1)
            assert kept.result is not None
            assert (kept.outcome, kept.result.value, kept.result.status) == ("ok", "1", "ok")
            await (await opened.sessions.find("s", tenant="a")).hibernate()
        for number in (0, 3):
            with pytest.raises(InvalidRequestError):
                await sessions.result("s", number)
        with pytest.raises(SessionNotFoundError):
            await opened.on_behalf("b").result("s", 1)
        assert (await opened.on_behalf("a", "read").result("s", 2)).outcome == "ok"


async def test_what_runs_yet_has_no_result(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        call = asyncio.create_task(sessions.execute(ENDLESS, session_id="s"))
        await until(lambda: runs(opened))
        kept = await sessions.result("s", 1)
        assert (kept.outcome, kept.finished_at, kept.result) == (None, None, None)
        assert kept.started_at is not None
        call.cancel()
        await asyncio.wait([call])
