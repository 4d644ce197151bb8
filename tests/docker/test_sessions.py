"""Sessions through the library, on the real engine: what an agent relies on."""

import asyncio
import time

import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.errors import InvalidRequestError, SessionDeletedError, SessionNotFoundError
from orchestrator.domain.model import ResumedFrom
from orchestrator.settings import Settings
from tests.pace import paced


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nothing is saved while these tests run: what saving changes is test_hibernation.py's."""
    return Settings.load(**{**settings.model_dump(), "snapshot_after": 3600})


async def test_a_variable_of_one_call_is_there_in_the_next(orchestrator: Orchestrator) -> None:
    first = await orchestrator.execute("x = 42\ny = 'hello'", session_id="s")
    second = await orchestrator.execute("print(f'{y}, x = {x}')", session_id="s")
    assert (first.status, first.bound, first.execution) == ("ok", ("x", "y"), 1)
    assert (second.output, second.bound, second.execution, second.session_id) == ("hello, x = 42\n", (), 2, "s")
    assert second.saved_through is None


async def test_two_sessions_share_nothing(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("secret = 1\nopen('note', 'w').write('mine')", session_id="a")
    other = await orchestrator.execute("import os\n(os.listdir('.'), 'secret' in globals())", session_id="b")
    assert other.value == "([], False)"


async def test_a_call_without_a_session_starts_from_nothing_and_leaves_nothing(orchestrator: Orchestrator) -> None:
    first = await orchestrator.execute("x = 1\nx")
    second = await orchestrator.execute("x")
    assert (first.value, first.execution, first.session_id) == ("1", None, None)
    assert second.error is not None
    assert second.error.type == "NameError"
    assert await orchestrator.list_sessions() == []


async def test_sessions_run_beside_each_other_and_each_in_its_order(orchestrator: Orchestrator) -> None:
    await asyncio.gather(*(orchestrator.execute("log = []", session_id=name) for name in "ab"))
    began = time.monotonic()
    cells = [
        orchestrator.execute(f"import time\ntime.sleep(0.5)\nlog.append({number})\nlog", session_id=name)
        for number in range(2)
        for name in "ab"
    ]
    results = await asyncio.gather(*cells)
    assert [result.value for result in results] == ["[0]", "[0]", "[0, 1]", "[0, 1]"]
    assert time.monotonic() - began < 1.9  # one after the other they would take 2 seconds of sleep alone


async def test_stdout_stderr_and_children_write_one_stream_in_its_order(orchestrator: Orchestrator) -> None:
    code = (
        "import os, sys\nprint('one')\nprint('two', file=sys.stderr)\nos.system('echo three; echo four >&2')\nprint(5)"
    )
    assert (await orchestrator.execute(code)).output == "one\ntwo\nthree\nfour\n5\n"


async def test_the_last_value_and_underscore_behave_as_in_a_notebook(orchestrator: Orchestrator) -> None:
    values = [
        (await orchestrator.execute(code, session_id="s")).value for code in ("6 * 7", "_ + 1", "_;", "None", "_")
    ]
    assert values == ["42", "43", None, None, "43"]


async def test_await_works_at_top_level_and_the_loop_lives_on(orchestrator: Orchestrator) -> None:
    first = await orchestrator.execute(
        "import asyncio\nevent = asyncio.Event()\n"
        "waiting = asyncio.ensure_future(event.wait())\nawait asyncio.sleep(0)\n1",
        session_id="s",
    )
    second = await orchestrator.execute("event.set()\nawait waiting", session_id="s")
    assert (first.value, second.value) == ("1", "True")


async def test_a_traceback_shows_the_lines_of_the_cells_and_nothing_of_ours(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("def f(x):\n    return 1 / x", session_id="s")
    error = (await orchestrator.execute("a = 1\nf(0)\nb = 2", session_id="s")).error
    assert error is not None
    assert (error.code, error.type, error.message) == ("exception", "ZeroDivisionError", "division by zero")
    assert error.traceback is not None
    assert 'File "<cell 2>", line 2' in error.traceback
    assert "return 1 / x" in error.traceback
    assert "agent" not in error.traceback


async def test_a_raising_cell_keeps_what_it_had_assigned(orchestrator: Orchestrator) -> None:
    failed = await orchestrator.execute("before = 1\n1 / 0\nafter = 2", session_id="s")
    kept = await orchestrator.execute("'before' in globals(), 'after' in globals()", session_id="s")
    assert failed.bound == ("before",)
    assert kept.value == "(True, False)"


async def test_names_bound_again_to_an_equal_object_count_as_bound(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = [1]\ny = 5\nz = 0", session_id="s")
    again = await orchestrator.execute("x = [2]; x = [3]\ny = 5\ndel z", session_id="s")
    assert set(again.bound) == {"x", "y"}
    assert again.removed == ("z",)


async def test_sys_exit_is_just_a_result(orchestrator: Orchestrator) -> None:
    left = await orchestrator.execute("x = 1\nimport sys\nsys.exit(3)", session_id="s")
    assert left.status == "ok"
    assert "sys.exit(3)" in left.notes[0]
    assert (await orchestrator.execute("x", session_id="s")).value == "1"


async def test_input_says_that_nobody_can_type(orchestrator: Orchestrator) -> None:
    error = (await orchestrator.execute("input('name? ')")).error
    assert error is not None
    assert error.type == "EOFError"
    assert "pass the value in the code" in error.message


async def test_a_cell_over_its_time_limit_is_interrupted_and_the_namespace_stays(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1", session_id="s")
    late = await orchestrator.execute("y = 2\nimport time\ntime.sleep(60)", session_id="s", timeout=0.3)
    assert late.error is not None
    assert (late.status, late.error.code) == ("error", "timeout")
    assert "namespace is kept" in late.error.message
    assert (await orchestrator.execute("x, y", session_id="s")).value == "(1, 2)"


async def test_a_cell_that_swallows_the_interrupt_is_killed_and_the_loss_is_told(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("kept_long = 1", session_id="s")
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except KeyboardInterrupt:\n        pass"
    killed = await orchestrator.execute(stubborn, session_id="s", timeout=0.3)
    assert killed.error is not None
    assert killed.error.code == "timeout"
    assert "goes on as it was after execution 1" in killed.error.message
    assert killed.resumed_from == ResumedFrom("savepoint", 1)
    assert killed.notes[0].startswith("Lost: the effects of execution 2, because a cell outran its time limit")
    after = await orchestrator.execute("'kept_long' in globals()", session_id="s")
    assert (after.value, after.notes, after.execution) == ("True", (), 3)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\nos._exit(3)", "exit code 3"),
        ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
        ("import os\nos.abort()", "SIGABRT"),
        ("import os, signal\nos.killpg(0, signal.SIGKILL)", "SIGKILL"),
        ("import os\nos.closerange(3, 5000)", "descriptor"),
    ],
)
async def test_a_dead_worker_is_a_crash_with_its_reason_and_the_session_goes_on(
    orchestrator: Orchestrator, code: str, said: str
) -> None:
    await orchestrator.execute("x = 1", session_id="s")
    crashed = await orchestrator.execute(code, session_id="s")
    assert crashed.error is not None
    assert crashed.error.code == "crashed"
    assert said in crashed.error.message
    assert crashed.resumed_from == ResumedFrom("savepoint", 1), "though the cell died at once"
    after = await orchestrator.execute("'x' in globals()", session_id="s")
    assert (after.status, after.value) == ("ok", "True")


async def test_a_segfault_names_the_line_that_ran(orchestrator: Orchestrator) -> None:
    crashed = await orchestrator.execute("import ctypes\ndef f():\n    ctypes.string_at(0)\nf()", session_id="s")
    assert crashed.error is not None
    assert 'File "<cell 1>", line 3 in f' in str(crashed.error.traceback)


async def test_memory_over_the_limit_is_an_oom(orchestrator: Orchestrator) -> None:
    killed = await orchestrator.execute("x = [0] * 10**10", session_id="s")
    assert killed.error is not None
    assert killed.error.type == "MemoryError"  # refused at once: more than the address space would take
    filled = await orchestrator.execute("b = []\nwhile True:\n    b.append(bytearray(10**7))", session_id="s")
    assert filled.error is not None
    assert filled.error.code == "oom"
    assert "1024 MiB" in filled.error.message
    assert (await orchestrator.execute("1 + 1", session_id="s")).value == "2"


async def test_a_full_workspace_is_disk_full_and_says_its_size(orchestrator: Orchestrator) -> None:
    full = await orchestrator.execute("open('big', 'wb').write(bytes(300 * 2**20))", session_id="s")
    assert full.error is not None
    assert full.error.code == "disk_full"
    assert "256 MiB" in full.error.message


async def test_a_cancelled_call_interrupts_its_cell_and_the_session_is_usable_at_once(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.execute("x = 1", session_id="s")
    call = asyncio.create_task(orchestrator.execute("import time\ntime.sleep(60)", session_id="s"))
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(paced(10)):
        assert (await orchestrator.execute("x", session_id="s")).value == "1"


async def test_delete_answers_what_runs_and_what_waits_and_frees_the_name(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1", session_id="s")
    calls = [
        asyncio.create_task(orchestrator.execute(code, session_id="s")) for code in ("import time; time.sleep(60)", "x")
    ]
    await asyncio.sleep(0.3)
    await orchestrator.delete("s")
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, SessionDeletedError)
    assert await orchestrator.list_sessions() == []
    again = await orchestrator.execute("'x' in globals()", session_id="s")
    assert (again.value, again.execution) == ("False", 1)


async def test_clear_interrupts_what_runs_and_leaves_the_session_and_its_files(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1\nopen('note', 'w').write('kept')", session_id="s")
    call = asyncio.create_task(orchestrator.execute("import time; time.sleep(60)", session_id="s"))
    await asyncio.sleep(0.3)
    await orchestrator.clear("s")
    interrupted = await call
    assert interrupted.error is not None
    assert interrupted.error.code == "interrupted"
    after = await orchestrator.execute("'x' in globals(), open('note').read()", session_id="s")
    assert (after.value, after.notes, after.execution) == ("(False, 'kept')", (), 3)


async def test_variables_are_listed_with_type_and_size_and_modules_apart(orchestrator: Orchestrator) -> None:
    code = (
        "import sys, numpy as np, pandas as pd\n"
        "x = 42\ny = 'hello'\n_hidden = 1\na = np.zeros(1000)\nframe = pd.DataFrame({'t': ['text'] * 10})\n"
        "def f(): pass\nclass C: pass\nsizes = [sys.getsizeof(x), sys.getsizeof(y)]\nsizes"
    )
    sizes = (await orchestrator.execute(code, session_id="s")).value
    listed = await orchestrator.list_variables("s")
    found = {variable.name: (variable.type, variable.size_bytes) for variable in listed.variables}
    assert set(found) == {"x", "y", "a", "frame", "f", "C", "sizes"}
    assert f"[{found['x'][1]}, {found['y'][1]}]" == sizes
    assert found["a"] == ("ndarray", 8000)
    assert (found["frame"][0], found["f"][0], found["C"][0]) == ("DataFrame", "function", "type")
    assert found["frame"][1] is not None
    assert found["frame"][1] > 500
    assert {module.name for module in listed.imports} == {"sys", "np", "pd"}


HOSTILE_OBJECTS = """
import os
class Raises:
    def __sizeof__(self): raise RuntimeError('no')
class Lies:
    def __sizeof__(self): return -5
class Huge:
    def __sizeof__(self): return 10**40
class Hangs:
    def __sizeof__(self):
        while True: pass
class Exits:
    def __sizeof__(self): os._exit(1)
class Leaves:
    def __sizeof__(self): raise SystemExit
class Reprs:
    def __repr__(self): raise RuntimeError
class Masked:
    __class__ = property(lambda self: 1 / 0)
class Meta(type):
    __name__ = property(lambda cls: 1 / 0)
    def __getattribute__(cls, name): raise RuntimeError(name)
class Named(metaclass=Meta): pass
class Bytes:
    @property
    def nbytes(self): raise KeyboardInterrupt
a, b, c, d, e, f, g, h, i, j = Raises(), Lies(), Huge(), Hangs(), Exits(), Leaves(), Reprs(), Masked(), Named(), Bytes()
k = 1
"""


async def test_objects_that_raise_lie_hang_or_exit_cannot_break_a_listing(orchestrator: Orchestrator) -> None:
    await orchestrator.execute(HOSTILE_OBJECTS, session_id="s")
    async with asyncio.timeout(paced(15)):
        listed = await orchestrator.list_variables("s")
    found = {variable.name: variable.size_bytes for variable in listed.variables}
    assert set("abcdefghijk") <= set(found)
    assert {name: found[name] for name in "abcdef"} == dict.fromkeys("abcdef")
    assert found["k"] == 28
    assert (await orchestrator.execute("k", session_id="s")).value == "1"


async def test_listing_tools_on_an_absent_session_answer_not_found(orchestrator: Orchestrator) -> None:
    for call in (orchestrator.list_variables, orchestrator.clear, orchestrator.delete):
        with pytest.raises(SessionNotFoundError):
            await call("nobody")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("x = 1\ny = '\0'", "null byte in line 2"),
        ("x = '\ud800'", r"lone surrogate \(U\+D800\) in line 1"),
        ("x" * (1024 * 1024 + 1), "1,048,577 bytes"),
    ],
)
async def test_code_that_cannot_be_run_is_refused_before_anything_starts(
    orchestrator: Orchestrator, code: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await orchestrator.execute(code, session_id="s")
    assert await orchestrator.list_sessions() == []


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan"), float("inf")])
async def test_an_impossible_timeout_is_refused(orchestrator: Orchestrator, seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        await orchestrator.execute("1", timeout=seconds)
