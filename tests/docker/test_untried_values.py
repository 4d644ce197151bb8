"""Values that no rehearsal tells of: how they are saved, and how little they cost a wake."""

from contextlib import aclosing, suppress

import pytest

from orchestrator.domain.snapshots import RestoreReport, SaveFailedError, SaveReport
from orchestrator.services.waking import TRIES
from tests.docker.saved_sandbox import Fresh, SavedSandbox, reasons, statuses


async def wake(box: SavedSandbox, saved: SaveReport) -> RestoreReport:
    """As the service does."""
    await box.restore(saved, "workspace")
    quarantined: dict[int, str] = {}
    for careful in TRIES:
        report = await box.restore(saved, "namespace", quarantined=quarantined, careful=careful, bound=2.0)
        if report.crashed is None:
            return report
        quarantined.update([report.crashed])
    raise AssertionError(f"not ready after {len(TRIES)} tries")


EXITS = """
import os
class Exits:
    def __init__(self, number): self.number = number
    def __reduce__(self): return os._exit, (self.number,)
precious = [1, 2, 3]
def double(): return [2 * x for x in precious]
for i in range(1, 31): globals()[f"bad{i}"] = @
"""


async def test_many_values_that_end_what_loads_them_are_refused_when_they_are_saved(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value(EXITS.replace("@", "Exits(i)"))
        saved = await box.save()
        assert set(reasons(saved)) == {f"bad{number}" for number in range(1, 31)}
    async with fresh() as box:
        assert (await wake(box, saved)).lost == ()
        assert await box.value("precious, double()") == "([1, 2, 3], [2, 4, 6])"


async def test_untried_values_that_end_every_worker_cost_a_wake_nothing_but_themselves(fresh: Fresh) -> None:
    """They hide in lists, so that no type tells of them."""
    async with fresh() as box:
        await box.value(EXITS.replace("@", "[Exits(i)]"))
        saved = await box.save()
        untried = {name for name, status in statuses(saved).items() if status == "unrehearsed"}
        assert len(untried) == 22
        assert untried <= {name for name, text in saved.remarks if "without having been tried" in text}
    async with fresh() as box:
        assert {name for name, _ in (await wake(box, saved)).lost} == untried
        assert await box.value("precious, double(), Exits(1).number") == "([1, 2, 3], [2, 4, 6], 1)"


async def test_values_that_loaded_when_they_were_saved_and_end_every_worker_now(fresh: Fresh) -> None:
    code = """
import os, numpy as np
class Trap:
    def __setstate__(self, state):
        if os.path.exists("armed"): os._exit(3)
precious, array = [1, 2, 3], np.arange(5)
def double(): return [2 * x for x in precious]
for i in range(30):
    trap = globals()[f"trap{i}"] = Trap()
    trap.number = i
"""
    async with fresh() as box:
        await box.value(code)
        saved = await box.save()
        assert set(statuses(saved).values()) == {"saved"}
    async with fresh() as box:
        await box.run("open('armed', 'w')")
        await box.agent.clear()
        report = await wake(box, saved)
        assert {f"trap{number}" for number in range(30)} <= {name for name, _ in report.lost}
        assert await box.value("precious, double(), array.sum()") == "([1, 2, 3], [2, 4, 6], np.int64(10))"


@pytest.mark.parametrize(
    "change",
    [
        "C.__setstate__ = bad",
        "def helper(): bad()",
        "class Base:\n    def __setstate__(self, state): raise ValueError('changed')\nC.__bases__ = (Base,)",
        "os.environ['WORSE'] = '1'",
    ],
)
async def test_value_is_tried_again_where_what_it_loads_with_has_changed(fresh: Fresh, change: str) -> None:
    code = """
import os
def bad(*_): raise ValueError("changed")
def helper(): pass
class Empty: pass
class C(Empty):
    def __setstate__(self, state):
        helper()
        if "WORSE" in os.environ: bad()
class D(Empty): pass
x, y, z = C(), C(), D()
x.a = y.a = z.a = 1
"""
    if "Base" in change:
        code = code.replace("    def __setstate__(self, state):\n        helper()\n", "    def other(self):\n")
    async with fresh() as box:
        await box.value(code)
        assert reasons(await box.save()) == {}
        await box.value(change)
        refused = reasons(await box.save(head=1))
        assert {"x", "y"} <= set(refused)
        assert "changed" in refused["x"]


KILL_ZYGOTE = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
    except OSError: continue
    if b"zygote" in words and int(pid) != os.getpid():
        try: os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError: pass
"""
NOT_PLAIN = "\nclass C: pass\nx = C(); x.n = {}\nx.a = 1"


async def test_zygote_that_was_killed_is_made_anew_and_rehearses(fresh_without_landlock: Fresh) -> None:
    async with fresh_without_landlock() as box:
        for number in range(4):
            await box.value(KILL_ZYGOTE + NOT_PLAIN.format(number))
            assert statuses(await box.save())["x"] == "saved"
        assert await box.value("x.n") == "3", "what was stopped meanwhile goes on"


async def test_zygote_that_was_stopped_rehearses(fresh_without_landlock: Fresh) -> None:
    async with fresh_without_landlock() as box:
        await box.value(KILL_ZYGOTE.replace("SIGKILL", "SIGSTOP") + NOT_PLAIN.format(1))
        assert statuses(await box.save())["x"] == "saved"


async def test_zygote_that_is_killed_again_and_again_is_told(fresh_without_landlock: Fresh) -> None:
    async with fresh_without_landlock() as box:
        for _ in range(12):
            await box.value(KILL_ZYGOTE + "import time; time.sleep(1)")
        await box.value(NOT_PLAIN.format(5))
        saved = await box.save()
        assert statuses(saved)["x"] == "unrehearsed"
        assert ("x", "saved without having been tried: it may not load again") in saved.remarks
        await box.agent.clear()
        await box.value(NOT_PLAIN.format(6))
        assert statuses(await box.save())["x"] == "saved", "a fresh worker comes of a fresh zygote"


async def test_final_save_beside_a_killed_zygote_comes_to_an_end(fresh_without_landlock: Fresh) -> None:
    async with fresh_without_landlock() as box:
        await box.value(NOT_PLAIN.format(7))
        await box.value(KILL_ZYGOTE)
        saving = await box.agent.save(box.order(final=True))
        async with aclosing(saving.pieces()) as pieces:
            async for piece in pieces:
                box.pieces[piece.raw_digest] = piece
        assert statuses(await saving.report())["x"] in ("saved", "unrehearsed")
        assert await box.value("x.n") == "7"


async def test_no_process_left_for_a_rehearsal_ends_no_zygote(fresh: Fresh) -> None:
    async with fresh() as box:
        filling = """
import subprocess, time
children = []
try:
    while True: children.append(subprocess.Popen(["/bin/sleep", "60"]))
except ProcessLookupError: pass
children.pop().kill(); children.pop().kill(); time.sleep(0.1)
import os
os.waitpid(-1, 0)
"""
        await box.value(NOT_PLAIN.format(8))
        await box.run(filling)
        with suppress(SaveFailedError):  # where nothing could be forked at all
            assert statuses(await box.save())["x"] in ("saved", "unrehearsed")
        await box.agent.clear()
        await box.value(NOT_PLAIN.format(9))
        assert statuses(await box.save())["x"] == "saved"


async def test_what_needs_a_file_of_the_workspace_is_refused_once_that_is_gone(fresh: Fresh) -> None:
    module = "class Point: pass\\ndef make(): return Point()\\n"
    async with fresh() as box:
        await box.value(f"open('shapes.py', 'w').write('{module}')")
        await box.value("import os, shapes\nfrom shapes import Point, make\npoint, kinds, other = make(), [Point], [1]")
        saved = await box.save()
        assert set(statuses(saved).values()) == {"saved"}
        await box.value("os.remove('shapes.py')")
        missing = reasons(await box.save(head=1))
        assert set(missing) == {"Point", "make", "point", "kinds"}
        assert all("No module named 'shapes'" in why for why in missing.values())
        await box.value(f"open('shapes.py', 'w').write('{module}')")
        assert reasons(await box.save(head=2)) == {}
