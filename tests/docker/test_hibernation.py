"""Sessions that are saved, sleep, wake, and say what did not survive: the real engine, agent and store."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.hardening import LABEL_INSTALLATION, MIB
from orchestrator.domain.model import SessionState
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left

_OWNER = """
import asyncio, sys
from orchestrator.app import Orchestrator
from orchestrator.settings import Settings

async def main():
    settings = Settings.load(data_dir=sys.argv[1], runtime_dir=sys.argv[2], channel="unix", snapshot_after=1000)
    async with Orchestrator.open(settings) as orchestrator:
        await orchestrator.execute("x = 1", session_id="s")
        await orchestrator.save("s")
        await orchestrator.execute("y = 2", session_id="s")
        print("ready", flush=True)
        await asyncio.sleep(100)

asyncio.run(main())
"""
BOUND = 60.0  # seconds that something may take before a test fails


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Quick to save, slow to hibernate."""
    return Settings.load(
        data_dir=tmp_path / "data",
        runtime_dir=tmp_path / "run",
        channel="unix",
        interrupt_grace=0.5,
        snapshot_after=0.2,
    )


@asynccontextmanager
async def reopened(settings: Settings, engine: docker.APIClient) -> AsyncIterator[Orchestrator]:
    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as opened:
        yield opened
    left = await what_is_left(settings, engine, held, running)
    assert not left, left


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(BOUND):
        while True:
            if await found():
                return
            await asyncio.sleep(0.05)


async def state_of(orchestrator: Orchestrator, session_id: str) -> SessionState:
    return next(one.state for one in await orchestrator.list_sessions() if one.session_id == session_id)


async def is_asleep(orchestrator: Orchestrator, session_id: str) -> bool:
    return await state_of(orchestrator, session_id) is SessionState.HIBERNATED


async def is_gone(installation: str) -> bool:
    with closing(api_client(find_engine())) as engine:
        return not leaks.containers(engine, installation)


def kill_all(installation: str) -> None:
    with closing(api_client(find_engine())) as engine:
        for container in engine.containers(filters={"label": [f"{LABEL_INSTALLATION}={installation}"]}):
            engine.kill(container["Id"])


async def lost_is_known(orchestrator: Orchestrator) -> bool:
    return bool((await orchestrator.list_variables("s")).notes)


def installation_of(settings: Settings) -> str:
    return records_left(settings.data_dir / RECORDS_NAME)[0]


async def asleep(orchestrator: Orchestrator, session_id: str) -> None:
    """Hibernate it as the reaper would."""
    live = await orchestrator.sessions.find(session_id)
    await until(live.hibernate)
    assert await state_of(orchestrator, session_id) is SessionState.HIBERNATED


async def test_a_session_sleeps_and_wakes_as_if_nothing_had_happened(orchestrator: Orchestrator) -> None:
    cells = [
        "import numpy as np, random, os",
        "xs = [1, 2]\nys = xs\ntable = {'xs': xs}\na = np.arange(1000.0)\nview = a[10:20]",
        "def f(): return x\nclass C:\n    def __init__(self): self.v = f",
        "c = C(); os.environ['COLOUR'] = 'blue'; random.seed(7); np.random.seed(7)",
        "open('notes.txt', 'w').write('hello'); os.makedirs('deep/er'); os.symlink('notes.txt', 'link')",
    ]
    for cell in cells:
        assert (await orchestrator.execute(cell, session_id="s")).error is None
    await asleep(orchestrator, "s")

    woken = await orchestrator.execute(
        "x = 5; xs.append(3); view[0] = -1; import random\n"
        "(ys, table['xs'] is xs, float(a[10]), c.v(), type(c) is C, os.environ['COLOUR'], open('link').read(),"
        " os.path.isdir('deep/er'))",
        session_id="s",
    )

    assert woken.error is None, woken.error
    assert woken.value == "([1, 2, 3], True, -1.0, 5, True, 'blue', 'hello', True)"
    assert woken.notes == ()
    assert woken.execution == 6
    assert woken.saved_through == 5


async def test_quiet_saves_by_itself_and_the_answer_says_how_far(orchestrator: Orchestrator) -> None:
    first = await orchestrator.execute("x = 1", session_id="s")
    assert first.saved_through is None
    await quiet(orchestrator, "s", 1)

    assert (await orchestrator.execute("x", session_id="s")).saved_through == 1


async def quiet(orchestrator: Orchestrator, session_id: str, execution: int) -> None:
    """Until that execution is saved."""

    async def saved() -> bool:
        history = (await orchestrator.history(session_id)).snapshots
        return bool(history) and history[0].execution >= execution

    await until(saved)


async def test_an_idle_session_is_hibernated_and_its_container_goes(tmp_path: Path, engine: docker.APIClient) -> None:
    settings = Settings.load(
        data_dir=tmp_path / "data",
        runtime_dir=tmp_path / "run",
        channel="unix",
        snapshot_after=0.1,
        hibernate_after=0.5,
    )
    async with reopened(settings, engine) as orchestrator:
        await orchestrator.execute("x = 41", session_id="s")
        await until(lambda: is_asleep(orchestrator, "s"))
        installation = installation_of(settings)
        await until(lambda: is_gone(installation))
        assert (await orchestrator.execute("x + 1", session_id="s")).value == "42"


async def test_a_session_outlives_the_orchestrator(settings: Settings, engine: docker.APIClient) -> None:
    async with reopened(settings, engine) as orchestrator:
        await orchestrator.execute("x = {'deep': [1]}", session_id="s")
    async with reopened(settings, engine) as orchestrator:
        woken = await orchestrator.execute("x", session_id="s")
        assert (woken.value, woken.notes, woken.execution) == ("{'deep': [1]}", (), 2)


async def test_what_cannot_be_saved_is_told_in_the_next_answer_in_listings_and_at_wake(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.execute("x = 1\nhandle = open('/etc/hostname')\nbig = bytearray(11_000_000)", session_id="s")
    await quiet(orchestrator, "s", 1)

    told = await orchestrator.execute("y = 2", session_id="s")
    again = await orchestrator.execute("z = 3", session_id="s")
    listed = await orchestrator.list_variables("s")
    await asleep(orchestrator, "s")
    sleeping = await orchestrator.list_variables("s")
    woken = await orchestrator.execute("'handle' in globals(), 'big' in globals(), x, y, z", session_id="s")

    for notes in (told.notes, listed.notes, sleeping.notes, woken.notes):
        text = "\n".join(notes)
        assert "handle (TextIOWrapper" in text, notes
        assert "execution 1: handle = open('/etc/hostname')" in text
        assert "big (bytearray, 11,0" in text
        assert "large" in text
    assert not [note for note in again.notes if "handle" in note]
    assert woken.value == "(False, False, 1, 2, 3)"
    assert {variable.name for variable in sleeping.variables} == {"x", "y", "z"}
    assert await state_of(orchestrator, "s") is SessionState.READY


async def test_what_is_saved_only_in_part_is_told_once_and_after_a_restart_where_nobody_was_told_before(
    settings: Settings, engine: docker.APIClient
) -> None:
    partly = "import os\nos.symlink('/etc/hostname', {!r})"
    async with reopened(settings, engine) as orchestrator:
        await orchestrator.execute(partly.format("one"), session_id="s")
        await quiet(orchestrator, "s", 1)
        told = await orchestrator.execute("x = 1", session_id="s")
        assert [note for note in told.notes if "one (a link that leads out" in note] == list(told.notes)
        await quiet(orchestrator, "s", 2)
        again = await orchestrator.execute(partly.format("two") + "\nhandle = open('f', 'w')", session_id="s")
        assert again.notes == ()
    async with reopened(settings, engine) as orchestrator:
        asleep = await orchestrator.list_variables("s")
        woken = await orchestrator.execute("x", session_id="s")
        for notes in (asleep.notes, woken.notes):
            assert sum("two (a link that leads out" in note and "one (" not in note for note in notes) == 1, notes
            assert sum("handle (TextIOWrapper" in note for note in notes) == 1, notes
        assert (await orchestrator.execute("x", session_id="s")).notes == ()


async def test_listing_wakes_nobody_and_does_not_wait_for_a_running_cell(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1", session_id="s")
    await quiet(orchestrator, "s", 1)
    running = asyncio.create_task(orchestrator.execute("y = 2\nimport time\ntime.sleep(60)", session_id="s"))
    await asyncio.sleep(0.5)

    listed = await orchestrator.list_variables("s")
    assert not running.done()
    assert [variable.name for variable in listed.variables] == ["x"]
    assert "under way" in listed.notes[0]
    running.cancel()  # which interrupts the cell; what it had bound stays
    await asyncio.wait([running])
    await orchestrator.execute("import json\nlen('a last value, which `_` keeps')", session_id="s")
    await asleep(orchestrator, "s")
    sleeping = await orchestrator.list_variables("s")
    assert {variable.name for variable in sleeping.variables} == {"x", "y"}
    assert {module.name for module in sleeping.imports} == {"time", "json"}
    assert await state_of(orchestrator, "s") is SessionState.HIBERNATED


async def test_after_a_killed_cell_the_session_goes_on_with_the_state_before_it(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = [1]\nopen('kept.txt', 'w').write('file')", session_id="s")
    await quiet(orchestrator, "s", 1)
    crashed = await orchestrator.execute(
        "x.append(2); y = 1; open('late.txt', 'w').write('l')\nimport os\nos._exit(1)", session_id="s"
    )

    assert crashed.error is not None
    assert "after execution 1" in crashed.error.message
    assert any("execution 2" in note for note in crashed.notes)
    after = await orchestrator.execute("x, 'y' in globals(), open('late.txt').read()", session_id="s")
    assert after.value == "([1], False, 'l')"
    assert after.notes == ()


async def test_after_a_worker_died_between_two_cells_nothing_runs_in_an_empty_namespace(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.execute("x = [1]", session_id="s")
    await quiet(orchestrator, "s", 1)
    dying = "import threading, os\nthreading.Timer(0.3, os._exit, (1,)).start()\ny = 2"
    await orchestrator.execute(dying, session_id="s")
    await asyncio.sleep(1.5)

    after = await orchestrator.execute("x", session_id="s")
    assert (after.error, after.value) == (None, "[1]")


async def test_a_lost_sandbox_costs_only_what_no_snapshot_holds(orchestrator: Orchestrator, settings: Settings) -> None:
    await orchestrator.execute("x = 1\nopen('f', 'w').write('1')", session_id="s")
    await quiet(orchestrator, "s", 1)
    kill_all(installation_of(settings))

    async def answered() -> bool:
        woken = await orchestrator.execute("x, open('f').read()", session_id="s")
        assert woken.error is None or woken.error.code == "sandbox_lost"
        return woken.value == "(1, '1')"

    await until(answered)


async def test_a_first_snapshot_has_the_files_however_fast_calls_come(tmp_path: Path, engine: docker.APIClient) -> None:
    """Where no earlier snapshot's files can stand in, a cell waits until they are read."""
    settings = Settings.load(
        data_dir=tmp_path / "data", runtime_dir=tmp_path / "run", channel="unix", snapshot_max_age=0.1
    )
    async with reopened(settings, engine) as orchestrator:
        await orchestrator.execute("open('big', 'wb').write(__import__('os').urandom(200 * 2**20))", session_id="s")

        async def saved() -> bool:
            await orchestrator.execute("1", session_id="s")
            return bool((await orchestrator.history("s")).snapshots)

        await until(saved)
        first = (await orchestrator.history("s")).snapshots[-1]
        await orchestrator.fork("s", "copy", sequence=first.sequence)
        copied = await orchestrator.execute("import os\nos.path.getsize('big')", session_id="copy")
        assert copied.value == str(200 * 2**20)

        # From here on the head's files may stand for those that nobody had the time to read, and then that is told.
        number = (await orchestrator.execute("open('late', 'w').write('x')", session_id="s")).execution

        async def late_is_saved() -> bool:
            return ((await orchestrator.execute("1", session_id="s")).saved_through or 0) >= (number or 0)

        await until(late_is_saved)
        kill_all(installation_of(settings))
        await until(lambda: lost_is_known(orchestrator))
        woken = await orchestrator.execute("import os\nos.path.exists('late'), os.path.exists('big')", session_id="s")
        told = any("did to files in /workspace; they are as they were after" in note for note in woken.notes)
        assert (woken.value, told) in (("(True, True)", False), ("(False, True)", True)), woken


async def test_clear_empties_for_good_and_keeps_files(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1\nopen('f', 'w').write('1')", session_id="s")
    await quiet(orchestrator, "s", 1)
    await orchestrator.clear("s")
    await asleep(orchestrator, "s")

    woken = await orchestrator.execute("'x' in globals(), open('f').read()", session_id="s")
    assert (woken.value, woken.notes) == ("(False, '1')", ())


async def test_a_sleeping_session_is_cleared_without_being_woken(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1\nopen('f', 'w').write('1')", session_id="s")
    await asleep(orchestrator, "s")
    await orchestrator.clear("s")
    assert await state_of(orchestrator, "s") is SessionState.HIBERNATED
    woken = await orchestrator.execute("'x' in globals(), open('f').read()", session_id="s")
    assert (woken.value, woken.notes) == ("(False, '1')", ())


async def test_roll_back_fork_and_compare(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = 1\nopen('f', 'w').write('one')", session_id="s")
    first = await orchestrator.save("s")
    await orchestrator.execute("x = 2; y = 3\nopen('f', 'w').write('two')", session_id="s")
    second = await orchestrator.save("s")

    compared = await orchestrator.compare("s", first.sequence, second.sequence)
    assert (compared.names.added, compared.names.changed, compared.files.changed) == (("y",), ("x",), ("f",))

    await orchestrator.fork("s", "copy", sequence=first.sequence)
    copied = await orchestrator.execute("x, 'y' in globals(), open('f').read()", session_id="copy")
    assert copied.value == "(1, False, 'one')"
    await orchestrator.fork("s", "present")
    assert (await orchestrator.execute("x, y", session_id="present")).value == "(2, 3)"

    await orchestrator.execute("z = 4", session_id="s")
    await orchestrator.roll_back("s", first.sequence)
    back = await orchestrator.execute("x, 'y' in globals(), 'z' in globals(), open('f').read()", session_id="s")
    assert (back.value, back.notes) == ("(1, False, False, 'one')", ())
    history = (await orchestrator.history("s")).snapshots
    undone = max(history, key=lambda one: one.names)  # what was there before the rollback
    await orchestrator.roll_back("s", undone.sequence)
    assert (await orchestrator.execute("x, y, z, open('f').read()", session_id="s")).value == "(2, 3, 4, 'two')"
    report = await orchestrator.check()
    assert report.problems == ()
    assert report.sessions == 3


async def test_a_call_that_comes_while_a_session_falls_asleep_is_served(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("import numpy as np\na = np.random.rand(1_000_000)\nb = a * 2", session_id="s")
    live = await orchestrator.sessions.find("s")
    hibernating = asyncio.create_task(live.hibernate())
    await asyncio.sleep(0.05)
    result = await orchestrator.execute("float(a[0] * 2 == b[0])", session_id="s")
    assert result.value == "1.0"
    await hibernating


async def test_the_owner_and_its_container_are_killed_and_the_next_one_finds_what_was_saved(
    settings: Settings, engine: docker.APIClient
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _OWNER,
        str(settings.data_dir),
        str(settings.runtime_dir),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(BOUND):
        assert await process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    kill_all(installation_of(settings))

    async with reopened(settings, engine) as orchestrator:
        woken = await orchestrator.execute("x, 'y' in globals()", session_id="s")
        assert woken.value == "(1, False)"
        assert any("execution 2" in note and "y" in note for note in woken.notes), woken.notes


async def test_a_session_whose_worker_was_killed_hibernates_with_its_newer_files(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = [1]", session_id="s")
    await quiet(orchestrator, "s", 1)
    await orchestrator.execute("open('late.txt', 'w').write('l')\nimport os\nos._exit(1)", session_id="s")
    await asleep(orchestrator, "s")

    woken = await orchestrator.execute("x, open('late.txt').read()", session_id="s")
    assert woken.value == "([1], 'l')"


async def test_files_that_fill_half_of_the_memory_are_saved(tmp_path: Path, engine: docker.APIClient) -> None:
    settings = Settings.load(
        data_dir=tmp_path / "data",
        runtime_dir=tmp_path / "run",
        channel="unix",
        sandbox_memory=320 * MIB,
        sandbox_workspace=200 * MIB,
    )
    digest = "import hashlib; hashlib.file_digest(open('large', 'rb'), 'sha256').hexdigest()"
    write = "import os\nfile = open('large', 'wb')\nfor _ in range(150): file.write(os.urandom(1 << 20))\n"
    write += "file.close()\ndel file\n"
    async with reopened(settings, engine) as orchestrator:
        before = await orchestrator.execute(write + digest, session_id="s")
        assert before.error is None, before.error
        await asleep(orchestrator, "s")
        woken = await orchestrator.execute(digest, session_id="s")
        assert woken.value == before.value
        assert [note for note in woken.notes if "No savepoint is kept" not in note] == []
