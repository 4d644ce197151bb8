"""The Engine port on a real Docker Engine: sandboxes come up over both transports and go without a trace."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.unix_transport import channel_directory
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.failures import EngineConflictError
from orchestrator.adapters.engine.image_choice import FindImage
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.image.builder import find_sandbox_image
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import EngineUnavailableError, ImageGoneError, SandboxLostError
from orchestrator.domain.hardening import LABEL_INSTALLATION, SandboxProfile, container_name
from orchestrator.domain.model import CellOrder, CellReport, SandboxRecord, SandboxState
from orchestrator.domain.ports import SandboxImage
from orchestrator.domain.wire import socket_name
from tests import leaks
from tests.mcp.harness import eventually
from tests.pace import paced


@pytest.fixture
def api() -> Iterator[docker.APIClient]:
    with closing(api_client(find_engine())) as client:
        yield client


Make = Callable[..., DockerEngine]


class Memory(dict[str, str]):
    """What an engine was told and has to remember."""

    async def recall(self, key: str) -> str | None:
        return self.get(key)

    async def remember(self, key: str, value: str) -> None:
        self[key] = value

    @property
    def channels(self) -> list[str]:
        return [value for key, value in self.items() if key.startswith("channel:")]


def image_of(api: docker.APIClient, _environment: str | None) -> SandboxImage | None:
    return find_sandbox_image(api, read_image_files())


@pytest.fixture
async def make(tmp_path: Path, api: docker.APIClient) -> AsyncIterator[Make]:
    """Makes engines, each of an installation of its own unless one is named; nothing of theirs may be left."""
    made: list[DockerEngine] = []
    installations: set[str] = set()

    def make_engine(
        channel: str = "unix",
        *,
        installation: str = "",
        memory: Memory | None = None,
        parent: Path = tmp_path / "c",
        find_image: FindImage = image_of,
    ) -> DockerEngine:
        memory = Memory() if memory is None else memory
        installation = installation or secrets.token_hex(16)
        installations.add(installation)
        made.append(
            DockerEngine(
                installation=installation,
                find=find_engine,
                image_of=find_image,
                put_agent=lambda _api, _environment: None,
                profile=SandboxProfile(),
                isolation=read_isolation(),
                channel_parent=parent,
                channel=channel,  # type: ignore[arg-type] # from a parameter
                clock=SystemClock(),
                recall=memory.recall,
                remember=memory.remember,
            )
        )
        return made[-1]

    yield make_engine
    for engine in made:
        await engine.close()
    left = [name for installation in installations for name in leaks.containers(api, installation)]
    left += leaks.files(tmp_path / "c")
    assert not left, left


uids = iter(range(63_000, 64_900))


def record(image: SandboxImage) -> SandboxRecord:
    return SandboxRecord(
        id=secrets.token_hex(16),
        state=SandboxState.CREATING,
        uid=next(uids),
        secret=secrets.token_hex(32),
        image=image.tag,
        handle=None,
        session=None,
        incarnation=0,
    )


async def run(agent: AgentChannel, number: int, code: str) -> CellReport:
    return await agent.execute(CellOrder(number, code, time_limit=20, grace=1, output_head=1000, output_tail=1000))


async def lose_connection(agent: AgentChannel) -> None:
    await eventually(lambda: agent._link is not None and agent._link._transport is not None, "it is connected")
    assert agent._link is not None
    assert agent._link._transport is not None
    agent._link._transport.abort()


@pytest.mark.parametrize("channel", ["unix", "attach"])
async def test_sandbox_comes_up_runs_a_cell_and_goes_without_a_trace(make: Make, channel: str, tmp_path: Path) -> None:
    engine = make(channel)
    image = await engine.prepare()
    row = record(image)
    handle, agent = await engine.launch(row, image)
    try:
        assert agent.hello.incarnation == 0
        (found,) = await engine.containers()
        assert (found.handle, found.sandbox_id, found.running) == (handle, row.id, True)
        await agent.claim("session", 1)
        report = await run(agent, 1, "import os; print(os.getuid()); 6 * 7")
        assert (report.output_head, report.value) == (f"{row.uid}\n", "42")
    finally:
        await engine.destroy(row.id)
    assert agent.lost == "its container was removed"
    with pytest.raises(SandboxLostError):
        await run(agent, 2, "1")
    assert await engine.containers() == []
    assert not channel_directory(tmp_path / "c", row.id).exists()


@pytest.mark.parametrize("channel", ["unix", "attach"])
async def test_lost_connection_is_taken_up_again_and_the_running_cell_is_answered(make: Make, channel: str) -> None:
    engine = make(channel)
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    try:
        await agent.claim("session", 1)
        running = asyncio.create_task(run(agent, 1, f"import time; time.sleep({paced(1)}); print('there')"))
        for _ in range(3):
            await asyncio.sleep(0.2)
            await lose_connection(agent)
        assert (await running).output_head == "there\n"
        assert (await run(agent, 2, "1")).value == "1"
    finally:
        await engine.destroy(row.id)


@pytest.mark.parametrize("channel", ["unix", "attach"])
async def test_killed_container_is_lost_at_once(make: Make, channel: str, api: docker.APIClient) -> None:
    engine = make(channel)
    image = await engine.prepare()
    row = record(image)
    handle, agent = await engine.launch(row, image)
    try:
        await agent.claim("session", 1)
        running = asyncio.create_task(run(agent, 1, "import time; time.sleep(15)"))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(api.kill, handle)
        began = time.monotonic()
        with pytest.raises(SandboxLostError):
            await running
        assert time.monotonic() - began < paced(5)
    finally:
        await engine.destroy(row.id)


async def test_destroy_of_what_is_absent_or_gone_already_is_a_success(make: Make) -> None:
    engine = make()
    image = await engine.prepare()
    row = record(image)
    await engine.destroy(row.id)
    await engine.launch(row, image)
    await asyncio.gather(engine.destroy(row.id), engine.destroy(row.id))
    await engine.destroy(row.id)


async def test_second_launch_of_one_record_is_a_conflict_and_the_first_goes_on(make: Make) -> None:
    installation = secrets.token_hex(16)
    engine, another = make(installation=installation), make(installation=installation)
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    try:
        for second in (engine, another):
            with pytest.raises(EngineConflictError):
                await second.launch(row, image)
        await agent.claim("session", 1)
        assert len(await engine.containers()) == 1
    finally:
        await engine.destroy(row.id)


@pytest.mark.parametrize("milliseconds", [0, 5, 20, 40, 80, 120, 160, 250])
async def test_cancelled_launch_leaves_nothing_after_destroy(make: Make, milliseconds: int, tmp_path: Path) -> None:
    engine = make()
    image = await engine.prepare()
    row = record(image)
    launching = asyncio.create_task(engine.launch(row, image))
    await asyncio.sleep(milliseconds / 1000)
    launching.cancel()
    await asyncio.gather(launching, return_exceptions=True)
    await engine.destroy(row.id)
    assert await engine.containers() == []
    assert leaks.files(tmp_path / "c") == []


async def test_destroy_during_a_launch_ends_both_with_nothing_left(make: Make) -> None:
    engine = make()
    image = await engine.prepare()
    row = record(image)
    launching = asyncio.create_task(engine.launch(row, image))
    await asyncio.sleep(0.03)
    await engine.destroy(row.id)
    with pytest.raises(EngineUnavailableError):
        await launching
    await engine.destroy(row.id)


async def test_two_installations_neither_see_nor_touch_each_other(make: Make, api: docker.APIClient) -> None:
    engine, other = make(), make(installation=secrets.token_hex(16))
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    try:
        assert await other.containers() == []
        await other.destroy(row.id)
        await agent.claim("session", 1)
        assert (await run(agent, 1, "1")).value == "1"
        assert api.inspect_container(container_name(row.id))["State"]["Running"]
    finally:
        await engine.destroy(row.id)


async def test_closed_engine_leaves_its_sandboxes_to_the_next_owner(make: Make) -> None:
    installation = secrets.token_hex(16)
    engine = make(installation=installation)
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    await engine.close()
    assert agent.lost == "its connection was closed"
    later = make(installation=installation)
    assert [found.sandbox_id for found in await later.containers()] == [row.id]
    await later.destroy(row.id)


async def test_many_launches_at_once_all_come_up(make: Make) -> None:
    engine = make()
    image = await engine.prepare()
    rows = [record(image) for _ in range(8)]
    launched = await asyncio.gather(*(engine.launch(row, image) for row in rows), return_exceptions=True)
    await asyncio.gather(*(engine.destroy(row.id) for row in rows))
    assert [one for one in launched if isinstance(one, BaseException)] == []


async def test_channel_and_what_is_enforced_are_probed_once_and_remembered(make: Make, api: docker.APIClient) -> None:
    memory, installation, began = Memory(), secrets.token_hex(16), int(time.time())
    for _ in range(2):
        await make("auto", memory=memory, installation=installation).prepare()
    assert memory.channels == ["unix"]
    filters = {"event": "create", "label": f"{LABEL_INSTALLATION}={installation}"}
    created = api.events(since=began, until=int(time.time()) + 1, filters=filters, decode=True)
    assert len(list(created)) == 2  # the other one was asked what the engine enforces


async def test_attach_is_chosen_where_the_engine_does_not_see_our_files(make: Make, tmp_path: Path) -> None:
    """The same path means another place to the engine: as with one on another machine."""
    memory = Memory()
    ours = os.open(tmp_path, os.O_PATH)
    try:
        engine = make("auto", memory=memory, parent=Path(f"/proc/self/fd/{ours}/c"))
        image = await engine.prepare()
        assert memory.channels == ["attach"]
        row = record(image)
        _, agent = await engine.launch(row, image)
        await agent.claim("session", 1)
        await engine.destroy(row.id)
    finally:
        os.close(ours)


async def test_absent_image_is_named_with_what_to_do(make: Make) -> None:
    with pytest.raises(EngineUnavailableError) as none_built:
        await make(find_image=lambda _api, _environment: None).prepare()
    assert none_built.value.hint == "Run `orchestrator image build`."
    engine = make()
    gone = SandboxImage("session-orchestrator/sandbox:no-such-tag", "e", "a", "3.11")
    row = record(gone)
    with pytest.raises(ImageGoneError) as removed:
        await engine.launch(row, gone)
    assert removed.value.hint == "Run `orchestrator image build`."
    await engine.destroy(row.id)


KNOCKING = """
import os, socket, subprocess, sys
try:
    print(os.listdir("/run/channel"))
except PermissionError:
    print("refused")
knock = '''
import array, socket, time
while True:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect("/run/channel/{name}")
        sock.sendall(b"SO" + bytes(10))
        time.sleep(0.01)
    except OSError:
        pass
    sock.close()
'''
children = [subprocess.Popen([sys.executable, "-c", knock]) for _ in range(4)]
"""


async def test_worker_that_knocks_at_the_socket_without_end_does_not_keep_its_agent_out(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Even one that was told the socket's name, which the directory does not tell."""
    caplog.set_level("INFO")
    engine = make()
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    try:
        await agent.claim("session", 1)
        report = await run(agent, 1, KNOCKING.replace("{name}", socket_name(row.secret)))
        assert report.output_head == "refused\n"
        for number in range(2, 60):  # until it was among those that knocked
            await lose_connection(agent)
            assert (await run(agent, number, "1")).value == "1"
            if number > 6 and "not the container's init" in caplog.text:
                break
    finally:
        await engine.destroy(row.id)
    assert "not the container's init" in caplog.text
