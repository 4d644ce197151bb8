"""What a tenant may use: refused beyond that with what, how much and when it frees; and never at another one's cost."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import InvalidRequestError, QuotaError
from orchestrator.domain.model import ExecutionResult
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.settings import Settings
from tests.unit.pretended_agent import ENDLESS, LOST
from tests.unit.pretended_engine import House, house, until

LONG = 5.0


async def tenant(opened: House, name: str = "a", weight: float = 1.0, **quotas: float | None) -> TenantSessions:
    """A tenant with these quotas beside the defaults."""
    made = await opened.tenancy.tenants.create(name, by=LOCAL_CALLER, weight=weight, quotas=quotas)
    return opened.on_behalf(made.id)


async def refused(call: Awaitable[object], quota: str) -> QuotaError:
    with pytest.raises(QuotaError) as caught:
        await call
    assert caught.value.quota == quota
    return caught.value


async def settled(*calls: asyncio.Task[ExecutionResult]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


def run(sessions: TenantSessions, code: str, session_id: str | None) -> asyncio.Task[ExecutionResult]:
    return asyncio.create_task(sessions.execute(code, session_id=session_id))


def ran(opened: House, number: int) -> Callable[[], Awaitable[bool]]:
    async def have() -> bool:
        return sum(len(agent.ran) for agent in opened.engine.agents) >= number

    return have


async def test_sessions_are_counted_also_where_many_begin_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=8, wait=LONG) as opened:
        sessions = await tenant(opened, sessions=3)
        calls = [run(sessions, "x = 1", f"s{number}") for number in range(8)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, QuotaError)]
        assert [(error.quota, error.used, error.limit) for error in errors] == [("sessions", 3, 3)] * 5
        held = await sessions.list_sessions()
        await refused(sessions.fork(held[0].session_id, "another"), "sessions")
        await sessions.delete(held[0].session_id)
        await sessions.fork(held[1].session_id, "another")


async def test_executions_a_minute_free_with_time_and_survive_a_restart(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = await tenant(opened, executions_a_minute=3)
        for _ in range(3):
            await sessions.execute("x = 1", session_id="s")
        error = await refused(sessions.execute("x = 1", session_id="s"), "executions_a_minute")
        assert (error.used, error.limit) == (3, 3)
        assert error.frees_in == pytest.approx(60, abs=1.1)
        await refused(sessions.save("s"), "executions_a_minute")
        opened.clock.advance(30)
        clock = opened.clock
    async with house(tmp_path, clock=clock) as opened:
        (made,) = [one for one in await opened.tenancy.tenants.list() if one.name == "a"]
        sessions = opened.on_behalf(made.id)
        error = await refused(sessions.execute("x = 1", session_id="s"), "executions_a_minute")
        assert error.frees_in == pytest.approx(30, abs=1.1)
        opened.clock.advance(error.frees_in or 0)
        assert (await sessions.execute("x", session_id="s")).value == "1"


async def test_of_fifty_calls_at_once_no_more_run_than_the_minute_allows(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=4, wait=LONG) as opened:
        sessions = await tenant(opened, executions_a_minute=7)
        calls = [run(sessions, "x = 1", f"s{number % 2}") for number in range(50)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [outcome for outcome in outcomes if isinstance(outcome, QuotaError)]
        assert [(one.quota, one.used, one.limit) for one in refusals] == [("executions_a_minute", 7, 7)] * 43
        assert sum(len(agent.ran) for agent in opened.engine.agents) == 7


async def test_processor_time_is_counted_of_cells_whose_caller_went_away_too(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=4) as opened:
        sessions = await tenant(opened, cpu_seconds_a_day=5)
        await sessions.execute("x = 1", session_id="s")
        for agent in opened.engine.agents:
            agent.cpu = 3.0
        for number in range(2):
            call = run(sessions, ENDLESS, "s")
            await until(ran(opened, 2 + number))
            await settled(call)

        async def counted() -> bool:
            return opened.tenancy.admission._metering._used[sessions.caller.tenant].day.used(0) >= 6

        await until(counted)
        error = await refused(sessions.execute("x", session_id="s"), "cpu_seconds_a_day")
        assert error.used == 6
        assert error.frees_in is not None
        opened.clock.advance(error.frees_in)
        await sessions.execute("x", session_id="s")


async def test_a_cell_that_takes_its_sandbox_with_it_is_not_for_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = await tenant(opened)
        result = await sessions.execute(LOST, session_id="s")
        assert result.error is not None
        (entry,) = [r.entry async for r in opened.tenancy.audit.entries(AuditQuery(act="execute"))]
        assert entry.outcome == "sandbox_lost"
        assert entry.cpu == entry.duration


async def test_the_time_limit_is_refused_above_and_bounds_the_default(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = await tenant(opened, time_limit=20)
        error = await refused(sessions.execute("x = 1", session_id="s", timeout=21), "time_limit")
        assert (error.used, error.limit) == (21, 20)
        await sessions.execute("x = 1", session_id="s")
        assert await sessions.execute("x = 1", session_id="s", timeout=19)
        assert opened.agent.limits == [20, 19]


async def test_running_at_once_waits_for_its_own_and_holds_up_no_other_tenant(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=6, wait=0.3) as opened:
        flood, other = await tenant(opened, running=2), await tenant(opened, "b")
        calls = [run(flood, ENDLESS, f"s{number}") for number in range(2)]
        await until(ran(opened, 2))
        waiting = run(flood, "x = 1", "t")
        assert (await other.execute("y = 1", session_id="s")).status == "ok"
        assert not waiting.done()
        assert await flood.interrupt("s0")
        assert (await waiting).status == "ok"
        calls.append(run(flood, ENDLESS, "u"))
        await until(ran(opened, 5))
        error = await refused(flood.execute("x = 1", session_id="v"), "running")
        assert (error.used, error.limit, error.frees_in) == (2, 2, None)
        await settled(*calls)


async def test_live_sandboxes_of_a_tenant_make_room_for_its_own_calls_alone(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=6, wait=LONG) as opened:
        one, other = await tenant(opened, live_sandboxes=1), await tenant(opened, "b")
        await other.execute("y = 1", session_id="s")
        await one.execute("x = 1", session_id="s")
        assert (await one.execute("x = 2", session_id="t")).status == "ok"  # in place of the first
        states = {(row.tenant, row.session_id): str(row.state) for row in await opened.records.all_sessions()}
        assert states == {
            (one.caller.tenant, "s"): "hibernated",
            (one.caller.tenant, "t"): "ready",
            (other.caller.tenant, "s"): "ready",
        }


async def test_a_tenant_whose_sandboxes_are_all_busy_is_told_its_quota(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=6, wait=0.2) as opened:
        sessions = await tenant(opened, live_sandboxes=1)
        call = run(sessions, ENDLESS, "s")
        await until(ran(opened, 1))
        error = await refused(sessions.execute("x = 1"), "live_sandboxes")
        assert (error.used, error.limit) == (1, 1)
        await settled(call)


async def test_what_is_stored_bounds_what_may_be_run_until_something_is_deleted(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = await tenant(opened, stored_bytes=1, files=2)
        await sessions.execute("file a.txt 1\nfile b.txt 2", session_id="s")
        await sessions.execute("x = 1", session_id="s")
        await opened.histories.save("s", tenant=sessions.caller.tenant)
        opened.clock.advance(3)
        await refused(sessions.execute("x", session_id="s"), "stored_bytes")
        await opened.tenancy.tenants.change("a", by=LOCAL_CALLER, quotas={"files": 2})
        error = await refused(sessions.execute("x", session_id="s"), "files")
        assert (error.used, error.limit) == (2, 2)
        await sessions.delete("s")
        assert (await sessions.execute("x = 1", session_id="s")).status == "ok"


async def test_memory_and_cpus_of_a_tenant_are_its_sandboxes_from_before_their_first_cell(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=4) as opened:
        small, usual = await tenant(opened, memory=2**27, cpus=0.5), await tenant(opened, "b")
        await small.execute("x = 1", session_id="s")
        await small.execute("x = 1")
        limited = [(profile.memory, profile.cpus) for profile in opened.engine.limited.values()]
        assert limited == [(2**27, 0.5)] * 2
        await usual.execute("x = 1", session_id="s")
        assert len(opened.engine.limited) == 2


async def test_the_local_tenant_has_no_quota_unless_it_is_given_one(tmp_path: Path) -> None:
    settings = Settings(quota_sessions=1, max_running=4)
    async with house(tmp_path, settings=settings) as opened:
        local = opened.on_behalf("local")
        await local.execute("x = 1", session_id="s")
        await local.execute("x = 1", session_id="t")
        await opened.tenancy.tenants.change("local", by=LOCAL_CALLER, quotas={"sessions": 2})
        await refused(local.execute("x = 1", session_id="u"), "sessions")


async def test_refusals_are_in_the_audit_once_a_minute_with_their_number(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = await tenant(opened, executions_a_minute=1)
        await sessions.execute("x = 1")
        for _ in range(5):
            await refused(sessions.execute("x = 1"), "executions_a_minute")
        opened.clock.advance(60)
        await opened.tenancy.audit.upkeep()
        entries = [r.entry async for r in opened.tenancy.audit.entries(AuditQuery(act="refuse"))]
        assert [(entry.limits, entry.detail) for entry in entries] == [
            (("executions_a_minute",), {"times": 1}),
            (("executions_a_minute",), {"times": 4}),
        ]


async def test_a_turn_that_takes_long_is_over_for_others_and_not_for_its_tenant(tmp_path: Path) -> None:
    settings = Settings(max_running=1, running_slice=0.1, sandbox_wait=2)
    async with house(tmp_path, sandboxes=6, wait=2, settings=settings) as opened:
        flood, other = await tenant(opened, running=1), await tenant(opened, "b")
        long = run(flood, ENDLESS, "s")
        await until(ran(opened, 1))
        assert (await other.execute("y = 1", session_id="s")).status == "ok"
        await refused(flood.execute("x = 1", session_id="t"), "running")
        await settled(long)

        async def free() -> bool:
            return opened.tenancy.admission._running.held == 0

        await until(free)


async def test_turns_go_by_weight_where_all_wait(tmp_path: Path) -> None:
    settings = Settings(max_running=1, quota_running=0, quota_live_sandboxes=0, sandbox_wait=LONG)
    async with house(tmp_path, sandboxes=20, wait=LONG, settings=settings) as opened:
        heavy, light = await tenant(opened, weight=3), await tenant(opened, "b")
        blocking = run(light, ENDLESS, "blocking")
        await until(ran(opened, 1))
        calls = [run(sessions, code, f"s{n}") for n in range(8) for sessions, code in ((heavy, "h"), (light, "l"))]

        async def all_wait() -> bool:
            return opened.tenancy.admission._running.waiting == 16

        await until(all_wait)
        order: list[str] = []
        for call, code in zip(calls, "hl" * 8, strict=True):
            call.add_done_callback(lambda _, code=code: order.append(code))  # type: ignore[misc]
        await light.interrupt("blocking")
        await asyncio.gather(*calls, blocking)
        assert order[:8].count("h") == 6


async def test_an_interrupt_ends_the_wait_for_a_turn_and_leaves_nothing(tmp_path: Path) -> None:
    settings = Settings(max_running=1, sandbox_wait=LONG)
    async with house(tmp_path, sandboxes=6, wait=LONG, settings=settings) as opened:
        sessions = await tenant(opened)
        blocking = run(sessions, ENDLESS, "s")
        await until(ran(opened, 1))
        waiting = run(sessions, "x = 1", "t")

        async def waits() -> bool:
            return opened.tenancy.admission._running.waiting == 1

        await until(waits)
        assert await sessions.interrupt("t")
        outcome: Any = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert "stopped while it waited for its turn" in str(outcome)
        await settled(blocking)

        async def free() -> bool:
            slots = opened.tenancy.admission._running
            return slots.held == slots.waiting == 0 and not slots._held_by

        await until(free)


async def test_what_is_no_code_costs_no_quota(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = await tenant(opened, executions_a_minute=1)
        for code, limit in ((" ", None), ("x", -1.0), ("\0", None)):
            with pytest.raises(InvalidRequestError):
                await sessions.execute(code, timeout=limit)
        assert (await sessions.execute("x = 1")).status == "ok"
