"""Values that cost what saves a process: each try goes further, in bounded time, and the rest is saved."""

import time
from contextlib import suppress

import pytest

from orchestrator.domain.snapshots import SaveFailedError, SaveReport
from tests.docker.saved_sandbox import Fresh, reasons, statuses

DYING = """
import os
class Dying:
    def __reduce__(self): os._exit(3)
good = 42
"""
ONE_TYPE = "for i in range({count}): globals()[f'bad{{i}}'] = Dying()"
MANY_TYPES = "for i in range({count}): globals()[f'bad{{i}}'] = type(f'D{{i}}', (Dying,), {{}})()"
IN_LISTS = "for i in range({count}): globals()[f'bad{{i}}'] = [Dying()]"


@pytest.mark.parametrize(("make", "count"), [(ONE_TYPE, 20), (ONE_TYPE, 200), (MANY_TYPES, 30), (IN_LISTS, 30)])
async def test_what_surrounds_many_values_that_end_what_saves_is_saved(fresh: Fresh, make: str, count: int) -> None:
    async with fresh() as box:
        await box.value(DYING + make.format(count=count) + "\nalso = [1]")
        began = time.monotonic()
        saved = await box.save()
        assert set(reasons(saved)) >= {f"bad{number}" for number in range(count)}
        assert (statuses(saved)["good"], statuses(saved)["also"]) == ("saved", "saved")
        again = await box.save(head=1)
        assert statuses(again) == statuses(saved)
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("length", [65_350, 70_000, 300_000])
async def test_value_of_a_long_name_is_refused_again_and_again(fresh: Fresh, length: int) -> None:
    async with fresh() as box:
        await box.value(DYING + f"globals()['n' * {length}] = Dying()\nglobals()['\\u2603' * {length}] = Dying()")
        for _ in range(6):
            saved = await box.save()
            assert statuses(saved)["good"] == "saved"
            assert sum(row.status == "refused" for row in saved.manifest.names) == 2
        assert await box.value("good") == "42"


async def test_save_that_is_given_up_tells_the_next_what_it_has_lost(fresh: Fresh) -> None:
    hanging = "import time\nclass Hanging:\n    def __reduce__(self): time.sleep(1000)\n"
    async with fresh() as box:
        await box.value(DYING + hanging + "first = Hanging()\nsecond = [Hanging()]")
        with pytest.raises(SaveFailedError):
            await box.save(bound=15.0)
        began = time.monotonic()
        saved = await box.save()
        assert time.monotonic() - began < 15, "what hung is not tried again"
        assert set(reasons(saved)) >= {"first", "second"}
        assert statuses(saved)["good"] == "saved"


async def test_value_that_lacked_memory_is_told_so_and_tried_again(fresh: Fresh) -> None:
    code = """
import os
class Greedy:
    def __reduce__(self):
        while not os.path.exists("modest"): held.append(os.urandom(1000) * 20_000)
        return Greedy, ()
held, good, greedy = [], 42, Greedy()
"""
    async with fresh() as box:
        await box.value(code)
        saved: SaveReport | None = None
        with suppress(SaveFailedError):  # where the kernel chose what holds the frozen moment
            saved = await box.save()
        if saved is not None:
            assert "not enough memory" in reasons(saved)["greedy"]
            assert statuses(saved)["good"] == "saved"
        await box.value("open('modest', 'w').close()")
        assert statuses(await box.save())["greedy"] == "saved"


@pytest.mark.parametrize("act", ["os._exit(5)", "time.sleep(1000)", "raise SystemExit"])
async def test_library_that_a_session_has_broken_costs_its_own_state(fresh: Fresh, act: str) -> None:
    code = f"import os, time, numpy as np\nx = [1]\ndef broken(*_, **__): {act}\nnp.get_printoptions = broken"
    async with fresh() as box:
        await box.value(code)
        saved = await box.save()
        assert statuses(saved)["x"] == "saved"
        began = time.monotonic()
        await box.save()
        assert time.monotonic() - began < 5, "what hung is not tried again"
    async with fresh() as box:
        report = await box.wake(saved)
        assert report.lost == ()
        if act != "raise SystemExit":
            assert [what for what, _ in report.state_lost] == ["numpy"]
        assert await box.value("x, np.arange(2).sum()") == "([1], np.int64(1))"
