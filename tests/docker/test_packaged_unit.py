"""What the systemd unit starts, started by hand: it serves, ends in order, and its sessions sleep and wake."""

import asyncio
import os
import re
import resource
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.settings import Settings
from tests.docker.test_serve import PATIENCE, client, keys_of, run
from tests.unit.test_packaging import environment, unit


@asynccontextmanager
async def unit_started(settings: Settings) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The unit's command with the unit's variables, but for the places of this test and a free port."""
    _, *arguments = shlex.split(unit()["ExecStart"][0])
    places = {"ORCHESTRATOR_DATA_DIR": settings.data_dir, "ORCHESTRATOR_RUNTIME_DIR": settings.runtime_dir}
    assert environment().keys() == places.keys()
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("orchestrator")),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **{name: str(path) for name, path in places.items()}, "ORCHESTRATOR_HTTP_PORT": "0"},
    )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = int(unit()["LimitNOFILE"][0])
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (min(limit, hard), min(limit, hard)))
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            found = re.search(r"http://\S+", (await process.stdout.readline()).decode())
        assert found, (await process.communicate())[1].decode()
        yield found[0], process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(float(unit()["TimeoutStopSec"][0])):
                await process.communicate()


@pytest.mark.usefixtures("engine")
async def test_the_units_command_drains_at_sigterm_and_its_sessions_sleep(settings: Settings) -> None:
    keys = await keys_of(settings)
    async with unit_started(settings) as (url, process), client(url, keys["red"]) as red:
        await run(red, "x = 'kept'")
        slow = asyncio.create_task(run(red, "import time\nprint('begun')\ntime.sleep(3)\nx += ' on'\nx"))
        await asyncio.sleep(1)  # most of the cell is still to come; where it has not begun, it is drained as well
        process.send_signal(getattr(signal, unit()["KillSignal"][0]))
        assert (await slow)["value"] == "'kept on'", "what was under way came to its end"
        async with asyncio.timeout(float(unit()["TimeoutStopSec"][0])):
            await process.wait()
    assert process.returncode == 0
    async with Orchestrator.open(settings) as o:
        tenant = (await o.tenants.find("red")).id
        assert [entry.state for entry in await o.sessions.list_sessions(tenant=tenant)] == ["hibernated"]
    async with unit_started(settings) as (url, process), client(url, keys["red"]) as red:
        assert (await run(red, "x"))["value"] == "'kept on'"
        await red.call_tool("python_delete_session", {"session_id": "shop"})
