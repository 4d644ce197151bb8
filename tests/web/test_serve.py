"""The server as a process: its signals, its bounds in time, its log, and the relays that join it."""

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.mcp.harness import PATIENCE, Installation, Relay, call, eventually
from tests.web.harness import KEY, MODERN, Wire, calling

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("fake_server.py")


class Server:
    """A server process."""

    def __init__(self, process: asyncio.subprocess.Process, installation: Installation) -> None:
        self.process = process
        self.installation = installation
        self.address = ""
        self.wires: list[Wire] = []

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2].partition("/")[0])

    @classmethod
    async def start(cls, installation: Installation, **settings: str) -> "Server":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **installation.environment,
                "PYTHONPATH": str(ROOT),
                "ORCHESTRATOR_HTTP_PORT": "0",
                **{f"ORCHESTRATOR_{name.upper()}": value for name, value in settings.items()},
            },
        )
        server = cls(process, installation)
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            server.address = (await process.stdout.readline()).decode().strip()
        return server

    async def connect(self, trusting: ssl.SSLContext | None = None) -> Wire:
        name = None if trusting is None else "localhost"
        self.wires.append(
            Wire(*await asyncio.open_connection("127.0.0.1", self.port, ssl=trusting, server_hostname=name))
        )
        return self.wires[-1]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def end(self) -> str:
        """Wait for its end; what it logged."""
        for wire in self.wires:
            wire.writer.close()
        async with asyncio.timeout(PATIENCE):
            _, log = await self.process.communicate()
        return log.decode()


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Start]:
    """Start servers over one installation; all are put away."""
    installation = Installation(tmp_path_factory.mktemp("s"))
    servers: list[Server] = []

    async def begin(**settings: str) -> Server:
        servers.append(await Server.start(installation, **settings))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.returncode is None:
            server.signal(signal.SIGTERM)
            await server.end()
    run = installation.settings.runtime_dir
    assert not run.exists() or not list(run.iterdir()), "a socket was left"


async def test_a_call_under_way_comes_to_its_end_before_the_server_does(start: Start) -> None:
    server = await start()
    wire = await server.connect()
    await wire.send(body=calling("sleep 0.5", "s"), headers=MODERN)
    await eventually(lambda: "started s" in server.installation.events, "the call runs")
    server.signal(signal.SIGTERM)
    assert (await wire.answer()).json["result"]["structuredContent"]["status"] == "ok"
    await server.end()
    assert server.process.returncode == 0
    assert server.installation.events == ["started s", "closing", "closed"]


async def test_a_call_that_outlasts_the_drain_is_interrupted(start: Start) -> None:
    server = await start(serve_drain="0.2")
    wire = await server.connect()
    await wire.send(body=calling("sleep 60", "s"), headers=MODERN)
    await eventually(lambda: "started s" in server.installation.events, "the call runs")
    server.signal(signal.SIGTERM)
    assert (await wire.answer()).status == 503
    await server.end()
    assert server.installation.events == ["started s", "cancelled s", "closing", "closed"]


async def test_a_second_signal_hurries_the_drain_and_the_end(start: Start) -> None:
    server = await start(serve_drain="3600")
    (server.installation.root / "slow").touch()
    wire = await server.connect()
    await wire.send(body=calling("sleep 60", "s"), headers=MODERN)
    await eventually(lambda: "started s" in server.installation.events, "the call runs")
    server.signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    server.signal(signal.SIGTERM)
    await server.end()
    assert server.process.returncode == 0


async def test_nobody_is_let_in_while_it_ends(start: Start) -> None:
    server = await start()
    busy = await server.connect()
    await busy.send(body=calling("sleep 1", "s"), headers=MODERN)
    idle = await server.connect()
    await idle.send("GET", "/healthz")
    await idle.answer()
    await eventually(lambda: "started s" in server.installation.events, "the call runs")
    server.signal(signal.SIGTERM)
    await idle.ended()
    with pytest.raises(OSError):  # noqa: PT011 - however the kernel says it
        await server.connect()
    assert (await busy.answer()).status == 200
    await server.end()


async def test_a_second_server_says_who_owns_the_data(start: Start) -> None:
    first = await start()
    second = await start()
    log = await second.end()
    assert second.process.returncode == 1
    assert f"Process {first.process.pid} owns the data directory" in log
    assert "orchestrator serve" in log


async def test_relays_join_the_server_instead_of_starting_an_owner(start: Start) -> None:
    server = await start()
    relay = await Relay.spawn(server.installation)
    try:
        await relay.initialize()
        await relay.send(call(2, "x", "s"))
        assert (await relay.receive())["result"]["structuredContent"]["session_id"] == "s"
        assert server.installation.owner_pid == server.process.pid
        server.signal(signal.SIGTERM)
        await server.end()
    finally:
        await relay.put_away()


async def test_the_log_is_json_where_no_terminal_is_and_holds_nothing_secret(start: Start) -> None:
    server = await start()
    wire = await server.connect()
    await wire.send(body=calling("crash"), headers=MODERN)
    await wire.answer()
    await wire.send(body=calling("1"), headers=MODERN, key="a wrong key")
    await wire.answer()
    server.signal(signal.SIGTERM)
    log = await server.end()
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any("serves" in line["message"] for line in lines)
    assert KEY not in log
    assert "a wrong key" not in log


async def test_a_port_that_is_taken_is_named(start: Start) -> None:
    first = await start()
    second = await start(http_port=str(first.port))
    assert f"Port {first.port} at 127.0.0.1 cannot be had" in await second.end()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"http_host": "0.0.0.0"}, "ORCHESTRATOR_HTTP_CERTIFICATE"),  # noqa: S104 - it is refused
        ({"http_host": "::", "http_trusted_proxies": "10.0.0.1"}, "ORCHESTRATOR_HTTP_NAMES"),
        ({"http_certificate_key": "/k"}, "ORCHESTRATOR_HTTP_CERTIFICATE is not"),
        ({"http_certificate": "/absent"}, "The certificate /absent cannot be used"),
        ({"http_trusted_proxies": "nobody"}, "ORCHESTRATOR_HTTP_TRUSTED_PROXIES"),
        ({"metrics_bind": "somewhere"}, "ORCHESTRATOR_METRICS_BIND"),
    ],
)
async def test_a_server_that_would_not_be_safe_does_not_start(
    start: Start, settings: dict[str, str], sentence: str
) -> None:
    server = await start(**settings)
    log = await server.end()
    assert server.process.returncode == 1
    assert sentence in log


async def test_tls_is_spoken_with_a_certificate(start: Start, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout - -days 2 -subj /CN=localhost"
    making = await asyncio.create_subprocess_exec(
        *command.split(), "-addext", "subjectAltName=DNS:localhost", stdout=-1, stderr=-3
    )
    made, _ = await making.communicate()
    both.write_bytes(made)
    server = await start(http_certificate=str(both))
    assert server.address.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=str(both))
    wire = await server.connect(trusting)
    await wire.send("GET", "/healthz")
    assert (await wire.answer()).status == 200


async def test_figures_have_a_bind_of_their_own_where_one_is_set(start: Start) -> None:
    server = await start(metrics_bind="127.0.0.1:0")
    wire = await server.connect()
    await wire.send("GET", "/metrics", key="so_cc_admin")
    assert (await wire.answer()).status == 404


async def test_a_proxy_that_is_trusted_tells_whom_failed_attempts_are_counted_for(start: Start) -> None:
    server = await start(http_trusted_proxies="127.0.0.0/8", http_failed_attempts="1")
    wire = await server.connect()
    seen = []
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        await wire.send(body=calling("1"), headers={**MODERN, "X-Forwarded-For": address}, key="wrong")
        seen.append((await wire.answer()).status)
    assert seen == [401, 429, 401]


async def test_nobody_else_is_believed_about_addresses(start: Start) -> None:
    server = await start(http_failed_attempts="1")
    wire = await server.connect()
    seen = []
    for address in ("192.0.2.1", "192.0.2.2"):
        await wire.send(body=calling("1"), headers={**MODERN, "X-Forwarded-For": address}, key="wrong")
        seen.append((await wire.answer()).status)
    assert seen == [401, 429]
