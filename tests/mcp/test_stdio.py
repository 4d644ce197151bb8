"""A real MCP client, the real relay as its server, a real owner process behind it."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client
from mcp_types import CallToolResult

from orchestrator import __version__, places
from tests.mcp.harness import INITIALIZE, PATIENCE, Installation, Relay, call, eventually

Mode = Literal["legacy", "auto"]
MODES: list[Mode] = ["legacy", "auto"]


def fields(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict)
    return result.structured_content


Spawn = Callable[..., Awaitable[Relay]]


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_starts_an_owner_and_is_served(installation: Installation, mode: Mode) -> None:
    async with Client(installation.server, mode=mode) as client:
        result = await client.call_tool("python_repl", {"code": "hello", "session_id": "s"})
        assert fields(result)["output"] == "hello"
        assert installation.owner_pid is not None
        assert client.instructions is not None


async def test_two_clients_share_sessions_and_one_that_is_killed_harms_nobody(
    installation: Installation, spawn: Spawn
) -> None:
    victim = await spawn()
    await victim.initialize()
    async with Client(installation.server) as survivor:
        await victim.send(call(2, "sleep 60", "shared"))
        await eventually(lambda: "started shared" in installation.events, "the victim's call starts")
        running = asyncio.create_task(survivor.call_tool("python_repl", {"code": "sleep 1", "session_id": "mine"}))
        victim.process.kill()
        await victim.wait()
        await eventually(lambda: "cancelled shared" in installation.events, "the killed client's call is interrupted")
        result = await running
        listed = await survivor.call_tool("python_list_sessions", {})
    assert not result.is_error
    assert {session["session_id"] for session in fields(listed)["sessions"]} == {"shared", "mine"}
    assert "cancelled mine" not in installation.events


async def test_five_relays_at_once_start_one_owner(installation: Installation, spawn: Spawn) -> None:
    relays = [await spawn() for _ in range(5)]
    for relay in relays:
        await relay.send(INITIALIZE)
    answers = [await relay.receive() for relay in relays]
    for relay in relays:
        await relay.close()
    assert {answer["result"]["serverInfo"]["name"] for answer in answers} == {"session-orchestrator"}
    assert installation.events.count("opened") == 1


async def test_standard_output_carries_nothing_but_the_protocol(spawn: Spawn) -> None:
    relay = await spawn()
    await relay.send(INITIALIZE)
    first = await relay.receive()
    await relay.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    await relay.send(call(2, "print", "s"))
    second = await relay.receive()
    assert (first["id"], second["id"]) == (1, 2)
    assert (await relay.close())[0] == b""
    assert relay.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_the_relay_and_interrupts_its_calls(
    installation: Installation, spawn: Spawn, number: int
) -> None:
    relay = await spawn()
    await relay.initialize()
    await relay.send(call(2, "sleep 60", "s"))
    await eventually(lambda: "started s" in installation.events, "the call starts")
    relay.process.send_signal(number)
    assert await relay.wait() == 128 + number
    await eventually(lambda: "cancelled s" in installation.events, "the call is interrupted")
    assert installation.owner_pid is not None
    await relay.close()


async def test_the_end_of_input_ends_the_relay_promptly_and_interrupts_its_calls(
    installation: Installation, spawn: Spawn
) -> None:
    relay = await spawn()
    await relay.initialize()
    await relay.send(call(2, "sleep 60", "s"))
    await eventually(lambda: "started s" in installation.events, "the call starts")
    async with asyncio.timeout(2):
        await relay.close()
    assert relay.process.returncode == 0
    await eventually(lambda: "cancelled s" in installation.events, "the call is interrupted")


async def test_bad_lines_are_answered_and_the_connection_goes_on(spawn: Spawn) -> None:
    relay = await spawn()
    await relay.send(b"this is not JSON")
    assert (await relay.receive())["error"]["code"] == -32700
    await relay.send(b"[" * 100_000)
    assert (await relay.receive())["error"]["code"] == -32700
    await relay.send(b'{"id": 7, "method": 3}')
    refused = await relay.receive()
    assert (refused["id"], refused["error"]["code"]) == (7, -32600)
    await relay.send(b"\xff\xfe")
    assert (await relay.receive())["error"]["code"] == -32700
    await relay.send(b"x" * (17 * 1024 * 1024))
    assert "at most" in (await relay.receive())["error"]["message"]
    await relay.send(INITIALIZE)
    assert (await relay.receive())["id"] == 1
    await relay.close()


@pytest.mark.parametrize("identity", [b'"\\ud800"', b"1.5", b"null", b"true", b"[1]"])
async def test_an_id_that_no_answer_could_carry_is_refused_and_the_connection_goes_on(
    spawn: Spawn, identity: bytes
) -> None:
    relay = await spawn()
    await relay.initialize()
    await relay.send(b'{"jsonrpc": "2.0", "id": %s, "method": "ping"}' % identity)
    refused = await relay.receive()
    assert (refused["id"], refused["error"]["code"]) == (None, -32600)
    await relay.send(call(3, "after", "s"))
    assert (await relay.receive())["result"]["structuredContent"]["output"] == "after"
    await relay.close()


async def test_a_lone_surrogate_in_code_is_refused_in_words(spawn: Spawn) -> None:
    relay = await spawn()
    await relay.initialize()
    await relay.send(json.dumps(call(2, "x = '\ud800'", "s")).encode())
    answer = (await relay.receive())["result"]
    assert answer["isError"]
    assert answer["structuredContent"]["error"]["code"] == "invalid_request"
    await relay.send(call(3, "after", "s"))
    assert (await relay.receive())["result"]["structuredContent"]["output"] == "after"
    await relay.close()


async def test_a_client_that_does_not_read_stalls_nobody_else(installation: Installation, spawn: Spawn) -> None:
    stalled = await spawn()
    await stalled.initialize()
    for number in range(2, 42):
        await stalled.send(call(number, "flood 200000", f"s{number}"))
    async with Client(installation.server) as client:
        async with asyncio.timeout(PATIENCE):
            result = await client.call_tool("python_repl", {"code": "still here"})
    assert fields(result)["output"] == "still here"
    stalled.process.kill()
    await stalled.close()


async def test_an_owner_that_cannot_start_says_why_on_standard_error(spawn: Spawn) -> None:
    relay = await spawn(FAKE_FAILURE="No Docker Engine answers.")
    out, err = await relay.close()
    assert (relay.process.returncode, out) == (1, b"")
    assert b"No Docker Engine answers." in err


async def test_a_misspelt_setting_is_named_on_standard_error(spawn: Spawn) -> None:
    relay = await spawn(ORCHESTRATOR_OWNER_LINGR="5")
    out, err = await relay.close()
    assert (relay.process.returncode, out) == (1, b"")
    assert b"ORCHESTRATOR_OWNER_LINGR: there is no such setting (is ORCHESTRATOR_OWNER_LINGER meant?)" in err


async def test_an_owner_that_ended_leaves_the_next_relay_to_start_another(installation: Installation) -> None:
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
    first = installation.owner_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: installation.owner_pid is None, "the killed owner's lock is free")
    # Its socket file still lies there.
    assert installation.settings.owner_socket.exists()
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
    assert installation.owner_pid not in (None, first)


async def test_a_relay_that_comes_while_the_owner_ends_gets_the_next_one(installation: Installation) -> None:
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
    pid = installation.owner_pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    async with Client(installation.server) as client:
        result = await client.call_tool("python_repl", {"code": "again"})
    assert fields(result)["output"] == "again"


async def test_a_signal_ends_the_owner_and_its_relays_say_so(installation: Installation, spawn: Spawn) -> None:
    relay = await spawn()
    await relay.initialize()
    await relay.send(call(2, "sleep 60", "s"))
    await eventually(lambda: "started s" in installation.events, "the call starts")
    installation.stop_owner()
    assert await relay.wait() == 1
    assert installation.events[-2:] == ["cancelled s", "closed"]
    assert not installation.settings.owner_socket.exists()
    _, err = await relay.close()
    assert b"connection to the owner process was closed" in err


async def test_an_owner_reads_its_configuration_again_at_a_hang_up(installation: Installation, spawn: Spawn) -> None:
    relay = await spawn()
    await relay.initialize()
    pid = installation.owner_pid
    assert pid is not None
    os.kill(pid, signal.SIGHUP)
    await eventually(lambda: "reloaded" in installation.events, "the configuration is read again")
    await relay.send(call(2, "print", "s"))
    assert (await relay.receive())["id"] == 2
    await relay.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_cuts_the_owners_end_short(installation: Installation, spawn: Spawn, number: int) -> None:
    (installation.root / "slow").touch()
    relay = await spawn()
    await relay.initialize()
    pid = installation.owner_pid
    assert pid is not None
    os.kill(pid, number)
    await eventually(lambda: "closing" in installation.events, "the end begins")
    await asyncio.sleep(0.2)
    assert installation.events[-1] == "closing"
    os.kill(pid, number)
    await eventually(lambda: installation.owner_pid is None, "the owner ends")
    assert installation.events[-2:] == ["closing", "closed"]


async def test_a_signal_to_an_owner_that_ends_by_itself_leaves_its_end_alone(
    installation: Installation, spawn: Spawn
) -> None:
    (installation.root / "slow").touch()
    relay = await spawn(ORCHESTRATOR_OWNER_LINGER="0.3")
    await relay.initialize()
    await relay.close()
    await eventually(lambda: "closing" in installation.events, "the end begins")
    pid = installation.owner_pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    await asyncio.sleep(0.3)
    assert installation.events[-1] == "closing"
    os.kill(pid, signal.SIGTERM)
    await eventually(lambda: installation.owner_pid is None, "the owner ends")


async def test_an_owner_ends_by_itself_when_its_last_client_left(installation: Installation, spawn: Spawn) -> None:
    relay = await spawn(ORCHESTRATOR_OWNER_LINGER="0.3")
    await relay.initialize()
    await relay.close()
    await eventually(lambda: installation.owner_pid is None, "the owner ends")
    assert installation.events == ["opened", "closed"]
    assert not installation.settings.owner_socket.exists()


async def test_an_owner_outlives_a_client_that_kills_its_descendants(installation: Installation) -> None:
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
        pid = installation.owner_pid
        assert pid is not None
        assert "PPid:\t1\n" in Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240 - no disk behind it
        assert os.getsid(pid) != os.getsid(0)


async def test_a_library_that_owns_the_directory_is_named_with_its_process(
    installation: Installation, spawn: Spawn
) -> None:
    program = (
        "import pathlib, sys; from orchestrator.adapters.data_directory import DataDirectory\n"
        "own = DataDirectory.own(pathlib.Path(sys.argv[1]), kind='library', version='1')\n"
        "print('owned', flush=True); sys.stdin.read()"
    )
    library = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(installation.settings.data_dir),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert library.stdout is not None
    await library.stdout.readline()
    relay = await spawn()
    out, err = await relay.close()
    assert (relay.process.returncode, out) == (1, b"")
    assert f"Process {library.pid}".encode() in err
    assert b"library" in err
    await library.communicate(b"")


async def test_a_relay_with_another_runtime_directory_finds_the_owner(installation: Installation, spawn: Spawn) -> None:
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
        elsewhere = installation.root / "elsewhere"
        relay = await spawn(**{places.RUNTIME_DIR_VARIABLE: str(elsewhere)})
        await relay.send(INITIALIZE)
        assert (await relay.receive())["id"] == 1
        await relay.close()
    assert installation.events.count("opened") == 1


async def test_an_unknown_protocol_version_is_refused_in_words(installation: Installation) -> None:
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
        for greeting in (b'{"protocol":"mcp","version":99}\n', b"GET / HTTP/1.1\n", b"[]\n", b'{"protocol":1}\n'):
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(PATIENCE)
                link.connect(str(installation.settings.owner_socket))
                link.sendall(greeting)
                answer = json.loads(link.makefile().readline())
            assert answer["ok"] is False
            assert answer["error"].endswith(".")


async def test_the_socket_and_the_log_are_closed_to_other_users(installation: Installation) -> None:
    async with Client(installation.server) as client:
        await client.call_tool("python_repl", {"code": "x"})
        settings = installation.settings
        modes = [
            stat.S_IMODE(path.stat().st_mode)
            for path in (settings.owner_socket, settings.data_dir / places.LOG_NAME, settings.data_dir)
        ]
    assert modes == [0o600, 0o600, 0o700]


def test_the_relay_imports_nothing_heavy(installation: Installation) -> None:
    program = (
        "import sys; from orchestrator.__main__ import main; from orchestrator.faces import relay\n"
        "heavy = {'mcp', 'typer', 'pydantic', 'asyncio', 'docker', 'anyio', 'rich', 'json', 'typing', 'subprocess'}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(n for n in sys.modules if n.startswith('orchestrator')))"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.check_output(command, text=True, env=installation.environment)
    ours = ("", ".__main__", ".faces", ".faces.relay", ".faces.relay_greeting", ".places")
    assert printed.strip() == f"[] {[f'orchestrator{name}' for name in ours]}"


def test_help_and_wrong_options_do_not_touch_standard_output(installation: Installation) -> None:
    for option, code in (("--help", 0), ("--dta-dir=x", 2), ("--data-dir", 2)):
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "mcp", option],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=installation.environment,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, "")
        assert "Usage: orchestrator mcp" in done.stderr


def test_greeting_and_welcome_name_the_present_version() -> None:
    from orchestrator.faces import relay_greeting  # noqa: PLC0415 - likewise

    assert json.loads(relay_greeting.GREETING) == {"protocol": "mcp", "version": 1, "product": __version__}
    assert json.loads(relay_greeting.WELCOME)["product"] == __version__
