"""Trouble around the sandboxes: each is one typed error that says what to do, or a loss that is told."""

import asyncio
import signal
import sys
from contextlib import closing
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.telemetry.measured import MeasuredEngine
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import BusyError, EngineUnavailableError, OwnedError, SessionDeletedError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nothing is saved while these tests run, so that a loss is one."""
    return changed(settings, snapshot_after=3600)


def changed(settings: Settings, **fields: object) -> Settings:
    return Settings.load(**{**settings.model_dump(), **fields})


def installation_of(settings: Settings) -> str:
    return records_left(settings.data_dir / RECORDS_NAME)[0]


async def test_without_an_engine_calls_say_so_and_the_rest_works(settings: Settings, tmp_path: Path) -> None:
    nowhere = changed(settings, docker_host=f"unix://{tmp_path}/nobody.sock")
    async with Orchestrator.open(nowhere) as orchestrator:
        for session_id in (None, "s"):
            with pytest.raises(EngineUnavailableError) as caught:
                await orchestrator.execute("1", session_id=session_id)
            assert caught.value.code == "engine_unavailable"
            assert caught.value.hint
        assert await orchestrator.list_sessions() == []


async def test_without_the_image_calls_say_how_to_build_it(settings: Settings, engine: docker.APIClient) -> None:
    absent = changed(settings, image="session-orchestrator/sandbox:absent")
    async with Orchestrator.open(absent) as orchestrator:
        with pytest.raises(EngineUnavailableError, match="orchestrator image build"):
            await orchestrator.execute("1", session_id="s")
        assert await orchestrator.list_sessions() == []
    assert leaks.containers(engine, installation_of(settings)) == []


async def test_a_full_house_is_busy_and_a_freed_place_is_used(settings: Settings) -> None:
    async with Orchestrator.open(changed(settings, max_sandboxes=1, sandbox_wait=0.3)) as orchestrator:
        running = asyncio.create_task(orchestrator.execute("import time\ntime.sleep(60)", session_id="a"))
        await until_there(orchestrator, 1)
        with pytest.raises(BusyError, match="1 sandboxes are in use"):
            await orchestrator.execute("x = 1", session_id="b")
        with pytest.raises(BusyError):
            await orchestrator.execute("1")
        await orchestrator.delete("a")
        with pytest.raises(SessionDeletedError):
            await running
        assert (await orchestrator.execute("2", session_id="b")).value == "2"


async def test_more_sessions_than_sandboxes_take_turns_and_none_loses_anything(settings: Settings) -> None:
    """Six sessions in two places, called all at once, again and again."""
    names = [f"s{number}" for number in range(6)]
    async with Orchestrator.open(changed(settings, max_sandboxes=2, sandbox_wait=300)) as orchestrator:
        for turn in range(3):
            code = "x = 0" if turn == 0 else "x += 1"
            answers = await asyncio.gather(*(orchestrator.execute(code, session_id=name) for name in names))
            assert [answer.status for answer in answers] == ["ok"] * 6
            assert len(leaks_now(settings)) <= 2
        values = await asyncio.gather(*(orchestrator.execute("x", session_id=name) for name in names))
        assert [(answer.value, answer.notes) for answer in values] == [("2", ())] * 6
        assert orchestrator.sessions._sandboxes._slots.held <= 2


def leaks_now(settings: Settings) -> list[str]:
    with closing(api_client(find_engine())) as api:
        return leaks.containers(api, installation_of(settings))


async def until_there(orchestrator: Orchestrator, number: int) -> None:
    """So many executions have begun."""
    for _ in range(400):
        sessions = await orchestrator.list_sessions()
        if sum(session.total_executions for session in sessions) >= number:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nothing runs")


async def test_a_full_queue_is_busy_and_what_waits_is_answered(settings: Settings) -> None:
    async with Orchestrator.open(changed(settings, queue_limit=2)) as orchestrator:
        await orchestrator.execute("import time", session_id="s")
        calls = [
            asyncio.create_task(orchestrator.execute(f"time.sleep(0.2)\n{number}", session_id="s"))
            for number in range(5)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    values = [outcome.value for outcome in outcomes if not isinstance(outcome, BaseException)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, BusyError)]
    assert (values, len(refused)) == (["0", "1"], 3) or (values, len(refused)) == (["0", "1", "2"], 2)


async def test_a_container_killed_while_idle_costs_its_names_and_says_so(
    orchestrator: Orchestrator, settings: Settings
) -> None:
    await orchestrator.execute("kept = 1", session_id="s")
    kill_all(installation_of(settings))
    listed = await orchestrator.list_variables("s")
    assert listed.variables == ()
    assert "kept" in listed.notes[0]
    after = await orchestrator.execute("'kept' in globals()", session_id="s")
    assert (after.status, after.value, after.execution) == ("ok", "False", 2)
    assert "execution 1" in after.notes[0]
    assert "kept" in after.notes[0]
    assert (await orchestrator.execute("1", session_id="s")).notes == ()


async def test_a_container_killed_under_a_cell_is_sandbox_lost_and_the_next_call_works(
    orchestrator: Orchestrator, settings: Settings
) -> None:
    await orchestrator.execute("kept = 1", session_id="s")
    call = asyncio.create_task(orchestrator.execute("import time\ntime.sleep(60)", session_id="s"))
    await asyncio.sleep(0.3)
    kill_all(installation_of(settings))
    async with asyncio.timeout(20):
        lost = await call
    assert lost.error is not None
    assert lost.error.code == "sandbox_lost"
    assert "kept" in lost.notes[0]
    assert (await orchestrator.execute("1 + 1", session_id="s")).value == "2"


def kill_all(installation: str) -> None:
    with closing(api_client(find_engine())) as api:
        for row in api.containers(filters={"label": [f"{LABEL_INSTALLATION}={installation}"]}):
            api.kill(row["Id"])


OWNER = """
import asyncio, sys
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import Orchestrator
from orchestrator.settings import Settings

async def main():
    settings = Settings.load(data_dir=sys.argv[1], runtime_dir=sys.argv[2], channel="unix", snapshot_after=3600)
    async with Orchestrator.open(settings) as o:
        await o.execute("precious = 1", session_id="s")
        await o.execute("print('never again'); open('/workspace/x', 'w')", session_id="s")
        print("ready", flush=True)
        await o.execute("import time; time.sleep(600)", session_id="s", timeout=600)

asyncio.run(main())
"""


async def test_after_kill_9_of_the_owner_and_of_its_container_what_is_left_goes_and_the_loss_is_told(
    settings: Settings, engine: docker.APIClient
) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(settings.data_dir), str(settings.runtime_dir), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(60):
        assert await owner.stdout.readline() == b"ready\n"
    await asyncio.sleep(0.3)
    with pytest.raises(OwnedError, match=str(owner.pid)):
        async with Orchestrator.open(settings):
            pass
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    left_over = leaks.containers(engine, installation_of(settings))
    assert len(left_over) == 1
    kill_all(installation_of(settings))
    async with Orchestrator.open(settings) as orchestrator:
        (session,) = await orchestrator.list_sessions()
        assert (session.session_id, session.total_executions) == ("s", 3)
        told = await orchestrator.execute("'precious' in globals()", session_id="s")
        assert (told.value, told.execution) == ("False", 4)
        assert "executions 1 to 3" in told.notes[0]
        assert "precious" in told.notes[0]
        await until_one_is_left(engine, settings)
    assert leaks.containers(engine, installation_of(settings)) == []


async def test_looking_for_leftovers_spares_what_is_just_being_made(settings: Settings) -> None:
    async with Orchestrator.open(changed(settings, channel="auto")) as orchestrator:
        sandboxes = orchestrator.sessions._sandboxes
        calls = [asyncio.create_task(orchestrator.execute("1", session_id=f"s{number}")) for number in range(3)]
        while not all(call.done() for call in calls):
            await sandboxes.remove_leftovers()  # again and again, also under the probe of the channel
        assert [call.result().value for call in calls] == ["1"] * 3
        assert [(await orchestrator.execute("2", session_id=f"s{number}")).notes for number in range(3)] == [()] * 3
        measured = orchestrator.sessions._engine
        assert isinstance(measured, MeasuredEngine)
        engine = measured._engine
        assert isinstance(engine, DockerEngine)
        assert {known.kind for known in engine._settled.values()} == {"unix"}


async def until_one_is_left(engine: docker.APIClient, settings: Settings) -> None:
    for _ in range(400):
        if len(leaks.containers(engine, installation_of(settings))) == 1:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the leftover container stays")


async def test_closing_answers_calls_and_leaves_nothing(settings: Settings, engine: docker.APIClient) -> None:
    async with Orchestrator.open(settings) as orchestrator:
        await orchestrator.execute("x = 1", session_id="s")
        calls = [
            asyncio.create_task(orchestrator.execute("import time\ntime.sleep(60)", session_id=session_id))
            for session_id in ("s", "new", None)
        ]
        await asyncio.sleep(0.2)
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(outcome, "code", None) for outcome in outcomes] == ["shutting_down"] * 3
    assert leaks.containers(engine, installation_of(settings)) == []


async def test_a_program_that_dies_of_its_own_error_still_removes_its_sandboxes(
    settings: Settings, engine: docker.APIClient
) -> None:
    async def program() -> None:
        async with Orchestrator.open(settings) as orchestrator:
            await orchestrator.execute("x = 1", session_id="s")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # as it was raised, in no group
        await program()
    assert leaks.containers(engine, installation_of(settings)) == []
