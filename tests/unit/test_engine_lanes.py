"""Engine calls are bounded: none stops the loop, and a stuck engine is not given threads without end."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.engine.failures import EngineConflictError, EngineFaltersError, EngineUnreachableError
from orchestrator.adapters.engine.lanes import MAX_ABANDONED, Lane
from orchestrator.adapters.engine.retry import repeat
from orchestrator.domain.errors import EngineUnavailableError


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """Calls that wait for it hang until the test is over."""
    event = threading.Event()
    yield event
    event.set()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(t.name.startswith("engine-") for t in threading.enumerate()):
        time.sleep(0.01)


def test_what_comes_after_its_loop_has_stopped_is_discarded() -> None:
    """It may never run again before it is closed, and a connection would be left to the garbage collector."""
    go, discarded = threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    async def abandoned() -> None:
        coming = in_thread(lambda: go.wait(timeout=10), "late", discard=lambda _: discarded.set())
        coming.cancel()

    try:
        loop.run_until_complete(abandoned())
        go.set()
        assert discarded.wait(timeout=10)
    finally:
        loop.close()


async def test_result_and_failure_come_back_from_the_thread() -> None:
    lane = Lane("test", limit=2)
    assert await lane.call(threading.current_thread, seconds=5, doing="Looking") is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        await lane.call(lambda: 1 // 0, seconds=5, doing="Dividing")


async def test_no_more_calls_run_at_once_than_the_lane_is_wide() -> None:
    lane, running, most, lock = Lane("test", limit=3), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    await asyncio.gather(*(lane.call(work, seconds=5, doing="Working") for _ in range(12)))
    assert most == 3


async def test_call_that_hangs_is_left_after_its_bound_and_its_place_is_free(stuck: threading.Event) -> None:
    lane = Lane("test", limit=1)
    with pytest.raises(EngineUnavailableError, match=r"Hanging did not end within 0\.05 s"):
        await lane.call(stuck.wait, seconds=0.05, doing="Hanging")
    assert await lane.call(lambda: 1, seconds=5, doing="Counting") == 1


async def test_call_whose_turn_never_comes_is_told_so(stuck: threading.Event) -> None:
    lane = Lane("test", limit=1)
    hanging = asyncio.create_task(lane.call(stuck.wait, seconds=5, doing="Hanging"))
    await asyncio.sleep(0)
    with pytest.raises(EngineUnavailableError, match="did not get its turn"):
        await lane.call(lambda: 1, seconds=0.05, doing="Counting")
    stuck.set()
    await hanging


async def test_stuck_engine_is_given_up_on_at_once_when_too_many_calls_hang(stuck: threading.Event) -> None:
    lane = Lane("test", limit=MAX_ABANDONED + 1)
    hanging = [lane.call(stuck.wait, seconds=0.05, doing="Hanging") for _ in range(MAX_ABANDONED + 1)]
    assert all(isinstance(r, EngineUnavailableError) for r in await asyncio.gather(*hanging, return_exceptions=True))
    with pytest.raises(EngineUnavailableError, match="was not tried"):
        await lane.call(lambda: 1, seconds=5, doing="Counting")
    stuck.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await lane.call(lambda: 1, seconds=5, doing="Counting") == 1
                break
            except EngineUnavailableError:
                await asyncio.sleep(0.01)


async def test_cancelled_call_goes_on_and_says_when_it_is_done() -> None:
    lane, go = Lane("test", limit=1), threading.Event()
    began: list[asyncio.Future[bool]] = []
    call = asyncio.create_task(lane.call(lambda: go.wait(5), seconds=5, doing="Waiting", began=began.append))
    await asyncio.wait({call}, timeout=0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert not began[0].done()
    go.set()
    assert await began[0] is True


async def test_result_that_nobody_takes_is_discarded_in_a_thread() -> None:
    discarded, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def discard(result: str) -> None:
        assert (result, threading.current_thread()) != ("made", threading.main_thread())
        loop.call_soon_threadsafe(discarded.set)

    def make() -> str:
        go.wait(5)
        return "made"

    in_thread(make, "test", discard=discard).cancel()
    go.set()
    async with asyncio.timeout(5):
        await discarded.wait()


def test_passing_failure_is_repeated_and_the_last_one_is_raised_as_it_is() -> None:
    calls = 0

    def falter() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise EngineFaltersError("hung up")
        return calls

    assert repeat(falter, on=(EngineFaltersError,), attempts=3, within_seconds=5) == 3
    calls = -10
    with pytest.raises(EngineFaltersError, match="hung up"):
        repeat(falter, on=(EngineFaltersError,), attempts=3, within_seconds=5)


@pytest.mark.parametrize("failure", [EngineFaltersError("x"), EngineConflictError("x")])
def test_change_that_may_have_happened_is_not_repeated(failure: Exception) -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise failure

    with pytest.raises(type(failure)):
        repeat(fail, on=(EngineUnreachableError,), attempts=3, within_seconds=5)
    assert calls == 1
