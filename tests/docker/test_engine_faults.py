"""An engine that errs, hangs, trickles or hangs up: each a typed answer in bounded time, and a next call that works."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from typing import cast

import docker
import pytest

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.unix_transport import UnixTransport
from orchestrator.adapters.engine import docker_engine, image_choice, launch
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.provisioning import CHANNELS_NAME
from orchestrator.services import sandboxes as sandboxes_module
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.sessions import Sessions
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left
from tests.docker.engine_relay import EngineRelay, Fault

CREATE, START, REMOVE = "POST /containers/create", "POST /containers/[^/]*/start", "DELETE /containers/"
INSPECT, LIST, IMAGE = "GET /containers/[^/]*/json", r"GET /containers/json", "GET /images/"
ANYTHING = "GET|POST|DELETE /"
BOUND = 20.0  # seconds for an answer, on a machine that may be slow


@pytest.fixture
def relay() -> Iterator[EngineRelay]:
    made = EngineRelay()
    yield made
    made.close()


@pytest.fixture
def settings(settings: Settings, relay: EngineRelay) -> Settings:
    """Behind the relay; nothing is saved by itself, so that a loss is one."""
    return Settings.load(**{**settings.model_dump(), "docker_host": relay.address, "snapshot_after": 3600})


@pytest.fixture
async def opened(settings: Settings, relay: EngineRelay) -> AsyncIterator[Orchestrator]:
    """At the end the engine is well again, and nothing may be left."""
    async with Orchestrator.open(settings) as orchestrator:
        orchestrator.sessions._engine._engine._images._chosen.clear()  # type: ignore[attr-defined] # as after a while
        yield orchestrator
        relay.heal()
        await until(lambda: settled(orchestrator))
    assert left_by(settings) == []


def left_by(settings: Settings) -> list[str]:
    _, rows_left = records_left(settings.data_dir / RECORDS_NAME)
    return [*containers_of(settings), *rows_left, *leaks.files(settings.runtime_dir / CHANNELS_NAME)]


async def settled(orchestrator: Orchestrator) -> bool:
    """No removal has failed and waits to be tried again."""
    return not orchestrator.sessions._sandboxes._stuck


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(600):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never")


async def rows(orchestrator: Orchestrator) -> int:
    return len(await orchestrator.sessions._records.sandboxes())


def containers_of(settings: Settings) -> list[str]:
    with closing(api_client(find_engine())) as api:
        return leaks.containers(api, records_left(settings.data_dir / RECORDS_NAME)[0])


async def value(orchestrator: Orchestrator, code: str, session_id: str | None = "s") -> str | None:
    async with asyncio.timeout(BOUND):
        result = await orchestrator.execute(code, session_id=session_id)
    assert result.error is None, result.error
    return result.value


async def unavailable(orchestrator: Orchestrator, session_id: str | None = "s") -> EngineUnavailableError:
    async with asyncio.timeout(BOUND):
        with pytest.raises(EngineUnavailableError) as raised:
            await orchestrator.execute("1", session_id=session_id)
    assert raised.value.code == "engine_unavailable"
    return raised.value


# errors


@pytest.mark.parametrize("request_", [START, INSPECT, IMAGE])
@pytest.mark.parametrize("kind", ["answer", "cut"])
async def test_a_passing_error_is_not_noticed_where_asking_again_is_safe(
    opened: Orchestrator, relay: EngineRelay, request_: str, kind: str
) -> None:
    fault = relay.fault(request_, kind, times=1)  # type: ignore[arg-type] # from a parameter
    assert await value(opened, "6 * 7") == "42"
    assert fault.met == 1


@pytest.mark.parametrize("status", [500, 409])
async def test_an_error_at_a_removal_is_made_up_for(
    opened: Orchestrator, relay: EngineRelay, settings: Settings, status: int
) -> None:
    fault = relay.fault(REMOVE, "answer", status=status, times=1)
    assert await value(opened, "1", None) == "1"
    await until(lambda: none_left(opened))
    assert fault.met == 1
    assert containers_of(settings) == []


async def none_left(orchestrator: Orchestrator) -> bool:
    return await rows(orchestrator) == 0


@pytest.mark.parametrize("request_", [CREATE, START, INSPECT, IMAGE])
@pytest.mark.parametrize("status", [500, 409])
async def test_an_error_that_stays_is_told_in_the_engines_words_and_the_next_call_works_when_it_is_over(
    opened: Orchestrator, relay: EngineRelay, request_: str, status: int
) -> None:
    fault = relay.fault(request_, "answer", status=status, message="the daemon has a cold")
    for session_id in ("s", None):
        assert "the daemon has a cold" in (await unavailable(opened, session_id)).message
    assert fault.met >= 2
    fault.end()
    assert await value(opened, "6 * 7") == "42"


async def test_a_full_disk_of_the_engine_is_told_as_that(opened: Orchestrator, relay: EngineRelay) -> None:
    full = "mkdir /var/lib/docker/overlay2/1234-init: no space left on device"
    fault = relay.fault(CREATE, "answer", message=full)
    told = await unavailable(opened)
    assert "no space left on device" in told.message
    assert told.hint is not None
    assert "disk" in told.hint
    fault.end()
    assert await value(opened, "1") == "1"


# no answer


async def test_a_create_that_is_done_and_never_answered_leaves_a_row_until_it_is_too_late_for_it(
    relay: EngineRelay, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is on its way while the connection is gone: the container appears when nobody waits any more.

    By attach: where the channel is a socket, its directory is gone by then, and the engine refuses.
    """
    monkeypatch.setattr(launch, "CREATE_BOUND", 6.0)
    async with Orchestrator.open(Settings.load(**{**settings.model_dump(), "channel": "attach"})) as opened:
        relay.fault(CREATE, "late", seconds=2.0, times=1)
        await unavailable(opened, None)
        assert (await rows(opened), containers_of(settings)) == (1, [])
        assert await value(opened, "1", None) == "1"
        await until(lambda: is_there(settings))
        await until(lambda: none_left(opened))
    assert left_by(settings) == []


async def is_there(settings: Settings) -> bool:
    """Created, and never to be started."""
    return [name for name in containers_of(settings) if "created" in name] != []


async def test_a_create_that_hangs_is_answered_in_bounded_time_and_removed_when_it_comes_through(
    opened: Orchestrator, relay: EngineRelay, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", 1.0)
    fault = relay.fault(CREATE, "hold", times=1)
    assert "in time" in (await unavailable(opened)).message
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", BOUND)
    assert await value(opened, "x = 1; x") == "1"
    assert await rows(opened) == 2
    fault.end()
    await until(lambda: is_alone(opened))
    assert len(containers_of(settings)) == 1
    assert await value(opened, "x") == "1"


async def is_alone(orchestrator: Orchestrator) -> bool:
    return await rows(orchestrator) == 1


@pytest.mark.parametrize("request_", [START, INSPECT])
async def test_a_start_that_hangs_is_answered_in_bounded_time_and_its_container_removed(
    opened: Orchestrator, relay: EngineRelay, settings: Settings, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", 1.0)
    relay.fault(request_, "hold", seconds=3.0, times=1)
    await unavailable(opened)
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", BOUND)
    assert await value(opened, "1") == "1"
    await until(lambda: is_alone(opened))
    assert len(containers_of(settings)) == 1


async def test_a_removal_that_hangs_keeps_its_row_and_is_made_again(
    opened: Orchestrator, relay: EngineRelay, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "REMOVE_SECONDS", 0.5)
    monkeypatch.setattr(sandboxes_module, "_REMOVAL_PAUSES", (0.1,))
    fault = relay.fault(REMOVE, "hold", times=2)
    assert await value(opened, "1", None) == "1"
    await until(lambda: met(fault, 2))
    assert len(containers_of(settings)) == await rows(opened) == 1
    assert await value(opened, "2", "t") == "2"
    await until(lambda: is_alone(opened))


async def met(fault: Fault, number: int) -> bool:
    return fault.met >= number


@pytest.mark.parametrize("request_", [IMAGE, CREATE, START])
async def test_an_answer_that_trickles_holds_no_call_beyond_its_bound(
    opened: Orchestrator, relay: EngineRelay, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    """The SDK's time-out is for each read, and there is always one more byte."""
    monkeypatch.setattr(image_choice, "FIND_SECONDS", 1.0)
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", 1.0)
    monkeypatch.setattr(launch, "CREATE_BOUND", 2.0)
    fault = relay.fault(request_, "trickle")
    began = time.monotonic()
    await unavailable(opened)
    assert time.monotonic() - began < BOUND / 2
    fault.end()
    for module, name in ((image_choice, "FIND_SECONDS"), (launch, "LAUNCH_SECONDS")):
        monkeypatch.setattr(module, name, BOUND)
    assert await value(opened, "1") == "1"


# nothing else is held up


async def test_sessions_with_sandboxes_go_on_while_the_engine_hangs_and_a_close_is_bounded(
    settings: Settings, relay: EngineRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_choice, "FIND_SECONDS", 1.0)
    monkeypatch.setattr(docker_engine, "ASK_SECONDS", 1.0)
    monkeypatch.setitem(cast("dict[str, float]", Sessions.close.__kwdefaults__), "seconds", 3.0)
    monkeypatch.setitem(cast("dict[str, float]", Sandboxes.__init__.__kwdefaults__), "create_bound", 3.0)
    names = ("a", "b", "c")
    async with Orchestrator.open(settings) as opened:
        for name in names:
            await value(opened, "x = 1", name)
        monkeypatch.setattr(launch, "LAUNCH_SECONDS", 2.0)
        relay.fault(ANYTHING, "hold")
        new = [asyncio.create_task(unavailable(opened, name)) for name in ("new", None, "newer")]
        for turn in range(3):
            values = await asyncio.gather(*(value(opened, "x += 1; x", name) for name in names))
            assert values == [str(turn + 2)] * 3
        await asyncio.gather(*new)
        assert [row.session_id for row in await opened.list_sessions()][:3] == list(names)
        assert [one.name for one in (await opened.list_variables("a")).variables] == ["x"]
        began = time.monotonic()
    assert time.monotonic() - began < BOUND
    relay.heal()
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", BOUND)
    async with Orchestrator.open(settings) as opened:
        assert [await value(opened, "x", name) for name in names] == ["4"] * 3
        await until(lambda: only_those(opened, 3))
    assert left_by(settings) == []


async def only_those(orchestrator: Orchestrator, number: int) -> bool:
    return await rows(orchestrator) == number


# containers


async def direct(call: Callable[[docker.APIClient, str], object], settings: Settings) -> None:
    """Do something to every container, behind everybody's back."""
    with closing(api_client(find_engine())) as api:
        filters = {"label": [f"{LABEL_INSTALLATION}={records_left(settings.data_dir / RECORDS_NAME)[0]}"]}
        for row in api.containers(all=True, filters=filters):
            await asyncio.to_thread(call, api, row["Id"])


def removed(api: docker.APIClient, container: str) -> None:
    api.remove_container(container, force=True)


def paused(api: docker.APIClient, container: str) -> None:
    api.pause(container)


def stopped(api: docker.APIClient, container: str) -> None:
    os.kill(api.inspect_container(container)["State"]["Pid"], signal.SIGSTOP)


HARMS = [removed, paused, pytest.param(stopped, marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root"))]
"""One of a rootful engine is signalled by root only."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is silent for a second is sought for two, and then given up."""
    for method, name, seconds in (
        (UnixTransport.__init__, "heartbeat", 0.4),
        (AgentChannel.open.__func__, "reconnect_seconds", 2.0),  # type: ignore[attr-defined] # of a class method
    ):
        monkeypatch.setitem(cast("dict[str, float]", method.__kwdefaults__), name, seconds)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("harm", HARMS)
async def test_a_container_harmed_while_idle_costs_what_was_not_saved_and_says_so(
    opened: Orchestrator, settings: Settings, harm: Callable[[docker.APIClient, str], None]
) -> None:
    await value(opened, "kept = 1; kept")
    await opened.save("s")
    await value(opened, "lost = 2; lost")
    await direct(harm, settings)
    async with asyncio.timeout(BOUND):
        result = await opened.execute("kept, 'lost' in globals()", session_id="s")
    if result.error is not None:  # it was found out by this very call
        assert result.error.code == "sandbox_lost"
        assert "lost" in result.notes[0]
        async with asyncio.timeout(BOUND):
            result = await opened.execute("kept, 'lost' in globals()", session_id="s")
    else:
        assert "Lost: the effects of execution 2" in result.notes[0]
    assert result.value == "(1, False)"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("harm", HARMS)
async def test_a_container_harmed_under_a_cell_is_sandbox_lost_in_bounded_time_and_the_next_call_works(
    opened: Orchestrator, settings: Settings, harm: Callable[[docker.APIClient, str], None]
) -> None:
    await value(opened, "x = 1; x")
    call = asyncio.create_task(opened.execute("import time\ntime.sleep(60)", session_id="s"))
    await asyncio.sleep(0.5)
    await direct(harm, settings)
    async with asyncio.timeout(BOUND):
        result = await call
    assert result.error is not None
    assert result.error.code == "sandbox_lost"
    assert await value(opened, "'x' in globals()") == "False"


async def test_a_container_removed_while_it_starts_is_a_typed_error_and_the_next_call_works(
    opened: Orchestrator, relay: EngineRelay, settings: Settings
) -> None:
    fault = relay.fault(START, "hold", times=1)
    call = asyncio.create_task(unavailable(opened))
    await until(lambda: met(fault, 1))
    await direct(removed, settings)
    fault.end()
    await call
    assert await value(opened, "1") == "1"


async def test_a_removed_container_costs_nobody_else_a_place(opened: Orchestrator, settings: Settings) -> None:
    await value(opened, "1")
    await direct(removed, settings)
    await value(opened, "1", "t")
    await opened.execute("1", session_id="s")
    await until(lambda: only_those(opened, 2))
    assert opened.sessions._sandboxes._slots.held == 2
