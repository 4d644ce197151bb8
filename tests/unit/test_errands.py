"""Errands are done one by one: bounded, none stopping the next, and a failing one less and less often."""

import asyncio
import logging

import pytest

from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.services.errands import Errands
from tests.manual_clock import ManualClock


async def well() -> None: ...


async def badly() -> None:
    raise EngineUnavailableError("No engine answers.")


async def by_a_bug() -> None:
    raise ZeroDivisionError


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_works_may_be_done_again_at_once() -> None:
    errands = Errands(ManualClock())

    assert [await errands.run("mend", "s", well) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("work", [badly, by_a_bug, for_ever])
async def test_what_fails_rests_for_a_minute_then_for_two_up_to_an_hour(work: object) -> None:
    clock = ManualClock()
    errands = Errands(clock, bound=0.01)
    for rest in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert not await errands.run("mend", "s", work)  # type: ignore[arg-type]
        clock.advance(rest - 1)
        assert errands.resting("mend", "s") is not None
        assert not await errands.run("mend", "s", well), "it rests"
        clock.advance(1)
        assert errands.resting("mend", "s") is None
    assert await errands.run("mend", "s", well)
    assert not await errands.run("mend", "s", badly)
    clock.advance(60)
    assert await errands.run("mend", "s", well), "after a success it is as if it had never failed"


async def test_one_that_fails_does_not_keep_others_from_being_done() -> None:
    errands = Errands(ManualClock())
    await errands.run("mend", "s", badly)

    assert await errands.run("mend", "t", well)
    assert await errands.run("remove", "s", well)


async def test_a_rest_says_why_and_for_how_long() -> None:
    errands = Errands(ManualClock())
    await errands.run("mend", "s", badly)

    assert errands.resting("mend", "s") == "it failed (No engine answers.) and is tried again in 60 s"


async def test_only_the_first_failure_of_a_kind_is_told_until_one_has_worked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "orchestrator")
    errands = Errands(ManualClock())
    for subject in ("a", "b", "c"):
        await errands.run("mend", subject, badly)
    await errands.run("remove", "a", badly)
    assert [record.getMessage() for record in caplog.records] == [
        "mend a: No engine answers.",
        "remove a: No engine answers.",
    ]

    await errands.run("mend", "d", well)
    await errands.run("mend", "e", badly)
    assert len(caplog.records) == 3


async def test_a_cancelled_errand_is_no_failure() -> None:
    errands = Errands(ManualClock())
    task = asyncio.create_task(errands.run("mend", "s", for_ever))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert errands.resting("mend", "s") is None


async def test_what_nobody_tries_any_more_is_forgotten_in_the_end() -> None:
    clock = ManualClock()
    errands = Errands(clock)
    await errands.run("mend", "s", badly)
    clock.advance(61)
    errands.forget_old()
    assert errands._failed
    clock.advance(3600)
    errands.forget_old()
    assert not errands._failed
