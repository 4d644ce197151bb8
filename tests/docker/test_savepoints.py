"""Savepoints in real sandboxes: a worker ends, however it does, and the copy that stood by goes on."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.domain.errors import NamespaceLostError
from orchestrator.domain.model import CellReport
from orchestrator.domain.snapshots import SaveFailedError
from tests.docker.saved_sandbox import Fresh, SavedSandbox, statuses
from tests.pace import paced

ENDS = {
    "its time is over": ("timeout", "import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass"),
    "a loop in C": ("timeout", "import itertools, collections\ncollections.deque(itertools.count(), maxlen=0)"),
    "a segfault": ("crashed", "import ctypes\nctypes.string_at(0)"),
    "an abort": ("crashed", "import os\nos.abort()"),
    "os._exit": ("crashed", "import os\nos._exit(3)"),
    "kill -9 of itself": ("crashed", "import os\nos.kill(os.getpid(), 9)"),
    "kill -9 of its process group": ("crashed", "import os\nos.killpg(0, 9)"),
    "out of memory": ("oom", "x = [bytearray(10_000_000) for _ in range(200)]"),
    "a thread that outlives SIGINT": (
        "timeout",
        """
import threading
def run():
    while True: pass
threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads: thread.start()
while True:
    try: thread.join()
    except BaseException: pass
""",
    ),
    "closed descriptors": ("crashed", "import os\nos.closerange(512, 1024)\nimport time\ntime.sleep(9)"),
}

# When the savepoint of its own cell, which is the second, has stood alone for long enough to be seen.
EXIT_LATER = f"""
import glob, os, threading, time
def leave():
    while [name for path in glob.glob("/proc/[0-9]*/comm") if "savepoint" in (name := name_in(path))] != [LAST]:
        time.sleep(0.05)
    time.sleep({paced(2)})
    os._exit(3)
def name_in(path):
    try:
        return open(path).read().strip()
    except OSError:
        return ""
LAST = "savepoint 2"
threading.Thread(target=leave).start()"""


async def end(box: SavedSandbox, code: str = "import os\nos._exit(3)", *, limit: float = 30.0) -> CellReport:
    """Run a cell that ends its process, or has it ended."""
    ended = await box.run(code, limit=paced(limit))
    assert not ended.namespace_kept
    return ended


@pytest.mark.parametrize("how", ENDS)
async def test_savepoint_takes_over_from_a_worker_that_ends_by(fresh: Fresh, how: str) -> None:
    outcome, code = ENDS[how]
    async with fresh() as box:
        await box.kept("x = [1]\nalias = x")
        for _ in range(2):
            made_after = box.execution
            ended = await end(box, "x.append(2)\n" + code, limit=1.0 if outcome == "timeout" else 30.0)
            assert (ended.outcome, ended.resumed, ended.variable_count) == (outcome, made_after, 2)
            await box.savepoint(made_after)
            assert await box.kept("alias is x, x") == "(True, [1])"
        assert {row.name for row in (await box.agent.list_variables()).variables} == {"x", "alias"}


async def test_savepoint_that_is_just_being_made_takes_over_all_the_same(fresh: Fresh) -> None:
    """The worker ends when its copy has been forked, and has yet to say that it stands."""
    async with fresh() as box:
        await box.kept("x = 0\nimport os")
        for number in range(1, 11):
            await box.value(f"x = {number}")
            await box.another_savepoint()
            assert (await end(box, "os._exit(3)")).resumed == box.execution - 1
            assert await box.kept("x") == str(number)


async def test_what_a_cell_that_raises_has_assigned_stays(fresh: Fresh) -> None:
    async with fresh() as box:
        raised = await box.run("x = 1\n1 / 0")
        assert (raised.outcome, raised.namespace_kept, raised.resumed) == ("exception", True, None)
        assert await box.value("x") == "1"


async def test_without_a_savepoint_nothing_has_taken_over(fresh: Fresh) -> None:
    async with fresh() as box:
        assert (await end(box)).resumed is None
        assert await box.value("'os' in globals()") == "False"


async def test_savepoint_of_a_restore_is_one_of_execution_0(fresh: Fresh) -> None:
    async with fresh() as first:
        await first.value("x = 41\ndef more(): return x + 1")
        saved = await first.save()
    async with fresh() as second:
        await second.wake(saved)
        await second.savepoint(0)
        ended = await end(second)
        assert (ended.resumed, ended.variable_count) == (0, 2)
        assert await second.value("more()") == "42"


@pytest.mark.parametrize("asked", ["execute", "list", "save"])
async def test_end_between_two_cells_is_told_once_to_whoever_asks_next(fresh: Fresh, asked: str) -> None:
    async with fresh() as box:
        await box.kept("x = 1")
        await box.value(f"{EXIT_LATER}\ny = 2")
        await box.taken_over(2)
        asking: dict[str, Callable[[], Awaitable[object]]] = {
            "execute": lambda: box.value("x"),
            "list": box.agent.list_variables,
            "save": box.save,
        }
        with pytest.raises(NamespaceLostError) as told:
            await asking[asked]()
        assert (told.value.resumed, "between two cells" in told.value.cause) == (2, True)
        if asked == "execute":
            box.execution -= 1
        else:
            await asking[asked]()  # whoever asks again has heard it
        assert await box.value("x, y") == "(1, 2)"
        assert statuses(await box.save()).keys() >= {"x", "y"}


@pytest.mark.parametrize("first", ["the cell", "the save"])
async def test_cell_and_save_that_are_both_on_their_way_at_a_takeover_are_both_told_of_it(
    fresh: Fresh, first: str
) -> None:
    async with fresh() as box:
        await box.kept("x = 1")
        await box.value(f"{EXIT_LATER}\nx = 2")
        await box.taken_over(2)
        order = box.order()
        sending: list[Awaitable[object]] = [box.value("x"), box.agent.save(order)]
        if first == "the save":
            sending.reverse()
        told = await asyncio.gather(*sending, return_exceptions=True)
        assert [(type(one), getattr(one, "resumed", None)) for one in told] == [(NamespaceLostError, 2)] * 2
        box.execution -= 1
        assert await box.value("x") == "2"


async def test_clear_ends_the_savepoint_too(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.kept("x = 1")
        await box.agent.clear()
        assert (await end(box)).resumed is None
        await box.kept("y = 1")
        await end(box)
        await box.agent.clear()
        assert await box.value("'y' in globals()") == "False"


async def test_takeover_during_a_save_ends_that_save(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.kept("import os\na = bytearray(os.urandom(40_000_000))")
        saving = await box.agent.save(box.order())
        assert (await end(box)).resumed == 1
        with pytest.raises(SaveFailedError):
            await box.finish(saving)
        assert "a" in statuses(await box.save())


async def test_savepoint_outlives_a_final_save(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.kept("x = 1")
        await box.save(final=True)
        assert (await end(box)).resumed == 1
        assert await box.value("x") == "1"


async def test_savepoint_that_comes_or_goes_beside_a_save_is_no_process_of_the_session(fresh: Fresh) -> None:
    """A wake would tell that it was running and is not started again."""
    async with fresh() as box:
        await box.value("x = 0")
        for seconds in (0.0, 0.002, 0.005, 0.02):
            await box.value("x += 1")
            await asyncio.sleep(seconds)
            saved = await box.save()
            async with fresh() as other:
                assert (await other.wake(saved)).state_lost == ()


async def test_two_hundred_generations_leave_no_process_and_no_descriptor_behind(fresh: Fresh) -> None:
    count = (
        "import os\nlen(os.listdir('/proc/self/fd')), len([p for p in os.listdir('/proc') if p.isdigit()]), "
        "len(os.listdir('/proc/self/task')), generation"
    )
    async with fresh() as box:
        await box.kept("generation = 0")
        first = await box.kept(count)
        for generation in range(1, 201):
            if generation % 20 == 0:
                assert (await end(box)).resumed == box.execution - 1
                await box.savepoint(box.execution - 1)
            await box.kept(f"generation = {generation}")
        last = await box.kept(count)
        assert first is not None
        assert last == first.replace(", 0)", ", 200)")


async def test_worker_that_kills_or_stops_its_savepoint_loses_only_that(fresh: Fresh) -> None:
    hurt = """
import os, signal, sys
def savepoints():
    for name in os.listdir("/proc"):
        if name.isdigit():
            try: score = open(f"/proc/{name}/oom_score_adj").read()
            except OSError: continue
            if score == "100\\n": yield int(name)
hit = [os.kill(pid, SIGNAL) for pid in savepoints()]
"""
    async with fresh() as box:
        await box.kept("x = 1")
        assert await box.value(hurt.replace("SIGNAL", "9") + "bool(hit)") == "True"
        assert await box.kept("x") == "1"
        ended = await end(box, hurt.replace("SIGNAL", "signal.SIGSTOP") + "os._exit(int(bool(hit)))")
        assert (ended.error_message, ended.resumed) == ("its process ended itself with exit code 1", 3)
        assert await box.value("x") == "1"


async def test_savepoint_that_cannot_go_on_gives_way_to_a_fresh_worker(fresh: Fresh) -> None:
    """Its imports never end: the check that it makes before it goes on finds that out."""
    hang = "import sys, time\nclass Hang:\n    def find_spec(self, *_): time.sleep(99)\nsys.meta_path.insert(0, Hang())"
    async with fresh() as box:
        await box.kept(hang)
        ended = await end(box, "sys.modules['os']._exit(3)")
        assert ended.resumed is None
        assert any("could not take over" in note for note in ended.notes)
        assert await box.value("'Hang' in globals()") == "False"


async def test_lines_that_ran_when_a_cell_was_killed_are_told(fresh: Fresh) -> None:
    async with fresh() as box:
        loop = "import time\ndef loop():\n    while True:\n        try: time.sleep(9)\n        except: pass\nloop()"
        late = await end(box, loop, limit=1.0)
        assert [line.strip() for line in str(late.traceback).splitlines()[1:]] == [
            'File "<cell 1>", line 4 in loop',
            'File "<cell 1>", line 6 in <module>',
        ]
        full = await end(box, "x = []\nwhile True:\n    x.append(bytearray(1_000_000))")
        assert (full.outcome, '"<cell 2>", line 3' in str(full.traceback)) == ("oom", True)
        assert full.memory_peak > 900_000_000


async def test_processes_that_cells_leave_are_still_told_apart(fresh: Fresh) -> None:
    """The savepoint is counted among what is ours."""
    async with fresh() as box:
        await box.kept("import subprocess, time")
        await box.kept("child = subprocess.Popen('sleep 0.5; echo late', shell=True)")
        await asyncio.sleep(1)
        late = await box.run("1")
        assert any("wrote 5 more bytes" in note for note in late.notes)
