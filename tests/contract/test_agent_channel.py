"""The host's side of PROTOCOL.md, over both transports, against an agent that does what the test says."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.adapters.channel import agent_channel
from orchestrator.domain import wire
from orchestrator.domain.errors import BusyError, InvalidRequestError, NamespaceLostError, SandboxLostError
from orchestrator.domain.model import CellOrder
from orchestrator.domain.ports import AgentHello
from tests.contract.conftest import SAVE, Open, connected, order
from tests.contract.scripted_agent import Reach, ScriptedAgent, result


async def test_cell_is_sent_as_ordered_and_its_result_comes_back(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    assert channel.hello == AgentHello("digest", "3.11.2", 0, 0, None, 0)
    running = asyncio.create_task(channel.execute(order(code="'\ud800é'")))
    request = await agent.next()
    assert request.parts == ("'\ud800é'".encode("utf-8", "surrogatepass"),)
    fields = {name: request.header[name] for name in ("type", "execution", "limit", "grace", "head", "tail")}
    assert fields == {"type": "execute", "execution": 1, "limit": 5.0, "grace": 1.0, "head": 100, "tail": 100}
    agent.report(request, output=b"hi")
    report = await running
    assert (report.outcome, report.output_head, report.value, report.bound) == ("ok", "hi", "42", ("x",))


async def test_claim_list_and_clear_are_asked_and_answered(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    claim, _ = await asyncio.gather(agent.answer(), channel.claim("k", 3))
    assert (claim.header["session"], claim.header["incarnation"]) == ("k", 3)
    clear, _ = await asyncio.gather(agent.answer(), channel.clear())
    assert clear.type == "clear"
    listing = asyncio.create_task(channel.list_variables())
    request = await agent.next()
    table = b'{"variables":[["x","int",28],["f","function",null]],"imports":[],"notes":["n"]}'
    agent.send({"type": "reply", "id": request.header["id"], "ok": True}, [table])
    namespace = await listing
    assert [(v.name, v.type, v.size_bytes) for v in namespace.variables] == [("x", "int", 28), ("f", "function", None)]


@pytest.mark.parametrize("told", [{}, {"landlock": 0}, {"landlock": 7}], ids=["an earlier agent", "none", "7"])
async def test_a_claim_is_answered_with_what_locks_the_worker_in(
    reach: Reach, channel_over: Open, told: dict[str, int]
) -> None:
    agent, channel = await connected(reach, channel_over)
    await asyncio.gather(agent.answer(**told), channel.claim("k", 3))
    assert channel.landlock == told.get("landlock")


async def test_answers_find_their_requests_in_whatever_order_they_come(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    first, second = (asyncio.create_task(channel.execute(order(n))) for n in (1, 2))
    requests = [await agent.next(), await agent.next()]
    for request in reversed(requests):
        agent.report(request, output=str(request.header["execution"]).encode())
    assert [(await first).output_head, (await second).output_head] == ["1", "2"]


@pytest.mark.parametrize(
    "lie",
    [
        {"secret": "00" * 32},
        {"last_request": -1},
        {"last_request": None},
        {"proof": None},
        {"proof": "\ud800"},
        {"sandbox": "other"},
        {"running": "x"},
        {"nonce": 5},
    ],
)
async def test_hello_that_is_not_proven_or_not_well_formed_is_no_hello(
    reach: Reach, channel_over: Open, lie: dict[str, str]
) -> None:
    opening = asyncio.ensure_future(channel_over(seconds=0.6))
    agent = reach.agent()
    with pytest.raises(EOFError):
        await agent.say_hello(**lie)
    with pytest.raises(SandboxLostError):
        await opening


async def test_who_connects_and_says_nothing_ends_with_the_bound(reach: Reach, channel_over: Open) -> None:
    began = time.monotonic()
    opening = asyncio.ensure_future(channel_over(seconds=0.5))
    await reach.agent().connect()
    with pytest.raises(SandboxLostError, match="did not say hello"):
        await opening
    assert time.monotonic() - began < 3


async def test_who_trickles_bytes_ends_with_the_same_bound(reach: Reach, channel_over: Open) -> None:
    opening = asyncio.ensure_future(channel_over(seconds=0.5))
    agent = await reach.agent().connect()
    await agent.next()
    for byte in wire.PREFIX.pack(b"SO", 1, 60_000, 0) + b" " * 30:
        agent.send_raw(bytes([byte]))
        await asyncio.sleep(0.02)
    with pytest.raises(SandboxLostError):
        await opening


async def test_request_is_sent_again_after_a_lost_connection_and_answered_once(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order()))
    first = await agent.next()
    agent.hang_up()
    await agent.say_hello(last_execution=1, running=1)
    again = await agent.next()
    assert (again.header, again.parts) == (first.header, first.parts)
    agent.report(again)
    assert (await running).outcome == "ok"
    assert channel.lost is None


async def test_reply_that_crosses_with_the_repeated_request_may_come_twice_but_not_three_times(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order()))
    first = await agent.next()
    agent.hang_up()
    await agent.say_hello()
    for _ in range(2):
        agent.report(first)
    assert (await running).outcome == "ok"
    await asyncio.gather(agent_answers_after_repetition(agent), channel.clear())
    agent.report(first)
    assert await agent.hung_up_on()
    assert "broke the protocol" in str(channel.lost)


async def agent_answers_after_repetition(agent: ScriptedAgent) -> None:
    assert (await agent.next()).type == "execute"
    await agent.answer()


async def test_interrupt_is_sent_while_its_cell_runs_and_again_after_a_reconnect(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    channel.interrupt(1)  # nothing runs: nothing is sent
    running = asyncio.create_task(channel.execute(order()))
    assert (await agent.next()).type == "execute"
    channel.interrupt(1)
    assert (await agent.next()).header == {"type": "interrupt", "execution": 1}
    agent.hang_up()
    await agent.say_hello()
    request = await agent.next()
    assert (await agent.next()).header == {"type": "interrupt", "execution": 1}
    agent.report(request, outcome="interrupted")
    assert (await running).outcome == "interrupted"


async def test_dead_container_is_lost_at_once_and_not_after_the_bound(reach: Reach, channel_over: Open) -> None:
    alive = True

    async def runs() -> bool:
        return alive

    agent, channel = await connected(reach, channel_over, is_running=runs, reconnect_seconds=60)
    running = asyncio.create_task(channel.execute(order()))
    await agent.next()
    alive = False
    began = time.monotonic()
    agent.hang_up()
    with pytest.raises(SandboxLostError, match="does not run any more"):
        await running
    assert time.monotonic() - began < 2


async def test_agent_that_does_not_come_back_is_lost_after_the_bound(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over, reconnect_seconds=0.3)
    running = asyncio.create_task(channel.execute(order()))
    await agent.next()
    agent.hang_up()
    with pytest.raises(SandboxLostError):
        await running
    with pytest.raises(SandboxLostError):
        await channel.clear()


async def test_hello_of_another_incarnation_after_the_claim_is_refused(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    await asyncio.gather(agent.answer(), channel.claim("k", 3))
    running = asyncio.create_task(channel.execute(order()))
    await agent.next()
    agent.hang_up()
    await agent.say_hello(incarnation=2)
    with pytest.raises(SandboxLostError, match="incarnation 2"):
        await running


async def test_cancelled_call_leaves_the_sandbox_and_its_late_reply_is_no_violation(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order()))
    request = await agent.next()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    agent.report(request)
    await asyncio.gather(agent.answer(), channel.clear())
    assert channel.lost is None


async def test_agent_that_never_answers_is_lost_after_limit_grace_and_margin(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_channel, "EXECUTE_MARGIN_SECONDS", 0.1)
    _, channel = await connected(reach, channel_over)
    quick = CellOrder(1, "x", time_limit=0.1, grace=0.1, output_head=0, output_tail=0)
    with pytest.raises(SandboxLostError, match="did not answer"):
        await channel.execute(quick)


async def test_occupied_is_busy_and_another_refusal_is_a_loss(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    with pytest.raises(BusyError):
        await asyncio.gather(agent.refuse("occupied"), channel.list_variables())
    await asyncio.gather(agent.answer(), channel.clear())
    with pytest.raises(SandboxLostError, match="stale"):
        await asyncio.gather(agent.refuse("stale"), channel.claim("k", 1))
    assert "refused" in str(channel.lost)


async def test_killed_worker_is_told_with_what_a_savepoint_has_brought_back(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order(7)))
    agent.report(await agent.next(), outcome="crashed", namespace_kept=False, resumed=6, memory_peak=123)
    report = await running
    assert (report.namespace_kept, report.resumed, report.memory_peak) == (False, 6, 123)


@pytest.mark.parametrize("resumed", [None, 0, 6])
@pytest.mark.parametrize("asked", ["execute", "list", "save"])
async def test_worker_that_ended_between_two_cells_is_told_with_what_stands_in_its_place(
    reach: Reach, channel_over: Open, asked: str, resumed: int | None
) -> None:
    agent, channel = await connected(reach, channel_over)
    asking: dict[str, Callable[[], Awaitable[object]]] = {
        "execute": lambda: channel.execute(order(7)),
        "list": channel.list_variables,
        "save": lambda: channel.save(SAVE),
    }
    waiting = asyncio.ensure_future(asking[asked]())
    agent.turn_down(await agent.next(), "lost", "its process ended itself", resumed=resumed)
    with pytest.raises(NamespaceLostError) as told:
        await waiting
    assert (told.value.resumed, told.value.cause) == (resumed, "its process ended itself")
    assert channel.lost is None


async def test_code_over_the_cap_is_refused_and_nothing_is_sent(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    with pytest.raises(InvalidRequestError):
        await channel.execute(order(code="#" * 5_000_000))
    await asyncio.gather(agent.answer(), channel.clear())


async def test_closed_channel_hangs_up_and_fails_every_call(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order()))
    await agent.next()
    await channel.close()
    await channel.close()
    with pytest.raises(SandboxLostError, match="was closed"):
        await running
    assert await agent.hung_up_on()


class TestHeartbeats:
    @pytest.fixture
    def heartbeat(self) -> float:
        return 0.1

    async def test_answered_pings_keep_the_connection(self, reach: Reach, channel_over: Open) -> None:
        agent, channel = await connected(reach, channel_over)
        running = asyncio.create_task(channel.execute(order()))
        request = await agent.next()
        waiting = asyncio.create_task(agent.next())  # answers pings
        await asyncio.sleep(1)
        agent.report(request)
        assert (await running).outcome == "ok"
        waiting.cancel()

    async def test_silent_connection_is_dropped_and_the_next_one_serves(self, reach: Reach, channel_over: Open) -> None:
        """What the silent one says later, nobody hears."""
        agent, channel = await connected(reach, channel_over)
        running = asyncio.create_task(channel.execute(order()))
        await agent.next()
        newer = reach.agent()
        await newer.say_hello()
        request = await newer.next()
        agent.send(*result(99, 1))
        newer.report(request)
        assert (await running).outcome == "ok"
        assert channel.lost is None
