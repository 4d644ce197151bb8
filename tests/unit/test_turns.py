"""Turns on sessions' files: in order for one session, beside one another for many, and none lost."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from functools import partial

import pytest

from orchestrator.adapters.store.pieces.turns import Turns
from orchestrator.domain.errors import ShuttingDownError, StoreUnreachableError
from tests.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Says how long a disk has not answered, so that a busy machine is no dead disk."""
    return ManualClock()


@pytest.fixture
async def turns(clock: ManualClock) -> AsyncIterator[Turns]:
    opened = Turns(clock)
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
    await asyncio.sleep(0)  # the loop passes it on in its next round
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


async def test_what_a_turn_took_and_gave_goes_with_its_answer_and_not_with_the_garbage_collector(turns: Turns) -> None:
    """Few large batches never make the collector run, so that hundreds of MiB would wait for it."""

    class Batch:
        pass

    taken, given = Batch(), Batch()
    alive = [weakref.ref(taken), weakref.ref(given)]
    collects = gc.isenabled()
    gc.disable()
    try:
        assert await turns.take("k", "write", partial(lambda _taken, answer: answer, taken, given)) is given
        del taken, given
        for _ in range(1_000):
            if not any(reference() for reference in alive):
                break
            await asyncio.sleep(0.01)  # the thread is about to let go of its turn
        assert [reference() for reference in alive] == [None, None]
    finally:
        if collects:
            gc.enable()


async def test_closing_waits_for_what_was_queued_and_takes_no_more(clock: ManualClock) -> None:
    turns = Turns(clock)
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


async def test_a_disk_that_never_answers_is_told_to_who_waits_and_to_who_comes_after(clock: ManualClock) -> None:
    turns = Turns(clock, stalled_after=0.2)
    begun, gate, ran = threading.Event(), threading.Event(), []

    def hang() -> None:
        begun.set()
        gate.wait(timeout=30)

    hung = turns.take("k", "write", hang)
    following = turns.take("k", "read", lambda: ran.append("following"))
    assert begun.wait(timeout=10)
    clock.advance(0.2)

    for turn in (hung, following):
        with pytest.raises(StoreUnreachableError, match="has not answered"):
            await asyncio.wait_for(turn, timeout=10)
    assert await turns.take("another", "write", lambda: 1) == 1
    gate.set()
    assert await turns.take("k", "write", lambda: 2) == 2
    assert not ran
    await asyncio.wait_for(turns.close(), timeout=10)


async def test_a_session_behind_threads_that_all_hang_is_told_and_closing_leaves_them(clock: ManualClock) -> None:
    turns = Turns(clock, stalled_after=0.2)
    begun, gate = threading.Barrier(3), threading.Event()

    def hang() -> None:
        begun.wait(timeout=10)
        gate.wait(timeout=30)

    hung = [turns.take(f"w{i}", "write", hang) for i in range(2)]
    behind = turns.take("k", "write", lambda: 1)
    begun.wait(timeout=10)
    clock.advance(0.2)

    with pytest.raises(StoreUnreachableError):
        await asyncio.wait_for(behind, timeout=10)
    assert await turns.take("a reader", "read", lambda: 2) == 2
    await asyncio.wait_for(turns.close(), timeout=10)
    await asyncio.wait(hung)
    gate.set()


async def test_many_slow_turns_in_one_line_are_no_stall(clock: ManualClock) -> None:
    turns = Turns(clock, stalled_after=0.3)

    def slow() -> None:
        clock.advance(0.2)
        threading.Event().wait(0.05)  # so that it is looked at meanwhile

    answers = [turns.take("k", "write", slow) for _ in range(12)]

    assert len(await asyncio.gather(*answers)) == 12
    await turns.close()
