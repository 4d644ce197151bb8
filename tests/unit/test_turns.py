"""Turns on sessions' files: in order for one session, beside one another for many, and none lost."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from orchestrator.adapters.store.pieces.turns import Turns
from orchestrator.domain.errors import ShuttingDownError


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    opened = Turns()
    yield opened
    await asyncio.wait_for(opened.close(), timeout=10)


async def test_turns_of_one_session_come_one_after_the_other_in_their_order(turns: Turns) -> None:
    running = threading.Lock()
    order: list[int] = []

    def work(number: int) -> None:
        assert running.acquire(blocking=False), "another turn of this session runs"
        order.append(number)
        running.release()

    await asyncio.gather(*(turns.take("k", "read" if i % 3 else "write", partial(work, i)) for i in range(200)))

    assert order == list(range(200))


async def test_readers_do_not_wait_for_the_writers_of_other_sessions(turns: Turns) -> None:
    gate = threading.Event()
    stuck = [turns.take(f"w{i}", "write", lambda: gate.wait(timeout=10)) for i in range(10)]

    read = await asyncio.wait_for(asyncio.gather(*(turns.take(f"r{i}", "read", lambda: 1) for i in range(10))), 5)

    assert sum(read) == 10
    gate.set()
    assert all(await asyncio.gather(*stuck))


async def test_a_turn_cancelled_before_it_came_never_runs_and_the_next_one_does(turns: Turns) -> None:
    gate, ran = threading.Event(), []
    first = turns.take("k", "write", lambda: gate.wait(timeout=10))
    second = turns.take("k", "write", lambda: ran.append(2))
    third = turns.take("k", "write", lambda: ran.append(3))

    second.cancel()
    gate.set()
    await asyncio.gather(first, third)

    assert ran == [3]


async def test_a_turn_cancelled_while_it_runs_runs_to_its_end_before_the_next(turns: Turns) -> None:
    begun, gate, ran = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        gate.wait(timeout=10)
        ran.append(1)

    first = turns.take("k", "write", work)
    assert begun.wait(timeout=10)
    first.cancel()
    second = turns.take("k", "write", lambda: ran.append(2))
    gate.set()
    await second

    assert ran == [1, 2]
    assert first.cancelled()


async def test_a_turn_that_fails_tells_its_caller_and_holds_up_nobody(turns: Turns) -> None:
    failing = turns.take("k", "write", lambda: 1 // 0)
    following = turns.take("k", "write", lambda: 2)

    with pytest.raises(ZeroDivisionError):
        await failing
    assert await following == 2


async def test_closing_waits_for_what_was_queued_and_takes_no_more() -> None:
    turns = Turns()
    gate = threading.Event()
    queued = [turns.take("k", "write", lambda: gate.wait(timeout=10)) for _ in range(5)]
    closing = asyncio.create_task(turns.close())
    await asyncio.sleep(0)

    with pytest.raises(ShuttingDownError):
        turns.take("k", "read", lambda: None)
    gate.set()
    await asyncio.wait_for(closing, timeout=10)

    assert all(turn.result() for turn in queued)
    await turns.close()
