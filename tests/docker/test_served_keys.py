"""Keys against real sandboxes: what a reader's may not do, and what is left of a call whose key is taken away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestrator.settings import Settings
from tests.docker.test_serve import PATIENCE, client, keys_of, ordered, run, server
from tests.web.harness import MODERN, Wire, calling

READING: dict[str, dict[str, Any]] = {
    "python_list_sessions": {},
    "python_list_variables": {"session_id": "shop"},
    "python_result": {"session_id": "shop", "execution": 1},
}
USING: dict[str, dict[str, Any]] = {
    "python_repl": {"code": "x = 2", "session_id": "shop"},
    "python_clear_session": {"session_id": "shop"},
    "python_delete_session": {"session_id": "shop"},
}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """A raw connection to that server."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
    try:
        yield wire
    finally:
        await wire.close()


@pytest.mark.usefixtures("engine")
async def test_a_readers_key_wakes_and_changes_nothing_whichever_tool_it_calls(
    settings: Settings,
) -> None:
    keys = await keys_of(settings)
    async with server(settings, ORCHESTRATOR_SNAPSHOT_AFTER="0.3", ORCHESTRATOR_HIBERNATE_AFTER="0.5") as (url, _):
        reader = json.loads(await ordered(settings, "key", "create", "red", "reader", "--scope", "read"))
        key = next(str(value) for value in reader.values() if str(value).startswith("so_"))
        async with client(url, keys["red"]) as red, client(url, key) as reading:
            await run(red, "x = 1")

            async def state() -> str:
                listed = await reading.call_tool("python_list_sessions", {})
                assert listed.structured_content is not None
                return str(listed.structured_content["sessions"][0]["state"])

            async with asyncio.timeout(PATIENCE):
                while True:
                    if await state() == "hibernated":
                        break
                    await asyncio.sleep(0.2)
            assert {tool.name for tool in (await reading.list_tools()).tools} == READING.keys() | USING.keys()
            for tool, arguments in READING.items():
                assert not (await reading.call_tool(tool, arguments)).is_error, tool
            for tool, arguments in [*USING.items(), ("python_repl", {"code": "1"})]:
                refused = (await reading.call_tool(tool, arguments)).structured_content
                assert refused is not None
                assert refused["error"]["code"] == "forbidden", tool
            assert await state() == "hibernated"
            assert (await run(red, "x"))["value"] == "1"
            await red.call_tool("python_delete_session", {"session_id": "shop"})


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("way", ["key", "tenant"])
async def test_a_stream_ends_and_its_cell_with_it_when_its_key_is_revoked_or_its_tenant_disabled(
    settings: Settings, way: str
) -> None:
    keys = await keys_of(settings)
    async with server(settings) as (url, _), client(url, keys["blue"]) as blue:
        await run(blue, "x = 'blue'")
        async with connected(url) as wire:
            body = calling("import time\nx = 'before'\ntime.sleep(600)", "shop", progressToken=1)
            await wire.send(body=body, key=keys["red"], headers=MODERN)
            status, _ = await wire.head()  # it streams: a cell is under way
            assert status == 200
            order = ("key", "revoke", keys["red"].split("_")[1]) if way == "key" else ("tenant", "disable", "red")
            await ordered(settings, *order)
            async with asyncio.timeout(PATIENCE):
                assert [chunk async for chunk in wire.chunks()], "what was said stays said"
            await wire.send(body=calling("1", "shop"), key=keys["red"], headers=MODERN)
            assert (await wire.answer()).status == 401
        assert (await run(blue, "x"))["value"] == "'blue'", "nobody else notices"
        await blue.call_tool("python_delete_session", {"session_id": "shop"})
        if way == "key":
            again = json.loads(await ordered(settings, "key", "create", "red", "again"))
            key = next(str(value) for value in again.values() if str(value).startswith("so_"))
            async with client(url, key) as red:
                assert (await run(red, "x"))["value"] == "'before'", "interrupted, and nothing is lost"
                await red.call_tool("python_delete_session", {"session_id": "shop"})
