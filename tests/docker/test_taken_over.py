"""An owner ends, in order, in a hurry or by `kill -9`, and the next one finds its sandboxes alive: the whole system."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from orchestrator import provisioning
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import EngineUnavailableError, OwnedError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.ports import SandboxImage
from orchestrator.provisioning import CHANNELS_NAME
from orchestrator.services import sessions as sessions_module
from orchestrator.services.adoption_notes import alive_note, outdated_note
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left
from tests.docker.engine_relay import EngineRelay
from tests.docker.killed_session import has_begun

BOUND = 60.0  # seconds that something may take before a test fails
_OWNER = """
import asyncio, sys
from orchestrator.app import Orchestrator
from orchestrator.settings import Settings
from tests.docker.killed_session import has_begun

async def main():
    settings = Settings.load(data_dir=sys.argv[1], runtime_dir=sys.argv[2], channel="unix", snapshot_after=1000)
    async with Orchestrator.open(settings) as orchestrator:
        for number in range(4):
            await orchestrator.execute(f"x = {number}", session_id=f"s{number}")
        endless = "import time; print('begun', flush=True)\\nwhile True: time.sleep(0.05)"
        calling = asyncio.create_task(orchestrator.execute(endless, session_id="s0", timeout=600))
        await has_begun(orchestrator, "s0", 2)
        print("ready", flush=True)
        await calling

asyncio.run(main())
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nothing is saved by itself."""
    return changed(settings, snapshot_after=3600)


def changed(settings: Settings, **fields: object) -> Settings:
    return Settings.load(**{**settings.model_dump(), **fields})


@asynccontextmanager
async def next_owner(settings: Settings, engine: docker.APIClient) -> AsyncIterator[Orchestrator]:
    """The last one of a test: nothing is left after it."""
    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as opened:
        yield opened
    left = await what_is_left(settings, engine, held, running)
    assert not left, left


@asynccontextmanager
async def hurried(settings: Settings) -> AsyncIterator[Orchestrator]:
    """An owner that ends without waiting for anything."""
    async with Orchestrator.open(settings) as opened:
        yield opened
        opened.hurry()


def containers(engine: docker.APIClient, settings: Settings) -> list[str]:
    return leaks.containers(engine, records_left(settings.data_dir / RECORDS_NAME)[0])


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(int(BOUND / 0.05)):
        if await found():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never")


def kill_all(settings: Settings) -> None:
    installation, _ = records_left(settings.data_dir / RECORDS_NAME)
    with closing(api_client(find_engine())) as api:
        for row in api.containers(filters={"label": [f"{LABEL_INSTALLATION}={installation}"]}):
            api.kill(row["Id"])


async def outcomes(orchestrator: Orchestrator, session_id: str) -> Mapping[int, str | None]:
    rows = await orchestrator.sessions._records.executions(LOCAL_TENANT, session_id)
    return {row.number: row.outcome for row in rows}


async def test_after_kill_9_every_session_serves_on_and_a_second_owner_is_refused_meanwhile(
    settings: Settings, engine: docker.APIClient
) -> None:
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OWNER, str(settings.data_dir), str(settings.runtime_dir)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    async with asyncio.timeout(BOUND):
        assert await owner.stdout.readline() == b"ready\n"
    with pytest.raises(OwnedError, match=str(owner.pid)):
        async with Orchestrator.open(settings):
            pass
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    assert len(containers(engine, settings)) == 4

    async with next_owner(settings, engine) as orchestrator:
        # All of them are adopted, called or not: their leases go on.
        async def decided() -> bool:
            return not orchestrator.sessions._sandboxes.survivors.undecided

        await until(decided)
        assert [one.state for one in await orchestrator.list_sessions()] == ["ready"] * 4
        for number in (1, 2, 3):
            found = await orchestrator.execute("x", session_id=f"s{number}")
            assert (found.value, found.notes) == (str(number), (alive_note(1),))
        # The cell runs: a call waits for it, and a listing does not.
        waiting = asyncio.create_task(orchestrator.execute("x", session_id="s0"))
        assert "last known state" in (await orchestrator.list_variables("s0")).notes[0]
        assert await outcomes(orchestrator, "s0") == {1: "ok", 2: None}
        live = await orchestrator.sessions.find("s0")
        assert live._incarnation.sandbox is not None
        live._incarnation.sandbox.agent.interrupt(2)
        found = await waiting
        assert (found.value, found.notes[0]) == ("0", alive_note(2))
        assert found.notes[1].startswith("Execution 2 ended after its orchestrator had: interrupted")
        assert found.notes[1].endswith("Output: begun")
        assert await outcomes(orchestrator, "s0") == {1: "ok", 2: "interrupted", 3: "ok"}
        assert len(containers(engine, settings)) == 4


@pytest.mark.parametrize("channel", ["unix", "attach"])
async def test_an_end_in_a_hurry_leaves_sessions_alive_and_the_next_owner_has_all(
    settings: Settings, engine: docker.APIClient, channel: str
) -> None:
    async with hurried(changed(settings, channel=channel)) as orchestrator:
        await orchestrator.execute("import threading; lock = threading.Lock(); x = [lock.acquire()]", session_id="s")
        await orchestrator.execute("import os, sys; handle = open('f', 'w'); handle.write('buffered')", session_id="s")
    assert len(containers(engine, settings)) == 1
    async with next_owner(settings, engine) as orchestrator:
        # What no snapshot can hold: a held lock, and what a file has not been given yet.
        found = await orchestrator.execute("lock.locked(), x, handle.close(), open('f').read()", session_id="s")
        assert (found.value, found.notes) == ("(True, [True], None, 'buffered')", (alive_note(2),))


async def test_an_end_that_cannot_save_a_session_leaves_it_alive_and_those_that_it_can_save_asleep(
    settings: Settings, engine: docker.APIClient
) -> None:
    async with Orchestrator.open(settings) as orchestrator:
        await orchestrator.execute("x = 1", session_id="savable")
        await orchestrator.execute("x = 2", session_id="not savable")
        live = await orchestrator.sessions.find("not savable")
        live._saver._limits = replace(live._saver._limits, most_bytes=1)
        await orchestrator.execute("open('f', 'w').write('f' * 100)", session_id="not savable")
    assert len(containers(engine, settings)) == 1
    async with next_owner(settings, engine) as orchestrator:
        asleep = await orchestrator.execute("x", session_id="savable")
        assert (asleep.value, asleep.notes, asleep.saved_through) == ("1", (), 1)
        found = await orchestrator.execute("x", session_id="not savable")
        assert found.value == "2"
        assert alive_note(2) in found.notes
        assert any(note.startswith("The session could not be saved") for note in found.notes)


async def test_a_save_after_an_adoption_is_whole_though_its_agent_knows_more_than_its_owner(
    settings: Settings, engine: docker.APIClient
) -> None:
    async with hurried(settings) as orchestrator:
        await orchestrator.execute("import random; a = random.Random(1).randbytes(3_000_000); b = 1", session_id="s")
        await orchestrator.save("s")
        await orchestrator.execute("b = 2; open('f', 'w').write('2')", session_id="s")
        # Saved, as far as its agent knows, and never head.
        live = await orchestrator.sessions.find("s")

        async def refused(*_arguments: object) -> bool:
            return False

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(orchestrator.sessions._records, "snapshot_committed", refused)
            with pytest.raises(Exception, match="newer"):
                await live.save()
        await orchestrator.execute("c = 3", session_id="s")
    async with Orchestrator.open(settings) as orchestrator:
        saved = await orchestrator.save("s")
        assert saved.execution == 3
        live = await orchestrator.sessions.find("s")
        assert live._saver.head == saved.sequence
    async with next_owner(settings, engine) as orchestrator:
        held = "b, c, open('f').read(), a == random.Random(1).randbytes(3_000_000)"
        woken = await orchestrator.execute(held, session_id="s")
        assert woken.value == "(2, 3, '2', True)"
        assert (await orchestrator.check()).problems == ()


async def test_an_engine_that_is_down_at_the_start_costs_nobody_anything(
    settings: Settings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "_ADOPTION_PAUSE", 0.2)
    async with hurried(settings) as orchestrator:
        await orchestrator.execute("x = 1", session_id="s")
    relay = EngineRelay()
    address = relay.address
    relay.close()
    away = changed(settings, docker_host=address)
    async with Orchestrator.open(away) as orchestrator:
        with pytest.raises(EngineUnavailableError):
            await orchestrator.execute("x", session_id="s")
        assert [one.state for one in await orchestrator.list_sessions()] == ["ready"]
    assert len(containers(engine, settings)) == 1
    async with Orchestrator.open(away) as orchestrator:
        with pytest.raises(EngineUnavailableError):
            await orchestrator.execute("x", session_id="s")
        relay = EngineRelay(port=int(address.rpartition(":")[2]))

        async def decided() -> bool:
            return not orchestrator.sessions._sandboxes.survivors.undecided

        await until(decided)  # by itself
        found = await orchestrator.execute("x", session_id="s")
        assert (found.value, found.execution, found.notes) == ("1", 2, (alive_note(1),))
    relay.close()
    assert containers(engine, settings) == records_left(settings.data_dir / RECORDS_NAME)[1] == []


async def test_a_container_that_is_gone_costs_what_no_snapshot_has_and_the_answer_says_so(
    settings: Settings, engine: docker.APIClient
) -> None:
    async with hurried(settings) as orchestrator:
        for session_id in ("lost", "saved"):
            await orchestrator.execute("x = 1", session_id=session_id)
            await orchestrator.save(session_id)
        await orchestrator.execute("x = 2", session_id="lost")
    kill_all(settings)
    async with next_owner(settings, engine) as orchestrator:
        lost = await orchestrator.execute("x", session_id="lost")
        assert lost.value == "1"
        assert lost.notes == (
            (
                "Lost: the effects of execution 2, because its orchestrator had ended, and its sandbox did not outlive "
                "that: its container was killed. They had left: x."
            ),
        )
        saved = await orchestrator.execute("x", session_id="saved")
        assert saved.value == "1"
        assert saved.notes == (
            (
                "The orchestrator had ended, and the session's sandbox did not outlive that (its container was "
                "killed): it goes on with what was saved after execution 1."
            ),
        )


async def test_a_lease_that_runs_out_ends_the_container_and_the_next_owner_says_so(
    settings: Settings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute: an agent tries at least so long before it believes that nobody comes."""
    profile = replace(settings.profile, lease=1)
    with monkeypatch.context() as patched:
        patched.setattr(Settings, "profile", property(lambda _: profile))
        async with hurried(settings) as orchestrator:
            await orchestrator.execute("x = 1", session_id="s")
    installation, _ = records_left(settings.data_dir / RECORDS_NAME)

    async def ended() -> bool:
        (row,) = engine.containers(all=True, filters={"label": [f"{LABEL_INSTALLATION}={installation}"]})
        return bool(row["State"] == "exited")

    await until(ended)
    async with next_owner(settings, engine) as orchestrator:
        found = await orchestrator.execute("'x' in globals()", session_id="s")
        assert found.value == "False"
        assert "it had no host for longer than its lease" in found.notes[0]


async def test_a_sandbox_with_an_older_agent_is_saved_and_woken_in_the_current_one(
    settings: Settings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hurried(settings) as orchestrator:
        await orchestrator.execute("x = [1]; y = x", session_id="s")
        image = await orchestrator.sessions._engine.prepare()
    # The next version's image: the same but for its agent's digest, as far as its owner knows.
    newer = SandboxImage(image.tag, image.environment, "f" * 12, image.python)
    monkeypatch.setattr(provisioning, "_image_finder", lambda _chosen: lambda _api, _environment: newer)
    async with next_owner(settings, engine) as orchestrator:
        found = await orchestrator.execute("y.append(2); x", session_id="s")
        assert found.value == "[1, 2]"
        assert set(found.notes) == {alive_note(1), outdated_note(replaced=True)}
        live = await orchestrator.sessions.find("s")
        assert live.session.incarnation == 2
        assert found.saved_through == 1


async def test_two_installations_on_one_engine_leave_each_other_alone(
    settings: Settings, engine: docker.APIClient, tmp_path: Path
) -> None:
    other = changed(settings, data_dir=tmp_path / "other")  # with the same runtime directory
    async with hurried(settings) as orchestrator:
        await orchestrator.execute("x = 'first'", session_id="s")
    async with hurried(other) as orchestrator:
        await orchestrator.execute("x = 'second'", session_id="s")
        await orchestrator.sessions._sandboxes.remove_leftovers()
    assert (len(containers(engine, settings)), len(containers(engine, other))) == (1, 1)
    async with Orchestrator.open(other) as orchestrator:
        await orchestrator.delete("s")
    assert (len(containers(engine, settings)), len(containers(engine, other))) == (1, 0)
    async with next_owner(settings, engine) as orchestrator:
        assert (await orchestrator.execute("x", session_id="s")).value == "'first'"
    assert leaks.files(settings.runtime_dir / CHANNELS_NAME) == []


async def test_a_supervisor_that_goes_when_memory_has_run_out_is_an_oom_by_the_engine_s_word(
    settings: Settings, engine: docker.APIClient
) -> None:
    """The kernel's choice is played by us: its counter has been raised, and then PID 1 is killed."""
    small = changed(settings, sandbox_memory="128MiB", sandbox_workspace="64MiB")
    async with next_owner(small, engine) as orchestrator:
        await orchestrator.execute("x = 1", session_id="s")
        await orchestrator.save("s")
        child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = bytearray(2 * 10**8)'])"
        await orchestrator.execute(child, session_id="s")
        running = asyncio.create_task(orchestrator.execute("import time; time.sleep(60)", session_id="s"))
        await has_begun(orchestrator, "s", 3)
        kill_all(settings)
        lost = await running
        assert lost.error is not None
        assert (lost.error.code, lost.error.type) == ("oom", None)
        assert "128 MiB" in lost.error.message
        assert "its container was killed after its memory had run out" in lost.error.message
        assert lost.error.hint is not None
        assert "with what was saved after execution 1" in lost.error.hint
        assert (await outcomes(orchestrator, "s"))[3] == "oom"
        assert (await orchestrator.execute("x", session_id="s")).value == "1"


async def test_a_sandbox_that_is_killed_long_after_memory_ran_out_in_it_is_not_an_oom(
    settings: Settings, engine: docker.APIClient
) -> None:
    """The engine's flag stays up for good."""
    small = changed(settings, sandbox_memory="128MiB", sandbox_workspace="64MiB")
    async with next_owner(small, engine) as orchestrator:
        await orchestrator.execute("x = 1", session_id="s")
        child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = bytearray(2 * 10**8)'])"
        await orchestrator.execute(child, session_id="s")
        await asyncio.sleep(6)
        running = asyncio.create_task(orchestrator.execute("import time; time.sleep(60)", session_id="s"))
        await has_begun(orchestrator, "s", 3)
        killed = time.time()
        kill_all(settings)
        lost = await running
        # It remembers so many events of all containers, and other tests make some: then the flag counts.
        with closing(api_client(find_engine())) as api:
            events = list(api.events(since=1, until=int(time.time()) + 1, decode=True))
        remembers = min(event["timeNano"] / 1e9 for event in events) < killed - 5
        assert lost.error is not None
        assert "its container was killed" in lost.error.message
        assert lost.error.code in (("sandbox_lost",) if remembers else ("sandbox_lost", "oom"))
