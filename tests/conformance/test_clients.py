"""Official clients drive our tools: the inspector over stdio and HTTP, and the SDKs of Python and TypeScript."""

import json
import sys
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.conformance.tools import PLACE, run
from tests.mcp.harness import HERE, Installation
from tests.web.harness import KEY, serving

INSPECTOR = "node_modules/@modelcontextprotocol/inspector"
CALL = ("--method", "tools/call", "--tool-name", "python_repl", "--tool-arg", "code=hello", "session_id=s")


def inspector() -> str:
    """The file that its package names as its command."""
    named = json.loads((PLACE / INSPECTOR / "package.json").read_text())["bin"]
    return f"{INSPECTOR}/{named['mcp-inspector']}"


async def test_the_inspector_lists_and_calls_over_http(tmp_path: Path) -> None:
    async with serving(tmp_path) as place:
        reached = ("--cli", place.url, "--transport", "http", "--header", f"Authorization: Bearer {KEY}")
        code, said = await run(inspector(), *reached, "--method", "tools/list")
        assert code == 0, said
        assert {"python_repl", "python_list_sessions"} <= {tool["name"] for tool in json.loads(said)["tools"]}
        code, said = await run(inspector(), *reached, *CALL)
        assert code == 0, said
        assert json.loads(said)["structuredContent"]["session_id"] == "s"


async def test_the_inspector_lists_and_calls_over_stdio(installation: Installation) -> None:
    reached = ("--cli", sys.executable, str(HERE / "fake_relay.py"))
    code, said = await run(inspector(), *reached, "--method", "tools/list", **installation.environment)
    assert code == 0, said
    assert "python_repl" in {tool["name"] for tool in json.loads(said)["tools"]}
    code, said = await run(inspector(), *reached, *CALL, **installation.environment)
    assert code == 0, said
    assert json.loads(said)["structuredContent"]["output"] == "hello"


async def test_the_typescript_sdk_drives_a_session_with_a_key(tmp_path: Path) -> None:
    program = PLACE / "drive.mjs"
    async with serving(tmp_path) as place:
        code, said = await run(str(program), place.url, KEY)
        assert code == 0, said
        told = json.loads(said.splitlines()[-1])
        assert told["outputs"] == ["x = 1", "x + 1"]
        assert told["sessions"] == ["from typescript"]
        assert told["progress"] >= 1
        assert told["refused"] == 401
        assert place.sessions["team"].known == {}, "it has deleted its session"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_python_sdk_drives_a_session_with_a_key(tmp_path: Path, mode: str) -> None:
    async with (
        serving(tmp_path) as place,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http,
        Client(streamable_http_client(place.url, http_client=http), mode=mode) as client,
    ):
        for code in ("x = 1", "x + 1"):
            answer = await client.call_tool("python_repl", {"code": code, "session_id": "from python"})
            assert answer.structured_content is not None
            assert answer.structured_content["output"] == code
        listed = await client.call_tool("python_list_sessions", {})
        assert listed.structured_content is not None
        assert [entry["session_id"] for entry in listed.structured_content["sessions"]] == ["from python"]
        await client.call_tool("python_delete_session", {"session_id": "from python"})
        assert place.sessions["team"].known == {}
