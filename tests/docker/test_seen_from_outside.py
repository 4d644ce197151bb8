"""What operators see of a server at work: its log, its figures, its traces. All of a call is in them by its ids, and
nothing of what users wrote, computed or named.
"""

import asyncio
import json
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.app import Orchestrator
from orchestrator.settings import Settings
from tests.docker.test_cli_sessions import ordered
from tests.docker.test_serve import PATIENCE, client, keys_of, run, server

STAGES = {"queue", "start", "claim", "execute", "snapshot", "wake"}
# What a tenant does; each word with its mark is planted once in every place where a user can write.
STEPS = (
    "mark_{0}_name = 'mark-{0}-value'; open('mark-{0}-file', 'w').write(mark_{0}_name)",
    "import time\nfor n in range(3): print('mark-{0}-output', flush=True); time.sleep(0.4)",
    "raise ValueError('mark-{0}-error')",
    "import os; os._exit(3)  # mark-{0}-comment",
    "import os; sorted(os.listdir('.')), 'mark_{0}_name' in globals()",
)


class Collector:
    """An OTLP receiver on the loopback: keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                del args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> dict[str, list[dict[str, Any]]]:
        """By name: the attributes of each, and its trace."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    values = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                    found[span.name].append({**values, "trace": span.trace_id})
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


async def worked(speaking: Client, name: str) -> str:
    """All that a tenant is told while it does those steps in a session that all tenants call the same."""
    said: list[str] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        said.append(f"{progress} {total} {message}")

    for step in STEPS:
        arguments = {"code": step.format(name), "session_id": "mark-session"}
        answer = await speaking.call_tool("python_repl", arguments, progress_callback=heard)
        said.append(answer.model_dump_json())
    for tool in ("python_list_variables", "python_list_sessions"):
        given = {} if tool == "python_list_sessions" else {"session_id": "mark-session"}
        said.append((await speaking.call_tool(tool, given)).model_dump_json())
    return "\n".join(said)


@pytest.mark.usefixtures("engine")
async def test_every_call_is_found_by_its_ids_and_nothing_of_its_users(
    settings: Settings, tmp_path: Path, collector: Collector
) -> None:
    keys, log = await keys_of(settings), tmp_path / "log"
    async with server(settings, log=log, ORCHESTRATOR_TRACES_ENDPOINT=collector.endpoint) as (url, _):
        async with client(url, keys["red"]) as red, client(url, keys["blue"]) as blue:
            told = await asyncio.gather(worked(red, "red"), worked(blue, "blue"))
            for name, other, words in (("red", "blue", told[0]), ("blue", "red", told[1])):
                assert words.count(f"mark-{name}") >= 6
                assert f"mark-{other}" not in words
                assert f"mark_{other}" not in words
            for name in ("red", "blue"):
                await ordered(settings, "session", "hibernate", "mark-session", "--tenant", name)
            assert (await run(red, "mark_red_name", "mark-session"))["value"] == "'mark-red-value'"
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {keys['admin']}"}, timeout=PATIENCE) as http:
            figures = (await http.get(url.replace("/mcp", "/metrics"))).text
    lines = [json.loads(line) for line in (await asyncio.to_thread(log.read_text)).splitlines()]

    cells = [line for line in lines if line["message"].startswith("cell ended")]
    assert len(cells) == 2 * len(STEPS) + 1
    assert all({"tenant", "session", "incarnation", "execution"} <= line.keys() for line in cells)
    assert all("tenant" in line for line in lines if "session" in line), lines
    sessions = {(line["tenant"], line["session"]) for line in cells}
    assert len(sessions) == 2, "a session of each, by the internal key"

    spans = collector.spans()
    assert spans.keys() >= STAGES
    for stage in STAGES - {"start"}:
        about = {(one["orchestrator.tenant"], one["orchestrator.session"]) for one in spans[stage]}
        assert about <= sessions, stage
    for one in spans["execute"]:
        assert one["trace"] in {queued["trace"] for queued in spans["queue"]}, "a call's stages are one trace"

    families = {family.name: family for family in text_string_to_metric_families(figures)}
    counted = families["orchestrator_stage_seconds"].samples
    assert {sample.labels["stage"] for sample in counted if sample.value} >= STAGES
    ended = {sample.labels["outcome"]: sample.value for sample in families["orchestrator_executions"].samples}
    assert (ended["ok"], ended["exception"], ended["crashed"]) == (7, 2, 2)

    seen = [figures.encode(), *(json.dumps(line).encode() for line in lines), *collector.bodies]
    secrets = ["mark-", "mark_", *(key.split("_")[-1] for key in keys.values())]
    assert not any(word.encode() in part for word in secrets for part in seen)
    async with Orchestrator.open(settings) as o:
        for name in ("red", "blue"):
            await o.sessions.delete("mark-session", tenant=(await o.tenants.find(name)).id)


@pytest.mark.usefixtures("engine")
async def test_a_collector_that_is_gone_or_says_nothing_holds_up_no_call_and_no_end(settings: Settings) -> None:
    keys = await keys_of(settings)
    with socket.socket() as silent:  # takes connections, and answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (silent.getsockname()[1], 9):
            endpoint = f"http://127.0.0.1:{port}/v1/traces"
            async with (
                server(settings, ORCHESTRATOR_TRACES_ENDPOINT=endpoint) as (url, _),
                client(url, keys["red"]) as red,
            ):
                assert (await run(red, "x = 1\nx"))["value"] == "1"
                await red.call_tool("python_delete_session", {"session_id": "shop"})
