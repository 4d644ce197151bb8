"""What HTTP adds: a warm cell through the server and through the library, beside a no-op tool of the same SDK; and many
clients over many sessions, beside the same number of callers of the library.

Run by `make bench`. Times in milliseconds; a raw client that keeps its connection, on the newest revision.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
import uvloop
from mcp.server import MCPServer

from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.settings import Settings
from tests.web import harness
from tests.web.harness import MODERN, Wire, calling

harness.PATIENCE = 300.0  # a bench waits for as long as a loaded machine takes

CALLS = 500
CLIENTS, SESSIONS, EACH = 200, 50, 10
CELL = "x = globals().get('x', 0) + 1"
# Bound by the engine: the sandbox is at work for a while, as real cells are, and the host waits for it.
BUSY = "import time\nend = time.process_time() + 0.02\nwhile time.process_time() < end: pass"
KINDS = ((CELL, "cells of nothing"), (BUSY, "cells of 20 ms"))


def no_op() -> None:
    """A server of the bare SDK with a tool that does nothing, on the same loop and parser, until it is killed."""
    server = MCPServer("bare", log_level="WARNING")

    @server.tool()
    def python_repl(code: str) -> str:
        return code

    config = uvicorn.Config(
        server.streamable_http_app(), port=int(sys.argv[2]), log_level="warning", loop="uvloop", http="httptools"
    )
    uvicorn.Server(config).run()


@asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """That, until the block ends."""
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        yield made
    finally:
        made.send_signal(signal.SIGTERM)
        await made.wait()


async def connected(port: int) -> Wire:
    """A connection, as soon as somebody listens."""
    while True:
        try:
            return Wire(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            await asyncio.sleep(0.05)


async def milliseconds(act: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """How long each of so many calls takes, one after the other."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def told(name: str, taken: list[float]) -> float:
    """Print what they came to; the median."""
    centiles = statistics.quantiles(taken, n=100)
    print(f"{name:<44} p50 {centiles[49]:7.2f}   p95 {centiles[94]:7.2f}   p99 {centiles[98]:7.2f}")
    return centiles[49]


def through(wire: Wire, key: str, session_id: str | None = "warm", code: str = CELL) -> Callable[[], Awaitable[object]]:
    """A cell over that connection."""
    body = calling(code, session_id)

    async def call() -> None:
        await wire.send(body=body, key=key, headers={**MODERN, "Host": "127.0.0.1:80"})
        answer = await wire.answer()
        assert answer.status == 200, answer
        # What takes long comes as a stream, whose last line of data is the answer.
        last = answer.body.rpartition(b"data: ")[2]
        assert not json.loads(last)["result"]["isError"], answer

    return call


async def many(calls: list[Callable[[], Awaitable[object]]], name: str) -> float:
    """All of them at once, each again and again; calls a second."""
    began = time.perf_counter()
    taken = await asyncio.gather(*(milliseconds(call, EACH) for call in calls))
    rate = len(calls) * EACH / (time.perf_counter() - began)
    told(f"{name}: {rate:.0f} calls/s", [each for one in taken for each in one])
    return rate


async def library(settings: Settings) -> tuple[float, list[float], str]:
    """Through the library, which also makes the key that the server is asked with afterwards."""
    async with Orchestrator.open(settings) as o:
        await o.tenants.create("bench", by=LOCAL_CALLER)
        key = (await o.tenants.create_key("bench", "bench", by=LOCAL_CALLER)).token

        def cell(session_id: str, code: str = CELL) -> Callable[[], Awaitable[object]]:
            return lambda: o.execute(code, session_id=session_id)

        await milliseconds(cell("warm"), 50)
        median = told("library, a warm cell", await milliseconds(cell("warm"), CALLS))
        await asyncio.gather(*(o.execute(CELL, session_id=f"s{n}") for n in range(SESSIONS)))
        rates = [
            await many([cell(f"s{n % SESSIONS}", code) for n in range(CLIENTS)], f"library, {CLIENTS} callers, {name}")
            for code, name in KINDS
        ]
        await asyncio.gather(*(o.delete(entry.session_id) for entry in await o.list_sessions()))
    return median, rates, key


async def served(data_dir: Path, key: str, environment: dict[str, str]) -> tuple[float, list[float]]:
    """Through the server."""
    async with process("-m", "orchestrator", "serve", "--data-dir", str(data_dir), **environment) as server:
        assert server.stdout is not None
        port = int((await server.stdout.readline()).decode().rpartition(":")[2].partition("/")[0])
        wires = [await connected(port) for _ in range(CLIENTS)]
        await milliseconds(through(wires[0], key), 50)
        median = told("HTTP, a warm cell", await milliseconds(through(wires[0], key), CALLS))
        first = [through(wires[n], key, f"s{n}") for n in range(SESSIONS)]
        await asyncio.gather(*(call() for call in first))
        rates = [
            await many(
                [through(wire, key, f"s{n % SESSIONS}", code) for n, wire in enumerate(wires)],
                f"HTTP, {CLIENTS} clients, {name}",
            )
            for code, name in KINDS
        ]
        for wire in wires:
            await wire.close()
    return median, rates


async def main() -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="o") as folder:
        root = Path(folder)
        environment = {
            "ORCHESTRATOR_RUNTIME_DIR": str(root / "run"),
            "ORCHESTRATOR_HTTP_PORT": "0",
            "ORCHESTRATOR_MAX_SANDBOXES": str(SESSIONS + 5),
            "ORCHESTRATOR_SANDBOX_WAIT": "300",
            "ORCHESTRATOR_HTTP_IDLE": "3600",
            "ORCHESTRATOR_HTTP_PATIENCE": "600",
            # What is measured is the path and not the quotas, which the library's caller does not have either.
            **{f"ORCHESTRATOR_QUOTA_{name}": "0" for name in ("EXECUTIONS_A_MINUTE", "LIVE_SANDBOXES", "RUNNING")},
        }
        settings = Settings.load(
            data_dir=root / "data", runtime_dir=root / "run", max_sandboxes=SESSIONS + 5, sandbox_wait=300
        )
        quiet, rates, key = await library(settings)
        over_http, http_rates = await served(root / "data", key, environment)
    port = 18_765
    async with process(__file__, "no-op", str(port)):
        wire = await connected(port)
        await milliseconds(through(wire, "", None), 50)
        bare = told("HTTP, a no-op tool of the bare SDK", await milliseconds(through(wire, "", None), CALLS))
        await wire.close()
    print(
        f"HTTP adds {over_http - quiet:.2f} ms to the library's median (aim: at most 3); a no-op tool takes {bare:.2f}"
    )
    for (_, name), rate, http_rate in zip(KINDS, rates, http_rates, strict=True):
        print(f"{CLIENTS} clients over {SESSIONS} sessions, {name}: {http_rate / rate:.2f} of the library's throughput")


if __name__ == "__main__":
    if sys.argv[1:2] == ["no-op"]:
        no_op()
    else:
        uvloop.run(main())
