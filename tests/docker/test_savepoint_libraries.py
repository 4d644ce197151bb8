"""What libraries keep in a process: each is run, ends with its worker, and is run again in the copy that took over."""

from pathlib import Path

import pytest

from orchestrator.domain.hardening import SandboxProfile
from tests.docker.saved_sandbox import Fresh, sandbox, snapshot_engine

DATA = "import numpy as np\ndata = np.random.default_rng(0).random((400, 100))\n"
LOCK = """
import threading
lock, held = threading.Lock(), threading.Event()
def hold():
    lock.acquire()
    held.set()
    threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
"""
ASYNCIO = """
import asyncio
async def later():
    global task
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0.01)
await later()
"""
TABLE = """
import sqlite3
db = sqlite3.connect(PLACE)
db.execute("create table t(n)")
db.commit()
db.execute("insert into t values (1)")
"""
INSERT = "db.execute('insert into t values (2)')"
SUM = "db.execute('select sum(n) from t').fetchall()"
BOOSTING = "from sklearn.ensemble import HistGradientBoostingRegressor as Boosting"
ABSOLUTE = "(joblib.delayed(abs)(n) for n in (-1, -2))"
# What is run once; what is run again after the takeover, with the same value; and what the takeover tells.
PROGRAMS = {
    "matmul": (DATA, "round(float((data @ data.T).sum()))", ""),
    "KMeans": (
        DATA + "from sklearn.cluster import KMeans",
        "round(float(KMeans(4, n_init=2, random_state=0).fit(data).inertia_))",
        "",
    ),
    "HistGradientBoosting": (
        DATA + BOOSTING,
        "round(Boosting(max_iter=5, random_state=0).fit(data, data[:, 0]).score(data, data[:, 0]), 6)",
        "",
    ),
    "scipy": (DATA + "import scipy.linalg", "round(float(scipy.linalg.svdvals(data).sum()), 3)", ""),
    "joblib's processes": ("import joblib", f"joblib.Parallel(2){ABSOLUTE}", "threads of the session's"),
    "joblib's threads": ("import joblib", f"joblib.Parallel(2, backend='threading'){ABSOLUTE}", ""),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)",
        "list(pool.map(abs, [-1, -2]))",
        "of the session's",
    ),
    "a thread that holds a lock": (LOCK, "lock.locked(), lock.acquire(timeout=0.1)", "1 thread of the session's"),
    "asyncio": (ASYNCIO, "await asyncio.wait_for(asyncio.sleep(0.01, 5), 5)", "tasks of it that were not done: 1"),
    "sqlite in memory": (TABLE.replace("PLACE", "':memory:'"), SUM, ""),
    "sqlite in a file": (TABLE.replace("PLACE", "'f.db'"), SUM, ""),
}
PATIENCE = 150.0  # seconds: what is imported and computed here is slow where others compute
ENDS = "import os\nos._exit(3)"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_library_goes_on_in_a_savepoint(tmp_path: Path, program: str, threads: int) -> None:
    prepare, run, told = PROGRAMS[program]
    profile = SandboxProfile(threads=threads, cpus=float(threads))
    async with snapshot_engine(tmp_path / "c", profile=profile) as engine, sandbox(engine, {}) as box:
        await box.kept(prepare, limit=PATIENCE)
        expected = await box.value(run, limit=PATIENCE)
        for _ in range(2):
            await box.backed()
            ended = await box.run(ENDS)
            assert (ended.outcome, ended.resumed is None) == ("crashed", False)
            assert told in " ".join(ended.notes)
            told = ""  # what is gone with the first takeover is not gone again
            assert await box.value(run, limit=PATIENCE) == expected


async def test_random_numbers_go_on_where_they_were(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.kept("import random\nrandom.seed(7)\nrandom.random()")
        assert (await box.run("random.random()\n" + ENDS)).resumed == 1
        assert await box.value("again = random.Random(7)\nagain.random()\nrandom.random() == again.random()") == "True"


async def test_text_in_a_buffer_is_written_once(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.kept("f = open('f.txt', 'w')\ng = open('g.bin', 'wb')\nf.write('one\\n'), g.write(b'1')")
        ended = await box.run("f.write('two\\n')\nf.flush()\ng.write(b'2')\nimport os\nos._exit(3)")
        assert ended.resumed == 1
        await box.value("f.write('three\\n'); f.close(); g.write(b'3'); g.close()")
        assert await box.value("open('f.txt').read(), open('g.bin').read()") == "('one\\ntwo\\nthree\\n', '13')"


async def test_transaction_goes_on_in_a_savepoint(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.kept(TABLE.replace("PLACE", "'f.db'"))
        assert (await box.run(f"{INSERT}\n{ENDS}")).resumed == 1
        await box.value(f"{INSERT}\ndb.commit()")
        assert await box.value("sqlite3.connect('f.db').execute('select n from t').fetchall()") == "[(1,), (2,)]"


@pytest.mark.parametrize(
    ("pool", "error"),
    [
        ("from concurrent.futures import ProcessPoolExecutor\npool = ProcessPoolExecutor(2)", "BrokenProcessPool"),
        ("import multiprocessing\npool = multiprocessing.Pool(2)", "ValueError"),
        ("from multiprocessing.pool import ThreadPool\npool = ThreadPool(2)", "ValueError"),
    ],
)
async def test_pool_whose_processes_are_gone_says_so_and_does_not_hang(fresh: Fresh, pool: str, error: str) -> None:
    async with fresh() as box:
        await box.kept(pool + "\nlist(pool.map(abs, [-1]))")
        assert (await box.run(ENDS)).resumed == 1
        again = await box.run("list(pool.map(abs, [-1]))", limit=20)
        assert (again.outcome, again.error_type) == ("exception", error)


async def test_fork_waits_for_a_thread_that_is_in_the_middle_of_a_product(tmp_path: Path) -> None:
    """With two threads of BLAS, a fork in the middle of one hangs for ever: the thread is let come to rest first."""
    busy = """
import numpy as np, threading
a = np.random.default_rng(0).random((600, 600))
def multiply():
    while True: a @ a
threading.Thread(target=multiply, daemon=True).start()
"""
    profile = SandboxProfile(threads=2, cpus=2.0)
    async with snapshot_engine(tmp_path / "c", profile=profile) as engine, sandbox(engine, {}) as box:
        await box.value(busy)
        for n in range(20):
            report = await box.run(f"n = {n}")
            assert report.outcome == "ok"
            assert not [note for note in report.notes if "hung" in note]
        ended = await box.run(ENDS)
        assert not ended.namespace_kept
