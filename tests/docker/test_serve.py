"""A team's server whole: `orchestrator serve` with real keys, real sandboxes and the official client."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER, Scope
from orchestrator.settings import Settings

PATIENCE = 60.0


async def keys_of(settings: Settings) -> dict[str, str]:
    """Two tenants with a key each, and one that may look at figures."""
    made = {}
    async with Orchestrator.open(settings) as o:
        for name in ("red", "blue"):
            await o.tenants.create(name, by=LOCAL_CALLER)
            made[name] = (await o.tenants.create_key(name, "first", by=LOCAL_CALLER)).token
        made["admin"] = (
            await o.tenants.create_key("red", "figures", by=LOCAL_CALLER, scopes=frozenset[Scope]({"admin"}))
        ).token
    return made


@asynccontextmanager
async def server(
    settings: Settings, *, log: Path | None = None, **variables: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A server process over those settings, and the address that it names; `log` gets what it writes there."""
    errors = asyncio.subprocess.PIPE if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", "serve", "--data-dir", str(settings.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env={
            **os.environ,
            "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir),
            "ORCHESTRATOR_HTTP_PORT": "0",
            **variables,
        },
    )
    if log is not None:
        os.close(errors)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            told = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", told)
        assert found, (await process.communicate())[1].decode()
        yield found[0], process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
    assert process.returncode == 0, said.decode() if said else log


@asynccontextmanager
async def client(url: str, key: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as http,
        Client(streamable_http_client(url, http_client=http)) as speaking,
    ):
        yield speaking


async def run(speaking: Client, code: str, session_id: str = "shop") -> dict[str, object]:
    answer = await speaking.call_tool("python_repl", {"code": code, "session_id": session_id})
    told: dict[str, object] | None = answer.structured_content
    assert told is not None
    return told


@pytest.mark.usefixtures("engine")
async def test_two_tenants_work_apart_and_go_on_after_a_restart(settings: Settings) -> None:
    keys = await keys_of(settings)
    async with server(settings) as (url, _):
        async with client(url, keys["red"]) as red, client(url, keys["blue"]) as blue:
            await run(red, "x = 'red'")
            await run(blue, "x = 'blue'")
            assert (await run(red, "x"))["value"] == "'red'"
            assert (await run(blue, "x"))["value"] == "'blue'"
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {keys['admin']}"}) as http:
            figures = (await http.get(url.replace("/mcp", "/metrics"))).text
            ready = await http.get(url.replace("/mcp", "/readyz"))
        assert 'orchestrator_executions_total{outcome="ok"} 4.0' in figures
        assert 'orchestrator_sessions{state="ready"} 2.0' in figures
        assert 'orchestrator_stage_seconds_count{stage="start"} 2.0' in figures
        assert (ready.status_code, ready.text) == (200, "serving: ok\nengine: ok\nstore: ok\nimage: ok\n")
    async with server(settings) as (url, _), client(url, keys["red"]) as red:
        assert (await run(red, "x"))["value"] == "'red'"
        await red.call_tool("python_delete_session", {"session_id": "shop"})
    async with Orchestrator.open(settings) as o:
        tenant = await o.tenants.find("blue")
        await o.sessions.delete("shop", tenant=tenant.id)


async def ordered(settings: Settings, *order: str) -> str:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", *order, "--data-dir", str(settings.data_dir), "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir)},
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


@pytest.mark.usefixtures("engine")
async def test_keys_are_made_and_revoked_while_the_server_runs(settings: Settings) -> None:
    async with server(settings) as (url, _):
        await ordered(settings, "tenant", "create", "red")
        made = json.loads(await ordered(settings, "key", "create", "red", "laptop"))
        key = next(str(value) for value in made.values() if str(value).startswith("so_"))
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http:
            listing = {"Accept": "application/json, text/event-stream"}
            assert (await http.post(url, json={}, headers=listing)).status_code == 400
            await ordered(settings, "key", "revoke", key.split("_")[1])
            assert (await http.post(url, json={}, headers=listing)).status_code == 401


@pytest.mark.usefixtures("engine")
async def test_a_changed_configuration_counts_for_the_next_call_and_ends_no_session(
    settings: Settings, tmp_path: Path
) -> None:
    keys = await keys_of(settings)
    config = tmp_path / "config.toml"
    await asyncio.to_thread(config.write_text, "default_time_limit = 60\n")
    async with server(settings, ORCHESTRATOR_CONFIG=str(config)) as (url, process), client(url, keys["red"]) as red:
        assert (await run(red, "x = 'kept'"))["status"] == "ok"
        await asyncio.to_thread(config.write_text, "default_time_limit = 0.3\n[sandbox]\npids = 64\n")
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            while (answer := await run(red, "import time\ntime.sleep(5)"))["status"] == "ok":
                pass
        assert answer["status"] == "error"
        assert "0.3" in str(answer["error"])
        assert (await run(red, "x"))["value"] == "'kept'"


@pytest.mark.usefixtures("engine")
async def test_a_repeated_call_runs_once_and_a_broken_one_is_picked_up(settings: Settings) -> None:
    keys = await keys_of(settings)
    async with server(settings) as (url, _), client(url, keys["red"]) as red:
        await run(red, "runs = 0")
        once = {"code": "runs += 1; runs", "session_id": "shop", "idempotency_key": "one"}
        answers = [(await red.call_tool("python_repl", once)).structured_content for _ in range(3)]
        assert [answer and (answer["value"], answer["execution"]) for answer in answers] == [("1", 2)] * 3
        assert (await run(red, "runs"))["value"] == "1"
        call = asyncio.create_task(run(red, "import time\nprint('so far', flush=True)\ntime.sleep(600)"))
        await asyncio.sleep(2)
        call.cancel()
        await asyncio.wait([call])
        async with asyncio.timeout(PATIENCE):
            while True:
                picked = await red.call_tool("python_result", {"session_id": "shop", "execution": 4})
                told: dict[str, Any] = picked.structured_content or {}
                if told["error"]["code"] != "busy":
                    break
                await asyncio.sleep(0.2)
        assert (told["error"]["code"], told["output"]) == ("interrupted", "so far\n")
        await red.call_tool("python_delete_session", {"session_id": "shop"})
