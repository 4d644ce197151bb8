"""What surrounds a namespace comes back with it: modules, options, random states, files; and what does not is told."""

# ruff: noqa: S108 - directories of the sandbox
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.settings import Settings
from tests.docker.test_hibernation import asleep, quiet

_PLAIN = """
import os, sys, random, warnings, decimal, json as j, os.path, xml.etree.ElementTree, logging.handlers
from collections import OrderedDict as Ordered, deque
from math import *
open('mymod.py', 'w').write('state = []\\ndef add(x): state.append(x); return state\\n')
import mymod
from mymod import state
mymod.add(1)
os.makedirs('below/there', exist_ok=True)
os.chdir('below')
os.environ['COLOUR'] = 'blue'
os.environ.pop('HOME', None)
sys.path.append('/workspace/below')
sys.setrecursionlimit(2345)
sys.set_int_max_str_digits(0)
warnings.filterwarnings('error', 'mine')
decimal.getcontext().prec = 7
setattr(j, 'pa' + 'tched', [1])
vars(j)['by_its_dict'] = 5
random.seed(11)
random.random()
def twice(x):
    # of two
    return x * 2
def fails():
    raise ValueError('in the third line')
"""
_CHECK_PLAIN = """
import inspect, traceback
assert j is sys.modules['json'] and Ordered.__module__ == 'collections' and deque([1]) and os.path.sep == '/' and pi > 3
assert xml.etree.ElementTree.Element('a').tag == 'a' and logging.handlers.QueueHandler
assert mymod.add(2) == [1, 2] and state is mymod.state
assert mymod is sys.modules['mymod'] and mymod.__file__ == '/workspace/mymod.py'
assert os.getcwd() == '/workspace/below' and os.path.isdir('there')
assert os.environ['COLOUR'] == 'blue' and 'HOME' not in os.environ and sys.path[-1] == '/workspace/below'
assert sys.getrecursionlimit() == 2345 and len(str(10 ** 9999)) == 10000 and str(decimal.Decimal(1) / 3) == '0.3333333'
assert j.patched == [1] and j.by_its_dict == 5
try:
    warnings.warn('mine')
    raise AssertionError
except UserWarning:
    pass
assert '# of two' in inspect.getsource(twice)
try:
    fails()
except ValueError:
    assert "raise ValueError('in the third line')" in traceback.format_exc()
same = random.Random(11)
same.random()
assert random.random() == same.random()
"""
_SCIENCE = """
import numpy as np
import pandas as pd
import matplotlib
import matplotlib.pyplot as plt
import scipy.stats as stats
from sklearn.linear_model import LinearRegression
np.random.seed(5)
np.random.rand(3)
drawn = np.random.default_rng(3)
drawn.random()
np.set_printoptions(precision=3)
np.seterr(over='ignore')
pd.set_option('display.max_rows', 7)
plt.rcParams['lines.linewidth'] = 9
table = pd.DataFrame({'a': np.arange(300_000.0)})
array = table['a'].to_numpy().copy()
part = array[5:50]
"""
_CHECK_SCIENCE = """
assert part.base is array and stats.norm.mean() == 0 and LinearRegression
assert np.get_printoptions()['precision'] == 3 and np.geterr()['over'] == 'ignore'
assert pd.get_option('display.max_rows') == 7 and plt.rcParams['lines.linewidth'] == 9
same = np.random.RandomState(5)
same.rand(3)
assert np.random.rand() == same.rand()
other = np.random.default_rng(3)
other.random()
assert drawn.random() == other.random()
"""
_LITTLE = 64 * 1024  # bytes: what a new cell's own text makes new


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Quick to save, slow to hibernate."""
    return Settings.load(data_dir=tmp_path / "data", runtime_dir=tmp_path / "run", channel="unix", snapshot_after=0.2)


async def run(orchestrator: Orchestrator, cell: str) -> tuple[str, ...]:
    result = await orchestrator.execute(cell, session_id="s")
    assert result.error is None, result.error.traceback
    return result.notes


async def test_the_process_around_a_namespace_comes_back(orchestrator: Orchestrator) -> None:
    await run(orchestrator, _PLAIN)
    for _ in range(2):  # what came back is saved as what was there
        await asleep(orchestrator, "s")
        assert await run(orchestrator, "pass") == ()
    await run(orchestrator, _CHECK_PLAIN)


async def test_options_and_random_states_of_libraries_come_back_and_nothing_is_stored_twice(
    orchestrator: Orchestrator,
) -> None:
    await run(orchestrator, _SCIENCE)
    for _ in range(2):
        await asleep(orchestrator, "s")
        assert await run(orchestrator, "pass") == ()
    again = await orchestrator.save("s")
    assert again.raw_bytes > 2_000_000
    for summary in (await orchestrator.history("s")).snapshots[:-1]:
        assert summary.new_bytes < _LITTLE
    before, after = [one.sequence for one in reversed((await orchestrator.history("s")).snapshots)][-2:]
    assert (await orchestrator.compare("s", before, after)).names.changed == ()
    await run(orchestrator, _CHECK_SCIENCE)


async def test_future_flags_hold_for_cells_after_a_wake(orchestrator: Orchestrator) -> None:
    await run(orchestrator, "from __future__ import annotations")
    await asleep(orchestrator, "s")
    await run(orchestrator, "def f(x: Undefined): pass\nassert f.__annotations__ == {'x': 'Undefined'}")


async def test_a_link_with_another_target_is_a_change(orchestrator: Orchestrator) -> None:
    await run(orchestrator, "import os; os.symlink('one', 'link'); os.symlink('one', 'same')")
    before = await orchestrator.save("s")
    await run(orchestrator, "os.unlink('link'); os.symlink('two', 'link')")
    after = await orchestrator.save("s")
    files = (await orchestrator.compare("s", before.sequence, after.sequence)).files
    assert (files.added, files.removed, files.changed, files.unknown) == ((), (), ("link",), ())


_RUNNING = """
import subprocess, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
for _ in range(2): subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=bool(_))
del _
"""


async def test_threads_and_processes_that_end_with_the_sandbox_are_told_at_the_wake(orchestrator: Orchestrator) -> None:
    await run(orchestrator, _RUNNING)
    await asleep(orchestrator, "s")
    (told,) = await run(orchestrator, "pass")
    assert "threads (1 thread still running when it was saved, and not started again)" in told
    assert "processes (2 processes still running when it was saved, and not started again)" in told
    await asleep(orchestrator, "s")
    assert await run(orchestrator, "pass") == ()


async def test_what_lies_outside_the_workspace_is_told(orchestrator: Orchestrator) -> None:
    await run(orchestrator, "import os\nos.mkdir('/tmp/d')\nfor n in 'abc': open('/tmp/d/' + n, 'w').close()")
    await run(
        orchestrator, "open('/dev/shm/x', 'w').close()\nimport matplotlib.pyplot as plt; plt.plot([1]); plt.close()"
    )
    await quiet(orchestrator, "s", 2)
    told = "\n".join(await run(orchestrator, "1"))
    assert "/tmp (3 files there, and nothing there is saved)" in told
    assert "/dev/shm (1 file there, and nothing there is saved)" in told
    await quiet(orchestrator, "s", 3)
    assert "/tmp" not in "\n".join(await run(orchestrator, "2")), "told once"
    await asleep(orchestrator, "s")
    assert "/tmp (3 files" in "\n".join(await run(orchestrator, "3"))
    await asleep(orchestrator, "s")
    assert await run(orchestrator, "4") == (), "nothing is left there"


async def test_a_last_value_that_cannot_be_saved_is_told_where_it_is_missed(orchestrator: Orchestrator) -> None:
    await run(orchestrator, "x = 1\n(n for n in 'ab')")
    await quiet(orchestrator, "s", 1)
    assert await run(orchestrator, "y = 2") == ()
    await asleep(orchestrator, "s")
    assert [note for note in (await orchestrator.list_variables("s")).notes if "_ (generator)" in note]
    assert [note for note in await run(orchestrator, "assert '_' not in globals()") if "_ (generator)" in note]
