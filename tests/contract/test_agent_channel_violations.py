"""An agent that breaks PROTOCOL.md, over both transports: it is hung up on and lost, the loop goes on."""

import asyncio

import pytest

from orchestrator.domain import wire
from orchestrator.domain.errors import SandboxLostError
from tests.contract.conftest import Open, connected, order
from tests.contract.scripted_agent import Reach, result

VIOLATIONS = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "a reply that nobody asked for": wire.encode({"type": "reply", "id": 99, "ok": True}),
    "a reply whose id is a list": wire.encode({"type": "reply", "id": [1], "ok": True}),
    "a second hello": wire.encode({"type": "hello"}),
    "a request to the host": wire.encode({"type": "execute", "id": 1}),
    "a pong without a ping": wire.encode({"type": "pong"}),
    "a flood of pings": wire.encode({"type": "ping"}) * 5_000,
    "a frame over the caps": wire.PREFIX.pack(b"SO", 1, 100_000, 0),
    "another version": wire.PREFIX.pack(b"SO", 9, 2, 0) + b"{}",
}


@pytest.mark.parametrize("raw", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_who_breaks_the_protocol_is_hung_up_on_and_lost(reach: Reach, channel_over: Open, raw: bytes) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order()))
    await agent.next()
    agent.send_raw(raw)
    with pytest.raises(SandboxLostError, match="broke the protocol"):
        await running
    assert await agent.hung_up_on()


@pytest.mark.parametrize(
    "forged",
    [
        {"execution": 2},
        {"outcome": ["ok"]},
        {"outcome": "deleted"},
        {"duration": "1"},
        {"output_bytes": 1},
        {"variables": -1},
        {"notes": "x"},
        {"namespace_kept": 1},
        {"resumed": 0},
        {"namespace_kept": False, "resumed": 1},
        {"namespace_kept": False, "resumed": -1},
        {"namespace_kept": False, "resumed": True},
        {"memory_peak": None},
        {"memory_peak": 1.5},
        {"ok": "yes"},
    ],
)
async def test_forged_result_is_a_violation(reach: Reach, channel_over: Open, forged: dict[str, object]) -> None:
    agent, channel = await connected(reach, channel_over)
    running = asyncio.create_task(channel.execute(order()))
    request = await agent.next()
    header, parts = result(request.header["id"], 1, output=b"hello")
    agent.send({**header, **forged}, parts)
    with pytest.raises(SandboxLostError, match="broke the protocol"):
        await running


@pytest.mark.parametrize("landlock", [-1, 1.5, True, "7", None, [7], 2**70])
async def test_forged_answer_to_a_claim_is_a_violation(reach: Reach, channel_over: Open, landlock: object) -> None:
    agent, channel = await connected(reach, channel_over)
    claiming = asyncio.gather(agent.answer(landlock=landlock), channel.claim("k", 1))
    with pytest.raises(SandboxLostError, match="broke the protocol"):
        await claiming


@pytest.mark.usefixtures("steady_loop")
async def test_flood_of_large_frames_ends_the_sandbox_and_never_stops_the_loop(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    large = wire.encode({"type": "reply", "id": 7, "ok": True}, [bytes(4_000_000)])
    for _ in range(5):
        agent.send_raw(large)
    assert await agent.hung_up_on()
    assert "broke the protocol" in str(channel.lost)


async def test_who_does_not_read_is_lost_before_much_is_kept_for_it(reach: Reach, channel_over: Open) -> None:
    _, channel = await connected(reach, channel_over)
    calls = [asyncio.create_task(channel.execute(order(n, "#" * 1_000_000))) for n in range(1, 60)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, SandboxLostError) for error in done)
    assert "does not read" in str(channel.lost)
