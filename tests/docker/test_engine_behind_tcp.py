"""A real engine behind a relay: what is in flight when nobody waits any more, and what one that hangs can hold up."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.engine import image_choice, launch
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.image.builder import find_sandbox_image
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, SandboxRecord, SandboxState
from orchestrator.domain.ports import SandboxImage
from tests import leaks
from tests.docker.engine_relay import EngineRelay


@pytest.fixture
def relay() -> Iterator[EngineRelay]:
    relay = EngineRelay()
    yield relay
    relay.close()


async def forgets(_key: str) -> str | None:
    return None


async def remembers(_key: str, _value: str) -> None:
    return None


@pytest.fixture
async def engine(relay: EngineRelay, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    installation = secrets.token_hex(16)
    engine = DockerEngine(
        installation=installation,
        find=relay.probe,
        image_of=lambda api, _environment: find_sandbox_image(api, read_image_files()),
        put_agent=lambda _api, _environment: None,
        profile=SandboxProfile(),
        isolation=read_isolation(),
        channel_parent=tmp_path / "c",
        channel="attach",
        clock=SystemClock(),
        recall=forgets,
        remember=remembers,
    )
    yield engine
    await engine.close()
    with closing(api_client(find_engine())) as api:
        assert leaks.containers(api, installation) == []


def record(image: SandboxImage) -> SandboxRecord:
    return SandboxRecord(
        id=secrets.token_hex(16),
        state=SandboxState.CREATING,
        uid=65_500,
        secret=secrets.token_hex(32),
        image=image.tag,
        handle=None,
        session=None,
        incarnation=0,
    )


async def test_engine_reached_by_tcp_serves_sandboxes_over_its_attach_stream(engine: DockerEngine) -> None:
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    await agent.claim("session", 1)
    order = CellOrder(1, "print('x' * 3_000_000)", 20.0, 1.0, output_head=1_000_000, output_tail=500_000)
    report = await agent.execute(order)
    assert (report.output_bytes, len(report.output_head)) == (3_000_001, 1_000_000)
    await engine.destroy(row.id)


async def test_create_that_the_engine_does_after_its_caller_has_gone_is_waited_out_by_destroy(
    engine: DockerEngine, relay: EngineRelay
) -> None:
    image = await engine.prepare()
    row = record(image)
    relay.fault("POST /containers/create", "hold", seconds=1.0)
    began = time.monotonic()
    launching = asyncio.create_task(engine.launch(row, image))
    await asyncio.sleep(0.2)
    launching.cancel()
    await asyncio.gather(launching, return_exceptions=True)
    assert time.monotonic() - began < 0.8, "a cancelled launch does not wait for the engine"
    await engine.destroy(row.id)
    assert time.monotonic() - began > 1
    assert await engine.containers() == []


async def test_engine_that_answers_nothing_holds_a_caller_for_its_bound_and_all_callers_once(
    engine: DockerEngine, relay: EngineRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_choice, "FIND_SECONDS", 0.3)
    relay.fault("GET /", "hold", seconds=3.0)
    began = time.monotonic()
    answers = await asyncio.gather(*(engine.prepare() for _ in range(8)), return_exceptions=True)
    assert all(isinstance(answer, EngineUnavailableError) for answer in answers)
    assert time.monotonic() - began < 1.5


async def test_questions_that_hang_hold_up_no_removal_and_no_listing(engine: DockerEngine, relay: EngineRelay) -> None:
    """More looks at images and containers than any lane is wide, while the engine still removes and lists."""
    image = await engine.prepare()
    row = record(image)
    await engine.launch(row, image)
    fault = relay.fault("GET /images/", "hold")
    looking = [asyncio.create_task(engine.prepare(f"environment {number}")) for number in range(12)]
    async with asyncio.timeout(20):
        while fault.met < 4:  # noqa: ASYNC110 - it is counted in threads of the relay
            await asyncio.sleep(0.01)
        assert [container.sandbox_id for container in await engine.containers()] == [row.id]
        await engine.destroy(row.id)
        assert await engine.containers() == []
    assert not any(task.done() for task in looking)
    fault.end()
    assert await asyncio.gather(*looking) == [image] * 12


async def test_attach_that_hangs_ends_a_launch_in_bounded_time_and_holds_up_nothing_else(
    engine: DockerEngine, relay: EngineRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await engine.prepare()
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", 1.0)
    fault = relay.fault("POST /containers/[^/]*/attach", "hold")
    async with asyncio.timeout(20):
        for _ in range(6):
            row = record(image)
            with pytest.raises(EngineUnavailableError, match="did not come up"):
                await engine.launch(row, image)
            await engine.destroy(row.id)
        assert await engine.containers() == []
    assert fault.met >= 6
