"""What is asked for while a save holds the worker: it waits, and is not begun for nothing."""

import asyncio

import pytest

from orchestrator.domain.errors import NamespaceLostError
from orchestrator.domain.snapshots import SaveFailedError
from tests.docker.saved_sandbox import Fresh

FILES = "import os, threading, time\nfor i in range(200): open(f'f{i}', 'wb').write(os.urandom(1_000_000))"
ENDS_WHEN_SAVED = """
def scores():
    for name in os.listdir("/proc"):
        if name.isdigit():
            try: yield open(f"/proc/{name}/oom_score_adj").read()
            except OSError: pass
def watch():
    while "1000\\n" not in scores(): time.sleep(0.001)
    os._exit(3)
threading.Thread(target=watch, daemon=True).start()
"""


async def test_cell_that_was_held_is_not_run_without_its_namespace(fresh: Fresh) -> None:
    """Two hundred megabytes of files are read, a cell waits for that, and a thread ends the worker meanwhile."""
    async with fresh() as box:
        await box.value(FILES)
        await box.kept(ENDS_WHEN_SAVED)
        saving = asyncio.create_task(box.save(hold=20.0))
        await asyncio.sleep(0.02)
        with pytest.raises(NamespaceLostError):
            await box.run("x = 1")
        with pytest.raises(SaveFailedError):
            await saving
        box.execution -= 1
        assert await box.value("'os' in globals(), 'x' in globals()") == "(True, False)", "the same number may be asked"


async def test_listing_that_waits_while_the_worker_dies_is_refused(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value(FILES)
        await box.kept(ENDS_WHEN_SAVED)
        saving = asyncio.create_task(box.save(hold=20.0))
        await asyncio.sleep(0.02)
        with pytest.raises(NamespaceLostError):
            await box.agent.list_variables()
        with pytest.raises(SaveFailedError):
            await saving


async def test_cell_that_was_held_is_not_begun_by_a_clear(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\nfor i in range(200): open(f'f{i}', 'wb').write(os.urandom(1_000_000))")
        saving = asyncio.create_task(box.save(hold=20.0))
        await asyncio.sleep(0.02)
        held = asyncio.create_task(box.run("open('begun', 'w')"))
        await asyncio.sleep(0.02)
        await box.agent.clear()
        with pytest.raises(SaveFailedError):
            await saving
        ended = await held
        assert (ended.outcome, ended.duration) == ("interrupted", 0.0)
