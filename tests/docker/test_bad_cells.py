"""Cells that misbehave: each ends in a clear result and a living session."""

import asyncio
import resource

import pytest

from orchestrator.app import Orchestrator

MIB = 1024 * 1024


async def check_alive(orchestrator: Orchestrator) -> None:
    result = await orchestrator.execute("print('alive')\n6 * 7", session_id="s")
    assert (result.output, result.value, result.error) == ("alive\n", "42", None)


async def test_a_syntax_error_points_at_its_place(orchestrator: Orchestrator) -> None:
    error = (await orchestrator.execute("x = (1,\ny = 2", session_id="s")).error
    assert error is not None
    assert (error.code, error.type) == ("exception", "SyntaxError")
    assert "^" in str(error.traceback)
    await check_alive(orchestrator)


async def test_a_megabyte_of_code_runs(orchestrator: Orchestrator) -> None:
    result = await orchestrator.execute("x = 1\n" * 170_000, session_id="s")
    assert result.status == "ok"
    await check_alive(orchestrator)


async def test_fifty_megabytes_of_output_are_cut_with_exact_counts_and_cost_the_client_little(
    orchestrator: Orchestrator,
) -> None:
    await check_alive(orchestrator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = await orchestrator.execute(
        "for _ in range(50):\n    print('x' * 999_999)\nprint('the end')", session_id="s"
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert (result.truncated, result.output_bytes) == (True, 50_000_008)
    assert result.output.endswith("the end\n")
    left_out = 50_000_008 - 64 * 1024
    assert f"{left_out:,} of 50,000,008 bytes left out" in result.output
    assert grown < 5 * MIB
    await check_alive(orchestrator)


async def test_printing_without_newline_for_ever_ends_with_the_time_limit(orchestrator: Orchestrator) -> None:
    result = await orchestrator.execute("while True:\n    print('x', end='')", session_id="s", timeout=1)
    assert result.error is not None
    assert result.error.code == "timeout"
    assert result.output.startswith("xxx")
    await check_alive(orchestrator)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.closerange(0, 100)",
        "import sys, io\nsys.stdout = sys.stderr = io.StringIO()",
        "import sys\nsys.stdout.close()\nsys.stdin.close()\nsys.stdout = None",
        "import builtins\nbuiltins.__dict__.clear()",
        "import builtins\nfor name in dir(builtins):\n    setattr(builtins, name, None)",
        "import os\nfor _ in range(5):\n    if os.fork() == 0:\n        import time\n        time.sleep(1000)",
        "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)",
        "class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd",
        "class Odd(Exception):\n    def __str__(self): return 5\n    __repr__ = __str__\nraise Odd",
        "def f(): f()\nf()",
        "import signal as g\ng.signal(g.SIGINT, g.SIG_IGN)\ng.pthread_sigmask(g.SIG_BLOCK, range(1, 65))",
        "import os\nheld = []\nwhile True:\n    held.append(os.open('/dev/null', os.O_RDONLY))",
        "globals().clear()",
        "globals()[5] = 6\nglobals()[None] = 7",
        "import sys\nsys.modules.clear()",
        "import os\nos.chdir('/')",
        "import threading\nthreading.Thread(target=lambda: [print('.') for _ in iter(int, 1)], daemon=True).start()",
        "import sys\nsys.setrecursionlimit(5)",
        "import gc\ngc.disable()\nimport sys\nsys.settrace(lambda *a: 1 / 0)",
        "raise SystemExit(Exception)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "import os\nos.kill(-1, 9)",
        "import os\nos.rename('/tmp', '/tmp2')",
    ],
)
async def test_a_session_survives(orchestrator: Orchestrator, code: str) -> None:
    await orchestrator.execute("x = 1", session_id="s")
    async with asyncio.timeout(30):
        result = await orchestrator.execute(code, session_id="s", timeout=5)
        assert result.error is None or result.error.message
        await check_alive(orchestrator)


async def test_what_a_left_over_thread_prints_is_told_apart(orchestrator: Orchestrator) -> None:
    await orchestrator.execute(
        "import threading, time\n"
        "def tick():\n    for _ in range(100):\n        print('tick')\n        time.sleep(0.05)\n"
        "threading.Thread(target=tick, daemon=True).start()",
        session_id="s",
    )
    quiet = await orchestrator.execute("time.sleep(0.3)\nprint('mine')", session_id="s")
    assert quiet.output == "mine\n"
    assert any(note.startswith("Execution 1 wrote") and "tick" in note for note in quiet.notes)
    assert any(note.startswith("background_threads: 1") for note in quiet.notes)


async def test_figures_come_back_as_png_and_are_closed(orchestrator: Orchestrator) -> None:
    code = "import matplotlib.pyplot as plt\nfor n in range(2):\n    plt.figure()\n    plt.plot([1, n])"
    result = await orchestrator.execute(code, session_id="s")
    assert [display.mime for display in result.displays] == ["image/png", "image/png"]
    assert all(display.data.startswith(b"\x89PNG") for display in result.displays)
    assert (await orchestrator.execute("plt.get_fignums()", session_id="s")).value == "[]"
