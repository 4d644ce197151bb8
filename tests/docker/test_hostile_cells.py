"""Cells that reach for the agent, named by outcome: what they break is at most their own."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.settings import Settings
from tests.pace import paced
from tests.security.weakened import profile_without_landlock


async def alive(orchestrator: Orchestrator, session_id: str = "s") -> None:
    async with asyncio.timeout(paced(30)):
        result = await orchestrator.execute("print('alive')\n6 * 7", session_id=session_id)
    assert (result.value, result.error) == ("42", None)
    assert "alive" in result.output


# The first is over before the worker has read its order; the signals of the others come anywhere in the beginning.
@pytest.mark.parametrize("limit", [1e-9, 0.0001, 0.0005, 0.001, 0.002])
async def test_cells_whose_time_is_over_as_they_begin_are_interrupted_and_keep_the_namespace(
    orchestrator: Orchestrator, limit: float
) -> None:
    await orchestrator.execute("import time", session_id="s")
    for code in ["import time\ntime.sleep(30)", "time.sleep(30)", "while True: pass"] * 15:
        late = await orchestrator.execute(code, session_id="s", timeout=limit)
        assert late.error is not None
        assert late.error.code == "timeout"
        assert "namespace is kept" in late.error.message
    await alive(orchestrator)


async def test_a_signal_that_comes_between_two_cells_holds_up_neither(orchestrator: Orchestrator) -> None:
    code = "import subprocess, os\nsent = subprocess.Popen(f'sleep .2; kill -INT {os.getpid()}', shell=True)"
    await orchestrator.execute(code, session_id="s")
    await asyncio.sleep(paced(0.5))
    assert (await orchestrator.execute("sent.wait()", session_id="s", timeout=paced(5))).value == "0"


async def test_an_interrupt_that_a_finalizer_swallows_is_raised_again(orchestrator: Orchestrator) -> None:
    code = (
        f"import time\nclass Slow:\n    def __del__(self):\n        end = time.monotonic() + {paced(2)}\n"
        "        while time.monotonic() < end: pass\nkept = 1\nslow = Slow()\ndel slow\nkept = 2\ntime.sleep(30)"
    )
    stopped = await orchestrator.execute(code, session_id="s", timeout=paced(0.5))
    assert stopped.error is not None
    assert "namespace is kept" in stopped.error.message
    assert "Exception ignored in" in stopped.output
    assert (await orchestrator.execute("kept", session_id="s")).value == "2"


async def test_an_interrupt_that_arrives_is_raised_once(orchestrator: Orchestrator) -> None:
    code = "import time\ntry:\n    time.sleep(30)\nfinally:\n    time.sleep(.3)\n    cleaned = True"
    await orchestrator.execute(code, session_id="s", timeout=paced(0.1))
    assert (await orchestrator.execute("cleaned", session_id="s")).value == "True"


@pytest.mark.parametrize(
    "code",
    [
        (
            "import subprocess\nheld = []\ntry:\n    while True: held.append(subprocess.Popen(['sleep', '300']))\n"
            "except OSError: pass"
        ),
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        (
            "import threading, os, time\ndef wait():\n    while True:\n        try: os.wait()\n        except OSError: "
            "time.sleep(0.001)\nthreading.Thread(target=wait, daemon=True).start()"
        ),
        "import numpy as np\nbig = np.broadcast_to(np.int64(1), (2**40, 2**12))",
        "globals().update({'漢' * 190 + str(n): n for n in range(2000)})",
        "globals().update({',' * 190 + str(n): n for n in range(2000)})",
        "for n in range(2000):\n    globals()[f'v{n}'] = type(',' * 5000, (), {})()",
        "globals().update({'漢' * 100 + str(n): n for n in range(7000)})",
    ],
)
async def test_a_listing_survives_and_costs_nothing(orchestrator: Orchestrator, code: str) -> None:
    await orchestrator.execute("kept = 1", session_id="s")
    assert (await orchestrator.execute(code, session_id="s")).status == "ok"
    async with asyncio.timeout(paced(20)):
        listed = await orchestrator.list_variables("s")
    assert listed.variables or listed.notes
    assert (await orchestrator.execute("kept", session_id="s")).value == "1"
    await orchestrator.delete(
        "s"
    )  # where all processes are used up it cannot be saved, and thousands of classes take long


async def test_figures_of_a_stopped_cell_are_not_drawn_in_its_grace(orchestrator: Orchestrator) -> None:
    code = (
        "import matplotlib.pyplot as plt\nkept = 1\nfor n in range(20):\n    plt.figure(figsize=(20, 20))\n"
        "    plt.plot(range(1000))\nwhile True: pass"
    )
    stopped = await orchestrator.execute(code, session_id="s", timeout=paced(6))
    assert stopped.error is not None
    assert "namespace is kept" in stopped.error.message
    assert (await orchestrator.execute("kept, plt.get_fignums()", session_id="s")).value == "(1, [])"


@pytest.mark.parametrize(
    "code",
    [
        "import sys\ndel sys.stdout, sys.stderr, sys.stdin",
        "import sys\nclass Odd:\n    def __eq__(self, other): raise RuntimeError\nsys.stdout = Odd()",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (900, 900))",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: 1 / 0)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)",
        (
            "import threading, time\nclass Odd(threading.Thread):\n    ident = property(lambda self: 1 / 0)\n"
            "    def run(self): time.sleep(100)\nOdd(daemon=True).start()"
        ),
        "import linecache\nlinecache.cache = None",
        "import json\njson.dumps = json.loads = None",
        "import os\nos.getpid = lambda: 5\nos.dup2 = os.close = os.write = os.fork = None",
        "import signal\nsignal.signal = signal.pthread_sigmask = None",
        "import threading\nthreading.enumerate = threading.current_thread = threading.get_ident = None",
        "import builtins\nbuiltins.len = builtins.sum = builtins.type = builtins.isinstance = None",
        "import socket, fcntl, resource\nsocket.recv_fds = fcntl.fcntl = resource.getrlimit = None",
        "globals().clear()",
        "import asyncio\nawait asyncio.sleep(0)\nasyncio.get_running_loop().stop",
    ],
)
async def test_what_cells_patch_does_not_reach_the_worker(orchestrator: Orchestrator, code: str) -> None:
    await orchestrator.execute("pass", session_id="s")
    await orchestrator.execute(code, session_id="s")
    await asyncio.sleep(0.1)
    await orchestrator.execute("pass", session_id="s")  # where a signal of the cell before may arrive
    await orchestrator.execute("kept = 1", session_id="s")
    listed = await orchestrator.list_variables("s")
    assert "kept" in {variable.name for variable in listed.variables}
    assert (await orchestrator.execute("kept", session_id="s")).value == "1"


@pytest.mark.parametrize(
    "name", ["len", "sum", "type", "isinstance", "str", "dict", "iter", "open", "Exception", "__import__"]
)
async def test_a_builtin_that_a_cell_empties_is_put_back_and_nothing_is_lost(
    orchestrator: Orchestrator, name: str
) -> None:
    await orchestrator.execute("kept = [1, 2]", session_id="s")
    code = f"import builtins\nwas = builtins.{name}\nbuiltins.{name} = None"
    emptied = await orchestrator.execute(code, session_id="s")
    assert emptied.status == "ok", emptied.error
    assert any("put back" in note for note in emptied.notes)
    assert (await orchestrator.execute(f"builtins.{name} is was", session_id="s")).value == "True"
    assert "kept" in {variable.name for variable in (await orchestrator.list_variables("s")).variables}
    await orchestrator.save("s")
    back = await orchestrator.execute("kept", session_id="s")
    assert (back.value, back.resumed_from) == ("[1, 2]", None)


async def test_a_loop_that_a_cell_has_closed_is_made_anew(orchestrator: Orchestrator) -> None:
    opened = "import asyncio\nawait asyncio.sleep(0)\nloop = asyncio.get_running_loop()"
    await orchestrator.execute(opened, session_id="s")
    await orchestrator.execute("loop.close()", session_id="s")
    assert (await orchestrator.execute("await asyncio.sleep(0, 5)", session_id="s")).value == "5"


async def test_what_a_child_prints_after_its_cell_is_told_even_when_it_has_ended(orchestrator: Orchestrator) -> None:
    late = "import subprocess\nsubprocess.Popen('sleep .2; echo late', shell=True)"
    await orchestrator.execute(late, session_id="s")
    later = await orchestrator.execute("import time\ntime.sleep(.6)", session_id="s")
    again = await orchestrator.execute("1", session_id="s")
    assert [note for note in (*later.notes, *again.notes) if note.startswith("Execution 1 wrote 5")]
    assert (later.output, again.output) == ("", "")


async def test_a_killed_zygote_does_not_pass_a_child_off_as_ours(settings: Settings, tmp_path: Path) -> None:
    """As on a kernel without Landlock, which keeps it out of reach."""
    profile = tmp_path / "profile.json"
    profile.write_text(profile_without_landlock(), "utf-8")
    older = settings.model_copy(update={"sandbox_seccomp": profile})
    code = "os.kill(-1, 9)\nsubprocess.Popen('while sleep .1; do echo child; done', shell=True)\nprint('mine')"
    async with Orchestrator.open(older) as orchestrator:
        await orchestrator.execute("import subprocess, os", session_id="s")
        assert (await orchestrator.execute(code, session_id="s")).output.startswith("mine")
        assert (await orchestrator.execute("import time\ntime.sleep(.5)", session_id="s")).output == ""


@pytest.mark.parametrize("pad", range(4))
async def test_counts_are_exact_where_the_cut_falls_into_a_character(orchestrator: Orchestrator, pad: int) -> None:
    result = await orchestrator.execute(f"print('x' * {pad} + '😀' * 40_000, end='')", session_id="s")
    written = pad + 4 * 40_000
    kept, rest = result.output.split("\n… ")
    left_out, tail = rest.split(" …\n")
    assert result.output_bytes == written
    assert len(kept.encode()) + len(tail.encode()) + int(left_out.split()[0].replace(",", "")) == written
