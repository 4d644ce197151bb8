"""Real commands about real sessions: against a server that runs, and as the owner where none does."""

import asyncio
import json
import os
import sys
from typing import Any

import pytest

from orchestrator.app import Orchestrator
from orchestrator.settings import Settings
from tests.docker.test_serve import client, keys_of, run, server

PATIENCE = 120.0


async def ordered(settings: Settings, *order: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """What a command prints as JSON, and what it says beside that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", *order, "--json", "--data-dir", str(settings.data_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir)},
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return [json.loads(line) for line in out.splitlines()], err.decode()


@pytest.mark.usefixtures("engine")
async def test_an_operator_steers_sessions_of_a_server_that_runs(settings: Settings) -> None:
    keys = await keys_of(settings)
    red = ("shop", "--tenant", "red")
    async with server(settings) as (url, process):
        async with client(url, keys["red"]) as speaking:
            await run(speaking, "x = 41")
        listed, said = await ordered(settings, "session", "list")
        assert [(one["session"], one["tenant"], one["state"]) for one in listed] == [("shop", "red", "ready")]
        assert str(process.pid) in said
        ((variable,), _) = await ordered(settings, "session", "variables", *red)
        assert (variable["name"], variable["type"]) == ("x", "int")
        ((first,), _) = await ordered(settings, "session", "snapshot", *red)
        assert first["execution"] == 1
        assert (await ordered(settings, "session", "hibernate", *red))[0][0]["hibernated"] is True
        assert (await ordered(settings, "session", "hibernate", *red))[0][0]["hibernated"] is False
        assert (await ordered(settings, "session", "show", *red))[0][0]["state"] == "hibernated"
        await ordered(settings, "session", "wake", *red)
        assert (await ordered(settings, "session", "show", *red))[0][0]["state"] == "ready"
        await ordered(settings, "session", "fork", "shop", "copy", "--tenant", "red")
        assert (await ordered(settings, "session", "interrupt", *red))[0][0]["interrupted"] is False
        _, said = await ordered(settings, "session", "delete", *red, code=4)
        assert "--yes" in said
        await ordered(settings, "session", "delete", *red, "--yes")
        await ordered(settings, "session", "show", *red, code=3)
        ((status,), _) = await ordered(settings, "status")
        assert status["ready"] == {"engine": True, "store": True, "image": True}
        ((gone,), _) = await ordered(settings, "tenant", "delete", "red", "--yes")
        assert gone["sessions"] == 1
        acts = [entry["act"] for entry in (await ordered(settings, "audit", "tail", "-n", "9"))[0]]
        assert {"hibernate", "wake", "fork", "delete", "delete tenant"} <= set(acts)


@pytest.mark.usefixtures("engine")
async def test_a_container_is_found_by_whose_it_is_and_its_session_outlives_it(settings: Settings) -> None:
    keys = await keys_of(settings)
    async with (
        server(settings, ORCHESTRATOR_SNAPSHOT_AFTER="3600") as (url, process),
        client(url, keys["red"]) as speaking,
    ):
        await run(speaking, "x = 41")
        await ordered(settings, "session", "snapshot", "shop", "--tenant", "red")
        await run(speaking, "x = 42")
        ((listed,), said) = await ordered(settings, "container", "list")
        assert (listed["session"], listed["tenant"], listed["running"]) == ("shop", "red", True)
        assert str(process.pid) in said
        prefix = listed["sandbox"][:8]
        ((one,), _) = await ordered(settings, "container", "inspect", listed["container"][:10])
        assert one == listed
        _, said = await ordered(settings, "container", "kill", prefix, code=4)
        assert "session shop, tenant red" in said
        assert (await ordered(settings, "container", "kill", prefix, "--yes"))[0][0]["removed"] is True
        answer = await run(speaking, "x")
        assert answer["value"] == "41"
        assert "execution 2" in str(answer["notes"])
        await ordered(settings, "container", "kill", prefix, "--yes", code=3)
        _, said = await ordered(settings, "container", "kill", "a", "--yes", code=2)
        assert "too short" in said
    assert (await ordered(settings, "container", "list"))[0] == []
    async with Orchestrator.open(settings) as o:
        await o.sessions.delete("shop", tenant=(await o.tenants.find("red")).id)


@pytest.mark.usefixtures("engine")
async def test_where_no_server_runs_a_command_is_the_owner(settings: Settings) -> None:
    async with Orchestrator.open(settings) as o:
        await o.execute("x = 41", session_id="s")
        await o.execute("y = 1", session_id="s")
    for order in ("variables", "executions", "history"):
        lines, said = await ordered(settings, "session", order, "s")
        assert lines
        assert "no server runs" in said
    ((woken,), _) = await ordered(settings, "session", "wake", "s")
    assert woken["awake"] is True
    assert (await ordered(settings, "session", "show", "s"))[0][0]["state"] == "hibernated"
    await ordered(settings, "reap", "--dry-run")
    await ordered(settings, "session", "clear", "s", "--dry-run")
    await ordered(settings, "session", "clear", "s", "--yes")
    assert (await ordered(settings, "session", "variables", "s"))[0] == []
    both = await asyncio.gather(*(ordered(settings, "session", "show", "s") for _ in range(2)))
    assert [lines[0]["session"] for lines, _ in both] == ["s", "s"]
    await ordered(settings, "session", "delete", "s", "--yes")
