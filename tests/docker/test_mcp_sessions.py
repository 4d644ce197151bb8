"""Real MCP clients, the real relay and owner, real containers; and the demo, as a newcomer runs it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, TextContent

from orchestrator import places
from orchestrator.adapters.data_directory import holder
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import RECORDS_NAME
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.leftovers import containers_left, end_owner, kill_owner, leftovers
from orchestrator.settings import Settings
from tests.docker.conftest import records_left

Mode = Literal["legacy", "auto"]
CALL_SECONDS = 60.0


@pytest.fixture
async def installed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    """An installation of the test's own; its owner is ended, and then nothing may be left of it."""
    root = tmp_path_factory.mktemp("m")
    settings = Settings.load(data_dir=root / "data", runtime_dir=root / "run")
    yield settings
    await end_owner(settings)
    assert await leftovers(settings) == []


def server(settings: Settings, **more: str) -> StdioServerParameters:
    environment = {**os.environ, places.RUNTIME_DIR_VARIABLE: str(settings.runtime_dir), **more}
    command = ["-m", "orchestrator", "mcp", "--data-dir", str(settings.data_dir)]
    return StdioServerParameters(command=sys.executable, args=command, env=environment)


def fields(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def run(client: Client, code: str, session_id: str | None = None, **more: object) -> CallToolResult:
    arguments = {"code": code, "session_id": session_id, **more}
    return await client.call_tool("python_repl", arguments, read_timeout_seconds=CALL_SECONDS)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_variables_stay_between_calls_and_are_listed(installed: Settings, mode: Mode) -> None:
    async with Client(server(installed), mode=mode) as client:
        first = await run(client, "x = 42\ny = 'hello'", "s")
        assert fields(first)["bound"] == ["x", "y"]
        second = await run(client, "print(f'{y}, x = {x}')", "s")
        assert fields(second)["output"] == "hello, x = 42\n"
        assert "hello, x = 42" in "".join(b.text for b in second.content if isinstance(b, TextContent))
        listed = fields(await client.call_tool("python_list_variables", {"session_id": "s"}))
        assert [(v["name"], v["type"]) for v in listed["variables"]] == [("x", "int"), ("y", "str")]
        sessions = fields(await client.call_tool("python_list_sessions", {}))
        assert (sessions["session_count"], sessions["sessions"][0]["total_executions"]) == (1, 2)
        await client.call_tool("python_delete_session", {"session_id": "s"})
        gone = await client.call_tool("python_list_variables", {"session_id": "s"})
        assert fields(gone)["error"]["code"] == "not_found"


async def test_a_call_without_session_leaves_nothing(installed: Settings) -> None:
    async with Client(server(installed)) as client:
        assert fields(await run(client, "x = 1\nx"))["value"] == "1"
        assert fields(await run(client, "x", ""))["error"]["type"] == "NameError"
        assert fields(await client.call_tool("python_list_sessions", {}))["session_count"] == 0


async def test_a_figure_comes_as_an_image(installed: Settings) -> None:
    async with Client(server(installed)) as client:
        result = await run(client, "import matplotlib.pyplot as plt\nplt.plot([1, 2]);", "s")
    assert [block.type for block in result.content] == ["text", "image"]
    assert fields(result)["displays"][0]["mime"] == "image/png"


async def test_cancelling_a_call_interrupts_the_cell_and_keeps_the_session(installed: Settings) -> None:
    async with Client(server(installed)) as client:
        await run(client, "x = 1", "s")
        calling = asyncio.create_task(run(client, "import time\nwhile True: time.sleep(0.01)", "s"))
        await asyncio.wait([calling], timeout=1)
        calling.cancel()
        await asyncio.wait([calling])
        assert fields(await run(client, "x", "s"))["value"] == "1"


async def test_a_client_killed_with_its_cell_running_harms_nobody(installed: Settings) -> None:
    parameters = server(installed)
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM, *parameters.args, env=parameters.env, stdout=asyncio.subprocess.PIPE
    )
    assert victim.stdout is not None
    assert await victim.stdout.readline() == b"running\n"
    async with Client(parameters) as client:
        os.killpg(victim.pid, signal.SIGKILL) if os.getpgid(victim.pid) == victim.pid else victim.kill()
        await victim.wait()
        # The victim's endless cell is interrupted, or this call would wait behind it.
        assert fields(await run(client, "kept", "shared"))["value"] == "'yes'"


VICTIM = """
import asyncio, os, sys
from mcp import Client, StdioServerParameters
async def main():
    parameters = StdioServerParameters(command=sys.executable, args=sys.argv[1:], env=dict(os.environ))
    async with Client(parameters) as client:
        await client.call_tool("python_repl", {"code": "kept = 'yes'", "session_id": "shared"})
        endless = {"code": "import time\\nwhile True: time.sleep(0.01)", "session_id": "shared"}
        calling = asyncio.create_task(client.call_tool("python_repl", endless))
        await asyncio.wait([calling], timeout=1)
        print("running", flush=True)
        await calling
asyncio.run(main())
"""


async def test_a_loss_whose_answer_the_end_of_its_client_overtook_is_told_again_and_then_no_more(
    installed: Settings,
) -> None:
    async def losses(client: Client, code: str) -> list[str]:
        return [note for note in fields(await run(client, code, "s"))["notes"] if note.startswith("Lost")]

    async with Client(server(installed)) as client:
        await run(client, "x = 1", "s")
        (lost,) = await losses(client, "import os\nos._exit(3)")
    async with Client(server(installed)) as client:
        assert await losses(client, "1") == [lost]
        assert await losses(client, "1") == []


async def test_a_signal_to_the_owner_removes_every_container(installed: Settings) -> None:
    async with Client(server(installed)) as client:
        await run(client, "x = 1", "one")
        await run(client, "x = 1", "two")
        found = holder(installed.data_dir)
        assert found is not None
        assert await end_owner(installed) == found.pid
        assert await leftovers(installed) == []


@pytest.mark.parametrize("alive", [True, False])
async def test_a_session_goes_on_after_its_owner_was_killed_and_says_from_what(
    installed: Settings, *, alive: bool
) -> None:
    """`alive`: its container outlives the owner, with the cell in it."""
    async with Client(server(installed, ORCHESTRATOR_SNAPSHOT_AFTER="0.2")) as client:
        await run(client, "kept = [1]\nopen('f', 'w').write('file')", "s")

        async def saved() -> bool:
            return bool((await the_session(client))["saved_through"] == 1)

        await until(saved)
        # A running cell is not saved, so that what it does is in no snapshot.
        code = f"newer = 2\nimport time\ntime.sleep({3 if alive else 600})\n'slept'"
        calling = asyncio.create_task(run(client, code, "s", timeout=600))

        async def recorded() -> bool:
            return bool((await the_session(client))["total_executions"] == 2)

        await until(recorded)
        await asyncio.wait([calling], timeout=1)
        assert await kill_owner(installed)
        await asyncio.wait([calling])
        assert calling.exception() or calling.cancelled()
    if not alive:
        kill_containers(installed)
    async with Client(server(installed)) as client:
        found = await run(client, "kept, open('f').read(), globals().get('newer')", "s")
        assert fields(found)["value"] == f"([1], 'file', {2 if alive else None})"
        assert fields(found)["saved_through"] == 1
        text = "".join(block.text for block in found.content if isinstance(block, TextContent))
        if alive:
            told = ["the session was found alive", "Execution 2 ended after its orchestrator had: ok", "Value: 'slept'"]
        else:
            told = ["Lost: the effects of execution 2, because", "its container was killed"]
        for part in told:
            assert part in text
            assert any(part in note for note in fields(found)["notes"])


def kill_containers(settings: Settings) -> None:
    installation, _ = records_left(settings.data_dir / RECORDS_NAME)
    with closing(api_client(find_engine())) as api:
        for row in api.containers(filters={"label": [f"{LABEL_INSTALLATION}={installation}"]}):
            api.kill(row["Id"])


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            if await found():
                return
            await asyncio.sleep(0.05)


async def the_session(client: Client) -> dict[str, Any]:
    (session,) = fields(await client.call_tool("python_list_sessions", {}))["sessions"]
    assert isinstance(session, dict)
    return session


async def test_a_session_that_is_left_alone_has_no_container(installed: Settings) -> None:
    hasty = {"ORCHESTRATOR_SNAPSHOT_AFTER": "0.1", "ORCHESTRATOR_HIBERNATE_AFTER": "0.5"}
    async with Client(server(installed, **hasty)) as client:
        await run(client, "x = 41", "s")

        async def gone() -> bool:
            return (await the_session(client))["state"] == "hibernated" and not await containers_left(installed)

        await until(gone)
        listed = fields(await client.call_tool("python_list_variables", {"session_id": "s"}))
        assert [variable["name"] for variable in listed["variables"]] == ["x"]
        assert "Not in a sandbox now" in listed["notes"][0]
        assert await containers_left(installed) == []
        assert fields(await run(client, "x + 1", "s"))["value"] == "42"


def test_the_demo_runs_and_writes_its_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "demo", "--output", str(tmp_path / "figures")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no container, process or socket is left" in done.stdout
    figures = sorted((tmp_path / "figures").iterdir())
    assert [figure.name for figure in figures] == ["1-customers.png", "2-prices.png"]
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
    assert all(str(figure) in done.stdout for figure in figures)
