"""Both transports, each with a scripted agent's end of it; and proof that the loop never stood still."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.attach_transport import AttachTransport
from orchestrator.adapters.channel.unix_transport import UnixTransport
from orchestrator.domain.model import CellOrder
from orchestrator.domain.snapshots import SaveOrder, SnapshotIntent
from tests.contract.scripted_agent import SANDBOX, SECRET, AttachEnd, Reach, ScriptedAgent, UnixEnd

INTENT = SnapshotIntent("k", 7, 3, 20, 41, head=6, replaces=False, seed=2**64 - 1)
SAVE = SaveOrder(INTENT, "env", 6, 10, 100, compress=True, final=False, hold=0.5, bound=30.0, most_bytes=100_000_000)
MOST_STANDSTILL = 2.5  # seconds; two cores that do more than this, and still far below what a hostile close would cost


@pytest.fixture
def heartbeat() -> float:
    """Long, so that a test of something else never sees one missed."""
    return 30.0


def unix_reach(parent: Path, heartbeat: float = 30.0) -> tuple[UnixTransport, UnixEnd]:
    transport = UnixTransport(parent=parent, sandbox_id=SANDBOX, secret=SECRET, heartbeat=heartbeat)
    transport.open()
    transport.admit(os.getpid())
    return transport, UnixEnd(transport.directory)


@pytest.fixture(params=["unix", "attach"])
async def reach(request: pytest.FixtureRequest, tmp_path: Path, heartbeat: float) -> AsyncIterator[Reach]:
    if request.param == "unix":
        unix, end = unix_reach(tmp_path / "c", heartbeat)
        reach = Reach(unix, end)
        yield reach
        await reach.close()
        unix.remove()
        return
    engine = AttachEnd()
    reach = Reach(AttachTransport(attach=engine.attach, sandbox_id=SANDBOX, secret=SECRET, heartbeat=heartbeat), engine)
    yield reach
    await reach.close()
    engine.close()


Open = Callable[..., Awaitable[AgentChannel]]


@pytest.fixture
async def channel_over(reach: Reach) -> AsyncIterator[Open]:
    """Opens a channel over `reach`, with short bounds, and closes it after the test."""
    opened: list[AgentChannel] = []

    async def runs() -> bool:
        return True

    async def open_channel(
        *,
        seconds: float = 5.0,
        reconnect_seconds: float = 5.0,
        is_running: Callable[[], Awaitable[bool]] = runs,
        incarnation: int = 0,
    ) -> AgentChannel:
        channel = await AgentChannel.open(
            reach.transport,
            seconds=seconds,
            is_running=is_running,
            reconnect_seconds=reconnect_seconds,
            incarnation=incarnation,
        )
        opened.append(channel)
        return channel

    yield open_channel
    for channel in opened:
        await channel.close()


def order(execution: int = 1, code: str = "x = 42; x") -> CellOrder:
    return CellOrder(execution, code, time_limit=5.0, grace=1.0, output_head=100, output_tail=100)


async def connected(reach: Reach, channel_over: Open, **bounds: object) -> tuple[ScriptedAgent, AgentChannel]:
    agent, channel = await asyncio.gather(reach.agent().say_hello(), channel_over(**bounds))
    return agent, channel


@pytest.fixture
async def steady_loop() -> AsyncIterator[None]:
    """Fails the test when the loop stood still."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - before)

    ticking = asyncio.create_task(tick())
    yield
    ticking.cancel()
    assert worst < MOST_STANDSTILL, f"the loop stood still for {worst:.2f} s"


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Every thread of a transport ends with its test; those that linger on purpose are given time."""
    yield
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not [t for t in threading.enumerate() if t.name.startswith(("channel-", "agent-", "engine-"))]:
            return
        time.sleep(0.02)
    left = [t.name for t in threading.enumerate() if t.name.startswith(("channel-", "agent-", "engine-"))]
    assert not left
