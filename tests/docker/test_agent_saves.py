"""The agent's saves in real sandboxes: what is sent, what goes on beside them, and what they leave alone."""

import asyncio
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from orchestrator.domain.errors import BusyError
from orchestrator.domain.snapshots import SaveFailedError
from tests.docker.saved_sandbox import Fresh, Pieces, lose_connection, sandbox, snapshot_engine, statuses

MB = 1_000_000
SESSION = """
import os, numpy as np, json as j
from collections import OrderedDict
x = 1
aliased = [1, 2]
alias = aliased
array = np.arange(1_000_000)
view = array[10:20]
class Point:
    def __init__(self, x): self.x = x
point = Point(aliased)
def total(): return x + sum(aliased)
os.environ["MINE"] = "1"
_private = "kept"
os.makedirs("data/deep")
open("data/deep/small.txt", "w").write("small")
open("large.bin", "wb").write(os.urandom(3_000_000))
os.symlink("large.bin", "link")
digest = __import__("hashlib").sha256(open("large.bin", "rb").read()).hexdigest()
"""
SAME = """
import hashlib
assert (x, alias, point.x is aliased, alias is aliased, total()) == (1, [1, 2], True, True, 4)
assert array[5] == 5 and view.base is array and type(point) is Point and j.dumps([]) == "[]"
assert os.environ["MINE"] == "1" and _private == "kept"
assert open("data/deep/small.txt").read() == "small" and os.readlink("link") == "large.bin"
assert hashlib.sha256(open("large.bin", "rb").read()).hexdigest() == digest
"all of it"
"""


@pytest.mark.parametrize("compress", [False, True])
async def test_session_comes_back_equal_in_another_sandbox(fresh: Fresh, *, compress: bool) -> None:
    async with fresh() as first:
        await first.value(SESSION)
        saved = await first.save(compress=compress)
        assert saved.files_read
        assert set(statuses(saved).values()) == {"saved"}
        assert [file.path for file in saved.manifest.files] == [
            "data", "data/deep", "data/deep/small.txt", "large.bin", "link",
        ]  # fmt: skip
        assert saved.cpu_seconds > 0
    async with fresh() as second:
        report = await second.wake(saved)
        assert (report.lost, report.state_lost) == ((), ())
        assert await second.value(SAME) == "'all of it'"
        again = await second.save(head=saved.manifest.sequence)
        assert second.sent < 100_000, "what came from the host is not sent again"
    async with fresh() as third:
        await third.wake(again)
        assert await third.value(SAME) == "'all of it'"


async def test_session_comes_back_equal_over_the_attach_stream(tmp_path: Path) -> None:
    pieces: Pieces = {}
    async with snapshot_engine(tmp_path / "c", "attach") as engine:
        async with sandbox(engine, pieces) as first:
            await first.value(SESSION)
            saved = await first.save()
        async with sandbox(engine, pieces) as second:
            assert (await second.wake(saved)).lost == ()
            assert await second.value(SAME) == "'all of it'"


async def test_second_save_sends_what_changed_and_no_more(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value(
            "import numpy as np\na = np.arange(3_000_000)\nopen('f', 'wb').write(bytes(range(256)) * 20_000)"
        )
        await box.save()
        assert box.sent > 24 * MB
        await box.value("small = list(range(10))")
        saved = await box.save(head=1)
        assert box.sent < 20_000
        assert "small" in statuses(saved)
        await box.value("a[0] = 1")
        await box.save(head=2)
        assert box.sent < 1.1 * MB
        await box.save(head=1)
        assert box.sent > 24 * MB, "only the newest save and the head are known"
        await box.save()
        assert box.sent > 24 * MB, "without a head everything is sent"


async def test_cells_and_listings_go_on_while_a_save_waits_for_the_host(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import numpy as np\na = np.random.default_rng(0).random(4_000_000)\nn = 0")
        saving = await box.agent.save(box.order())
        await box.value("n = a[0] = -1.0")
        assert {row.name for row in (await box.agent.list_variables()).variables} == {"a", "n"}
        stopped = asyncio.create_task(box.run("while True: pass"))
        await asyncio.sleep(0.1)
        box.agent.interrupt(box.execution)
        assert (await stopped).outcome == "interrupted"
        with pytest.raises(BusyError):
            await box.agent.save(box.order())
        saved = await box.finish(saving)
        assert (await box.run("n")).notes == ()
    async with fresh() as other:
        await other.wake(saved)
        assert await other.value("n, a[0] > 0") == "(0, np.True_)"


async def test_cell_waits_for_files_no_longer_than_it_was_told(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\nfor i in range(150): open(f'f{i}', 'wb').write(os.urandom(1_000_000))")
        saving = asyncio.create_task(box.save(hold=0.0))
        await asyncio.sleep(0.01)
        assert await box.value("1") == "1"
        saved = await saving
        assert not saved.files_read
        assert (saved.manifest.files, saved.manifest.workspace.pieces, saved.manifest.workspace.body) == ((), (), b"")
        patient = asyncio.create_task(box.save(hold=20.0))
        await asyncio.sleep(0.01)
        assert await box.value("2") == "2"
        assert (await patient).files_read


async def test_files_are_of_one_moment_though_a_cell_waits(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\nfor i in range(20): open(f'f{i:02}', 'wb').write(os.urandom(1_000_000))")
        saving = asyncio.create_task(box.save(hold=20.0))
        await asyncio.sleep(0.005)
        await box.value("for i in range(20): open(f'f{i:02}', 'wb').write(b'new')")
        saved = await saving
        assert {row.size_bytes for row in saved.manifest.files} == {1_000_000}


async def test_final_save_stops_everything_and_the_next_request_lets_it_go_on(fresh: Fresh) -> None:
    ticking = """
import threading, time, subprocess, sys
n = 0
def tick():
    global n
    while True:
        n += 1
        open("ticks", "w").write(str(n))
        time.sleep(0.001)
threading.Thread(target=tick, daemon=True).start()
clock = "import time\\nwhile True: open('child', 'w').write(str(time.monotonic_ns()))"
child = subprocess.Popen([sys.executable, "-c", clock])
time.sleep(0.5)
"""
    async with fresh() as box:
        await box.value(ticking)
        first = await box.save(final=True)
        await asyncio.sleep(0.3)
        again = await box.save(head=1, final=True)
        ticks = [next(row for row in saved.manifest.files if row.path == "ticks") for saved in (first, again)]
        assert ticks[0].size_bytes, ticks
        before = int(await box.value("n") or 0)
        await asyncio.sleep(0.2)
        assert int(await box.value("n") or 0) > before, "a request lets everything go on"
        assert await box.value("child.poll(); child.kill(); child.wait()") == "-9"
        saving = await box.agent.save(box.order(final=True))
        saving.abandon()
        with pytest.raises(SaveFailedError):
            await saving.report()
        before = int(await box.value("n") or 0)
        await asyncio.sleep(0.2)
        assert int(await box.value("n") or 0) > before


async def test_abandoned_save_ends_at_once_and_the_next_one_works(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\na = bytearray(os.urandom(40_000_000))")
        for _ in range(3):
            saving = await box.agent.save(box.order())
            async with aclosing(saving.pieces()) as pieces:
                async for _piece in pieces:
                    break
            with pytest.raises(SaveFailedError):
                await saving.report()
        assert await box.value("len(os.listdir('/proc/self/fd')) < 12") == "True"
        assert "a" in statuses(await box.save())


async def test_lost_connection_ends_a_save_and_the_next_one_works(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\na = bytearray(os.urandom(40_000_000))")
        for _ in range(3):
            saving = await box.agent.save(box.order())
            lose_connection(box.agent)
            with pytest.raises(SaveFailedError):
                await box.finish(saving)
            assert await box.value("len(a)") == "40000000"
        assert "a" in statuses(await box.save())


@pytest.mark.parametrize(
    "end",
    ["os._exit(3)", "os.kill(os.getpid(), 9)", "while True:\n    try: time.sleep(9)\n    except BaseException: pass"],
)
async def test_worker_that_ends_during_a_save_ends_it_and_the_next_one_works(fresh: Fresh, end: str) -> None:
    async with fresh() as box:
        await box.value("import os, time\na = bytearray(os.urandom(40_000_000))")
        saving = await box.agent.save(box.order())
        ended = await box.run(end, limit=0.5)
        assert not ended.namespace_kept
        with pytest.raises(SaveFailedError):
            await box.finish(saving)
        await box.value("b = 1")
        assert statuses(await box.save())["b"] == "saved"


async def test_clear_ends_a_save(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\na = bytearray(os.urandom(40_000_000))")
        saving = await box.agent.save(box.order())
        await box.agent.clear()
        with pytest.raises(SaveFailedError):
            await box.finish(saving)
        assert statuses(await box.save()) == {}


async def test_function_that_does_not_load_costs_nothing_but_itself(fresh: Fresh) -> None:
    """What comes after it is tried as if it were not there, as at a wake."""
    code = """
class Bad:
    def __reduce__(self): return int, ("no number",)
def bad(default=Bad()): return 1
class Late:
    def __reduce__(self): return Late, ()
def good(): return 2
late, more = Late(), [Late()]
"""
    async with fresh() as box:
        await box.value(code)
        saved = await box.save()
        refused = {name for name, status in statuses(saved).items() if status == "refused"}
        assert refused == {"bad"}


async def test_libraries_that_a_cell_takes_out_of_sys_modules_are_libraries_all_the_same(fresh: Fresh) -> None:
    """By what it holds, a module leads to the whole interpreter: that took a save half a minute, and failed."""
    async with fresh() as first:
        await first.value(
            "import sys, fractions, numpy as np\nhalf = fractions.Fraction(1, 2)\na = np.arange(3)\nb = a[1:]"
        )
        await first.value("sys.modules.clear()")
        began = time.perf_counter()
        saved = await first.save()
        assert time.perf_counter() - began < 10
    async with fresh() as second:
        await second.wake(saved)
        assert await second.value("half + 1, b.base is a, sys.modules['numpy'] is np") == "(Fraction(3, 2), True, True)"


async def test_what_cells_patch_does_not_keep_a_session_from_being_saved_and_is_saved(fresh: Fresh) -> None:
    """Saving works with the library's own functions; what the session has made of them comes back with it."""
    patches = (
        "os.getpid = lambda: 5",
        "os.dup2 = os.close = os.write = os.fork = None",
        "signal.signal = signal.pthread_sigmask = None",
        "threading.enumerate = threading.current_thread = threading.get_ident = None",
    )
    async with fresh() as first:
        await first.value("import os, signal, threading\nx = 1\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)")
        for patch in patches:
            await first.value(patch)
        saved = await first.save()
    async with fresh() as second:
        await second.wake(saved)
        assert await second.value("x, os.getpid(), os.fork, threading.get_ident") == "(1, 5, None, None)"


async def test_limits_name_what_they_leave_out(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\nlarge = bytearray(os.urandom(3_000_000)); small = bytearray(os.urandom(900_000))")
        saved = await box.save(variable_limit=1 * MB)
        assert statuses(saved) == {"os": "saved", "large": "refused", "small": "saved"}
        saved = await box.save(session_limit=500_000)
        assert statuses(saved) == {"os": "saved", "large": "refused", "small": "refused"}


async def test_throughput_of_one_array(fresh: Fresh, capsys: pytest.CaptureFixture[str]) -> None:
    """Written down, and not judged: machines differ."""
    async with fresh() as box:
        await box.value(f"import numpy as np\na = np.random.default_rng(0).random({100 * MB // 8})")
        source = bytearray(100 * MB)
        for head in (None, None, 2):
            began = time.monotonic()
            saved = await box.save(head=head)
            saving = time.monotonic() - began
            bytes(source)
            memcpy = time.monotonic() - began - saving
            with capsys.disabled():
                sys.stdout.write(
                    f"\n{box.sent / MB:5.1f} MB sent: {saving * 1e3:5.1f} ms (memcpy of all {memcpy * 1e3:4.1f})"
                )
        assert statuses(saved)["a"] == "saved"
