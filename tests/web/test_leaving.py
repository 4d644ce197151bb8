"""Calls that last: signs of life, cancellation, and clients that go away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.mcp.harness import INITIALIZE, eventually
from tests.web.harness import HANDSHAKE, KEY, MODERN, PATIENCE, Place, calling, serving


@asynccontextmanager
async def client_of(place: Place, mode: str) -> AsyncIterator[Client]:
    """The official client, with a key."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE) as http,
        Client(streamable_http_client(place.url, http_client=http), mode=mode) as client,
    ):
        yield client


both = pytest.mark.parametrize("mode", ["auto", "legacy"])


@both
async def test_progress_comes_while_a_call_runs(place: Place, mode: str) -> None:
    seen: list[float] = []

    async def noted(progress: float, total: float | None, message: str | None) -> None:
        del total, message
        seen.append(progress)

    async with client_of(place, mode) as client:
        await client.call_tool("python_repl", {"code": "sleep 0.5"}, progress_callback=noted)
    assert len(seen) >= 2
    assert seen == sorted(seen)


@both
async def test_cancelling_a_call_interrupts_it(place: Place, mode: str) -> None:
    async with client_of(place, mode) as client:
        call = asyncio.create_task(client.call_tool("python_repl", {"code": "sleep 60", "session_id": "s"}))
        await eventually(lambda: "started s" in place.events, "the call runs")
        call.cancel()
        await eventually(lambda: "cancelled s" in place.events, "it is interrupted")
        answer = await client.call_tool("python_repl", {"code": "still there"})
        assert not answer.is_error
        await asyncio.wait([call])


async def test_on_the_newest_revision_leaving_is_cancelling(place: Place) -> None:
    wire = await place.connect()
    await wire.send(body=calling("sleep 60", "s"), headers=MODERN)
    await eventually(lambda: "started s" in place.events, "the call runs")
    wire.vanish()
    await eventually(lambda: "cancelled s" in place.events, "it is interrupted")


async def older_call(place: Place, code: str) -> Any:  # noqa: ANN401 - a raw connection
    """A call of the handshake's revisions, under way."""
    answer = await place.request(body=INITIALIZE)
    headers = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": HANDSHAKE}
    await place.request(body={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    wire = await place.connect()
    await wire.send(body=calling(code, "s"), headers=headers)
    await eventually(lambda: "started s" in place.events, "the call runs")
    return wire


async def test_on_older_revisions_a_call_whose_client_has_gone_ends_after_a_grace(tmp_path: Path) -> None:
    async with serving(tmp_path, grace=0.5) as place:
        wire = await older_call(place, "sleep 60")
        wire.vanish()
        await eventually(lambda: not len(place.site.lines), "its leaving is noticed")
        assert "cancelled s" not in place.events, "it may come back"
        await eventually(lambda: "cancelled s" in place.events, "nobody came back")


async def test_on_older_revisions_a_call_ends_well_within_the_grace(tmp_path: Path) -> None:
    async with serving(tmp_path, grace=30) as place:
        wire = await older_call(place, "sleep 0.5")
        wire.vanish()
        await asyncio.sleep(0.7)
        assert "cancelled s" not in place.events


async def test_a_client_may_come_back_without_its_protocol_session_and_go_on(place: Place) -> None:
    for _ in range(2):
        async with client_of(place, "legacy") as client:
            answer = await client.call_tool("python_repl", {"code": "x", "session_id": "s"})
            assert not answer.is_error
    assert place.sessions["team"].known == {"s": 2}


async def test_an_answer_in_a_stream_is_one_message(place: Place) -> None:
    wire = await place.connect()
    await wire.send(body=calling("sleep 0.2", "s", progressToken=7), headers=MODERN)
    answer = await wire.answer()
    messages = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert [message.get("method") for message in messages[:-1]] == ["notifications/progress"] * (len(messages) - 1)
    assert messages[-1]["id"] == 1
    await wire.close()


async def test_on_the_newest_revision_a_client_with_a_key_for_repetitions_has_time_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, grace=0.5) as place:
        wire = await place.connect()
        body = calling("sleep 60", "s")
        body["params"]["arguments"]["idempotency_key"] = "one"
        await wire.send(body=body, headers=MODERN)
        await eventually(lambda: "started s" in place.events, "the call runs")
        wire.vanish()
        await asyncio.sleep(0.2)
        assert "cancelled s" not in place.events
        await eventually(lambda: "cancelled s" in place.events, "nobody came back")
