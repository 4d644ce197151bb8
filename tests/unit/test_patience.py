"""A deadline counts the other side's time, and only that."""

import asyncio

import pytest

from orchestrator.adapters.channel.patience import Patience


class Watched:
    """A patience, and what it said when it was over."""

    def __init__(self, *, total: float, idle: float) -> None:
        self.said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.patience = Patience(total=total, idle=idle, over=self.said.set_result)

    async def over_within(self, seconds: float) -> str | None:
        done, _ = await asyncio.wait({self.said}, timeout=seconds)
        return self.said.result() if done else None


async def test_without_progress_it_is_over_after_the_idle_time() -> None:
    assert await Watched(total=60, idle=0.05).over_within(5) == "made no progress for 0 s"


async def test_progress_puts_that_off_but_not_the_total() -> None:
    watched = Watched(total=0.5, idle=0.2)
    for _ in range(40):
        watched.patience.progress()
        await asyncio.sleep(0.02)
    assert await watched.over_within(5) == "took too long"


async def test_paused_time_does_not_count() -> None:
    watched = Watched(total=0.3, idle=0.2)
    for _ in range(3):
        watched.patience.pause()
        await asyncio.sleep(0.25)
        watched.patience.resume()
        await asyncio.sleep(0.01)
        watched.patience.progress()
    assert not watched.said.done()
    assert await watched.over_within(5) is not None


@pytest.mark.parametrize("late", ["pause", "resume", "progress", "cancel"])
async def test_cancelled_it_is_never_over(late: str) -> None:
    watched = Watched(total=0.05, idle=0.05)
    watched.patience.cancel()
    getattr(watched.patience, late)()
    assert await watched.over_within(0.2) is None


async def test_it_is_over_once() -> None:
    calls: list[str] = []
    patience = Patience(total=0.02, idle=5, over=calls.append)
    await asyncio.sleep(0.1)
    patience.resume()
    await asyncio.sleep(0.1)
    assert calls == ["took too long"]
