"""The Engine port on a real Docker Engine, when an owner finds what another one has left: the agent goes on, the
execution under way is answered to whoever asks, and what does not live is said to be gone, with the reason.
"""

import asyncio
import errno
import secrets
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.channel import unix_transport
from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.failures import EngineConflictError
from orchestrator.domain.errors import EngineUnavailableError, NamespaceLostError, SandboxGoneError, SandboxLostError
from orchestrator.domain.hardening import container_name
from orchestrator.domain.model import CellOrder, SandboxRecord
from tests.docker.test_docker_engine import Make, api, make, record, run

__all__ = ["api", "make"]  # fixtures

_CHANNELS = pytest.mark.parametrize("channel", ["unix", "attach"])
_SLEEPS = "import time; print('begun', flush=True); time.sleep(1.5); y = 2; 'slept'"


async def left(engine: DockerEngine) -> tuple[SandboxRecord, AgentChannel]:
    """A sandbox that session `session` has claimed, as incarnation 3."""
    image = await engine.prepare()
    row = record(image)
    handle, agent = await engine.launch(row, image)
    await agent.claim("session", 3)
    return replace(row, handle=handle, session="session", incarnation=3), agent


@_CHANNELS
async def test_next_owner_goes_on_where_the_last_one_stood(make: Make, channel: str) -> None:
    installation = secrets.token_hex(16)
    first, second = make(channel, installation=installation), make(installation=installation)
    row, agent = await left(first)
    try:
        await run(agent, 1, "x = [1]")
        await agent.list_variables()
        asked = agent._requests._last_id
        await first.close()
        environment, found = await second.adopt(row)
        assert environment == (await second.prepare()).environment
        hello = found.hello
        assert (hello.incarnation, hello.last_execution, hello.running, hello.last_request) == (3, 1, None, asked)
        await found.claim("session", 3)
        assert (await run(found, 2, "x.append(2); x")).value == "[1, 2]"
        assert [one.launched_here for one in await second.containers()] == [True]
    finally:
        await second.destroy(row.id)


@_CHANNELS
async def test_cell_that_outlives_its_owner_is_answered_to_the_next_one(make: Make, channel: str) -> None:
    installation = secrets.token_hex(16)
    first, second = make(channel, installation=installation), make(installation=installation)
    row, agent = await left(first)
    try:
        running = asyncio.create_task(run(agent, 1, _SLEEPS))
        await asyncio.sleep(0.5)
        await first.close()
        with pytest.raises(SandboxLostError):
            await running
        _, found = await second.adopt(row)
        await found.claim("session", 3)
        assert found.hello.last_execution == 1
        assert found.hello.running in {1, None}  # on a slow machine it may have ended by now
        report = await found.result(1, seconds=20)
        assert report is not None
        assert (report.outcome, report.output_head, report.value) == ("ok", "begun\n", "'slept'")
        assert report.bound == ("time", "y")
        again = await found.result(1, seconds=20)
        assert again == report
        assert await found.result(2, seconds=20) is None
        assert (await run(found, 2, "y")).value == "2"
        assert await found.result(1, seconds=20) is None
    finally:
        await second.destroy(row.id)


async def test_cell_that_outlives_its_owner_can_be_interrupted_by_the_next_one(make: Make) -> None:
    engine = make()
    row, agent = await left(engine)
    try:
        running = asyncio.create_task(run(agent, 1, "import time\nfor _ in range(150): time.sleep(0.1)"))
        await asyncio.sleep(0.5)
        again = make(installation=engine._installation)
        await engine.close()
        await asyncio.gather(running, return_exceptions=True)
        _, found = await again.adopt(row)
        asking = asyncio.create_task(found.result(1, seconds=30))
        await asyncio.sleep(0.1)
        found.interrupt(1)
        report = await asking
        assert report is not None
        assert (report.outcome, report.namespace_kept) == ("interrupted", True)
    finally:
        await again.destroy(row.id)


@pytest.mark.parametrize("killed", [False, True])
async def test_what_a_worker_lacks_is_told_to_the_next_owner_whoever_was_told_before(
    make: Make, *, killed: bool
) -> None:
    installation = secrets.token_hex(16)
    first, second = make(installation=installation), make(installation=installation)
    row, agent = await left(first)
    try:
        await run(agent, 1, "x = 1")
        if killed:
            ended = await run(agent, 2, "import os; os._exit(1)")
            assert not ended.namespace_kept
            stands = ended.resumed  # at the first cell, if a savepoint was made as fast
        else:
            await agent.clear()
            stands = None
        await first.close()
        _, found = await second.adopt(row)
        await found.claim("session", 3)
        with pytest.raises(NamespaceLostError) as lost:
            await run(found, 3, "x")
        assert ("exit code 1" if killed else "replaced by a fresh one") in lost.value.cause
        assert lost.value.resumed == stands
        assert (await run(found, 3, "'x' in globals()")).value == str(stands == 1)
    finally:
        await second.destroy(row.id)


async def test_owner_that_lost_its_patience_tries_again(make: Make) -> None:
    engine = make()
    row, agent = await left(engine)
    try:
        with pytest.raises(EngineConflictError):
            await engine.adopt(row)
        assert (await run(agent, 1, "1")).value == "1"
        later = make(installation=engine._installation)
        await engine.close()
        for milliseconds in (0, 2, 5, 10, 20, 40):
            reaching = asyncio.create_task(later.adopt(row))
            await asyncio.sleep(milliseconds / 1000)
            reaching.cancel()
            await asyncio.gather(reaching, return_exceptions=True)
        _, found = await later.adopt(row)
        assert (await run(found, 2, "2")).value == "2"
        _, anew = await later.adopt(row)
        assert found.lost == "it is reached anew"
        assert (await run(anew, 3, "3")).value == "3"
    finally:
        await later.destroy(row.id)


async def test_what_does_not_live_or_is_not_ours_is_gone_and_stays_untouched(make: Make, api: docker.APIClient) -> None:
    engine = make()
    row, _ = await left(engine)
    installation = engine._installation
    await engine.close()
    later, stranger = make(installation=installation), make()
    try:
        for wrong in (replace(row, uid=row.uid + 1), replace(row, handle="0" * 64)):
            with pytest.raises(SandboxGoneError, match="of another origin"):
                await later.adopt(wrong)
        with pytest.raises(SandboxGoneError, match="of another origin"):
            await stranger.adopt(row)
        await stranger.destroy(row.id)
        with pytest.raises(SandboxGoneError, match="serves incarnation 3"):
            await later.adopt(replace(row, incarnation=2))
        with pytest.raises(SandboxGoneError, match="removed"):
            await later.adopt(replace(row, id=secrets.token_hex(16)))
        assert api.inspect_container(container_name(row.id))["State"]["Running"]
        api.kill(container_name(row.id))
        with pytest.raises(SandboxGoneError) as gone:
            await later.adopt(row)
        assert gone.value.cause == "its container was killed"
    finally:
        await later.destroy(row.id)


async def test_channel_is_found_where_the_last_owner_had_it(make: Make, tmp_path: Path) -> None:
    installation = secrets.token_hex(16)
    first = make(installation=installation, parent=tmp_path / "c" / "old")
    second = make(installation=installation, parent=tmp_path / "c" / "new")
    row, agent = await left(first)
    await run(agent, 1, "x = 1")
    await first.close()
    try:
        _, found = await second.adopt(row)
        assert (await run(found, 2, "x")).value == "1"
    finally:
        await second.destroy(row.id)
    assert [path.name for path in (tmp_path / "c").rglob("*")] in (["old"], ["old", "new"])
    for path in (tmp_path / "c").iterdir():
        path.rmdir()


async def test_host_that_has_no_descriptors_left_gives_nobody_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    row, _ = await left(engine)
    await engine.close()
    later = make(installation=engine._installation)

    def bind(_listener: object, _path: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(unix_transport, "_bind", bind)
            with pytest.raises(EngineUnavailableError, match="Too many open files"):
                await later.adopt(row)
        _, found = await later.adopt(row)
        assert (await run(found, 1, "1")).value == "1"
    finally:
        await later.destroy(row.id)


_LARGE = """
import os
for _ in range(20): print("o" * 100_000)
print("end")
"v" * 1_000_000
"""


async def test_result_of_the_last_cell_is_kept_whatever_else_was_replied_and_however_large(make: Make) -> None:
    engine = make()
    row, agent = await left(engine)
    try:
        order = CellOrder(1, _LARGE, time_limit=20, grace=1, output_head=1_000_000, output_tail=1_000_000)
        told = await agent.execute(order)
        for _ in range(40):  # more than are kept by their ids
            await agent.list_variables()
        later = make(installation=engine._installation)
        await engine.close()
        _, found = await later.adopt(row)
        report = await found.result(1, seconds=20)
        assert report == told
        assert report is not None
        assert (report.output_bytes, len(report.output_head)) == (2_000_024, 1_000_000)
    finally:
        await later.destroy(row.id)
