"""The five tools through a real client, over a real connection, on both generations of the protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp.shared.message import SessionMessage
from mcp_types import CallToolResult, RequestParamsMeta, TextContent

from orchestrator.domain.model import SessionState
from orchestrator.faces.line_transport import MAX_LINE_BYTES, parse
from orchestrator.faces.mcp_server import PROTOCOL, build_server
from orchestrator.faces.owner import serve_connections
from tests.mcp.fake_owner import SECRET, FakeSessions
from tests.mcp.harness import PATIENCE, eventually

Mode = Literal["legacy", "auto"]


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """A client's streams over the owner's socket: what a relay does, in this process."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_LINE_BYTES)
    writer.write(b'{"protocol":"mcp","version":1}\n')
    assert json.loads(await reader.readline())["ok"] is True
    arriving, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, leaving = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with arriving:
            while line := await reader.readline():
                await arriving.send(SessionMessage(parse(line)))

    async def write() -> None:
        async with leaving:
            async for message in leaving:
                writer.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await writer.drain()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        async with incoming, outgoing:
            yield incoming, outgoing
        group.cancel_scope.cancel()
    writer.close()
    await writer.wait_closed()


@pytest.fixture(params=["legacy", "auto"])
async def client(request: pytest.FixtureRequest, sessions: FakeSessions, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of either generation, connected through the owner's own listener."""
    mode: Mode = request.param
    socket_path = tmp_path / "s"
    ready = asyncio.Event()
    server = build_server(lambda _: sessions, progress_seconds=(0.05, 0.05))
    serving = asyncio.create_task(
        serve_connections(
            {PROTOCOL: server.conversation()}, socket_path, linger=PATIENCE, ready=ready.set, max_connections=4
        )
    )
    await ready.wait()
    opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        """A task of its own: a client must be closed where it was opened, which two halves of a fixture are not."""
        async with Client(connected(socket_path), mode=mode) as connected_client:
            opened.set_result(connected_client)
            await done.wait()

    holding = asyncio.create_task(hold())
    async with asyncio.timeout(PATIENCE):
        client = await opened
    yield client
    done.set()
    async with asyncio.timeout(PATIENCE):
        await holding
    serving.cancel()
    await asyncio.wait([serving])
    assert not socket_path.exists()


def fields(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def run(client: Client, **arguments: object) -> CallToolResult:
    return await client.call_tool("python_repl", arguments)


@pytest.mark.parametrize("absent", [{}, {"session_id": None}, {"session_id": ""}])
async def test_no_session_id_is_a_stateless_call(client: Client, absent: dict[str, Any]) -> None:
    answer = fields(await run(client, code="arguments", **absent))
    assert json.loads(answer["value"])["session_id"] is None
    assert (answer["session_id"], answer["execution"]) == (None, None)


@pytest.mark.parametrize("name", ["[1]", "null", '{"a": 1}', "1", "true", '"x"', "名前"])
async def test_a_session_id_that_looks_like_json_is_taken_as_it_is(client: Client, name: str) -> None:
    answer = fields(await run(client, code="arguments", session_id=name))
    assert json.loads(answer["value"])["session_id"] == name


@pytest.mark.parametrize("code", ['{"a": 1}', "[1, 2]", "null", "1", '"text"'])
async def test_code_that_looks_like_json_is_run_as_it_is(client: Client, code: str) -> None:
    assert fields(await run(client, code=code))["output"] == code


@pytest.mark.parametrize(
    ("given", "arrives"), [(5, 5.0), (0.5, 0.5), ("7.5", 7.5), (None, None), ("null", None), ("", None)]
)
async def test_a_timeout_is_understood_as_models_write_it(client: Client, given: object, arrives: float | None) -> None:
    answer = fields(await run(client, code="arguments", timeout=given))
    assert json.loads(answer["value"])["timeout"] == arrives


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": "x", "timeout": "soon"},
        {"code": "x", "timeout": True},
        {"code": "x", "timeout": "inf"},
        {"code": 5},
        {"session_id": "s"},
        {"code": "x", "session_id": 7},
    ],
)
async def test_wrong_arguments_are_a_result_that_names_them(client: Client, wrong: dict[str, Any]) -> None:
    result = await run(client, **wrong)
    assert result.is_error
    assert fields(result)["error"]["code"] == "invalid_request"
    assert (fields(result)["output"], fields(result)["bound"]) == ("", [])
    assert "Hint: " in text(result)
    assert "pydantic" not in text(result)


async def test_a_failed_cell_is_complete_in_text_and_in_fields(client: Client) -> None:
    result = await run(client, code="raise", session_id="s")
    assert result.is_error
    error = fields(result)["error"]
    assert error == {
        "code": "exception",
        "type": "ValueError",
        "message": "wrong",
        "traceback": "Traceback …\nValueError: wrong",
        "hint": "Mend the code.",
    }
    for part in ("exception", "ValueError: wrong", "Traceback …", "Hint: Mend the code.", "session 's'", "execution 1"):
        assert part in text(result)


async def test_what_the_service_refuses_is_typed_with_a_hint(client: Client) -> None:
    result = await run(client, code="busy", session_id="s")
    assert result.is_error
    assert fields(result)["error"]["code"] == "busy"
    assert fields(result)["execution"] is None
    assert "The queue is full." in text(result)
    assert "Wait a moment." in text(result)


async def test_an_unknown_failure_is_internal_and_keeps_its_detail_in_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    result = await run(client, code="crash", session_id="s")
    assert result.is_error
    assert fields(result)["error"]["code"] == "internal"
    assert SECRET not in result.model_dump_json()
    assert SECRET in caplog.text
    assert fields(await run(client, code="still here"))["output"] == "still here"


async def test_the_listings_have_the_documented_shapes(client: Client) -> None:
    await run(client, code="x", session_id="s")
    variables = fields(await client.call_tool("python_list_variables", {"session_id": "s"}))
    assert (variables["session_id"], variables["variable_count"]) == ("s", 2)
    assert variables["variables"] == [
        {"name": "x", "type": "int", "size_bytes": 28},
        {"name": "y", "type": "str", "size_bytes": None},
    ]
    assert variables["imports"] == [{"name": "np", "type": "module"}]
    listed = await client.call_tool("python_list_sessions", {})
    assert fields(listed)["session_count"] == 1
    assert fields(listed)["sessions"][0] == {
        "session_id": "s",
        "created_at": "2026-01-02T03:04:05+00:00",
        "variable_count": 2,
        "total_executions": 1,
        "state": "ready",
        "last_used_at": "2026-01-02T03:04:05+00:00",
        "expires_at": "2026-02-01T03:04:05+00:00",
        "saved_through": None,
    }
    assert "2026-01-02T03:04:05+00:00" in text(listed)
    await run(client, code="x", session_id="s")
    again = await client.call_tool("python_list_sessions", {})
    assert fields(again)["sessions"][0]["saved_through"] == 1
    heading, row = text(again).splitlines()[1:3]
    assert dict(zip(heading.split(), row.split(), strict=True))["saved_through"] == "1"


async def test_clear_and_delete_say_what_they_did(client: Client) -> None:
    await run(client, code="x", session_id="s")
    assert fields(await client.call_tool("python_clear_session", {"session_id": "s"}))["cleared"] is True
    assert fields(await client.call_tool("python_delete_session", {"session_id": "s"}))["deleted"] is True


@pytest.mark.parametrize("tool", ["python_list_variables", "python_clear_session", "python_delete_session"])
@pytest.mark.parametrize(("name", "code"), [("gone", "not_found"), ("", "invalid_request"), (None, "invalid_request")])
async def test_an_absent_session_is_a_typed_result(client: Client, tool: str, name: str | None, code: str) -> None:
    result = await client.call_tool(tool, {"session_id": name})
    assert result.is_error
    assert (fields(result)["status"], fields(result)["error"]["code"]) == ("error", code)


async def test_cancelling_a_call_interrupts_it(client: Client, sessions: FakeSessions) -> None:
    calling = asyncio.create_task(run(client, code="sleep 60", session_id="s"))
    await eventually(sessions.events.exists, "the call starts")
    calling.cancel()
    await asyncio.wait([calling])
    await eventually(lambda: "cancelled s" in sessions.events.read_text(), "the call is interrupted")
    assert fields(await run(client, code="after", session_id="s"))["output"] == "after"


async def test_progress_is_told_while_a_call_runs(client: Client) -> None:
    told: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        told.append((progress, message))

    await client.call_tool("python_repl", {"code": "sleep 0.5", "session_id": "s"}, progress_callback=on_progress)
    assert len(told) >= 3
    assert [progress for progress, _ in told] == sorted(progress for progress, _ in told)
    assert all(message is not None and "'s'" in message for _, message in told)


@pytest.mark.usefixtures("client")
async def test_client_beyond_the_bound_is_told_so_and_served_when_another_has_left(tmp_path: Path) -> None:
    async def greeted() -> tuple[dict[str, Any], asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b'{"protocol":"mcp","version":1}\n')
        return json.loads(await reader.readline()), writer

    others = [await greeted() for _ in range(3)]  # beside the fixture's
    assert [answer["ok"] for answer, _ in others] == [True] * 3
    refused, refusing = await greeted()
    assert refused == {"ok": False, "error": "4 clients are connected already; close one of them."}
    others[0][1].close()
    async with asyncio.timeout(PATIENCE):
        while not (again := await greeted())[0]["ok"]:
            again[1].close()
    for writer in (refusing, again[1], *(writer for _, writer in others)):
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_progress_tells_the_place_in_line_of_a_call_that_waits_for_a_sandbox(client: Client) -> None:
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        told.append(message)

    await client.call_tool("python_repl", {"code": "wait 0.5", "session_id": "s"}, progress_callback=on_progress)
    assert told
    wanted = " s in session 's', waiting for a sandbox: number 3 in line"
    assert all(message is not None and message.endswith(wanted) for message in told), told


async def test_figures_are_images_and_too_many_are_named(client: Client) -> None:
    result = await run(client, code="figures 6", session_id="s")
    images = [block for block in result.content if block.type == "image"]
    assert [image.mime_type for image in images] == ["image/png"] * 4
    shown = fields(result)["displays"]
    assert [display["inline"] for display in shown] == [True] * 4 + [False] * 2
    assert images[0].data not in json.dumps(fields(result))
    assert "Display 6" in text(result)
    assert "at most 4" in text(result)


async def test_a_result_stays_under_a_megabyte(client: Client) -> None:
    result = await run(client, code="flood 3000000", session_id="s")
    assert len(result.model_dump_json()) < 1_000_000
    assert fields(result)["truncated"] is True
    assert "characters left out here" in fields(result)["output"]


async def test_tools_describe_themselves(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    hints = {
        name: (told.read_only_hint, told.destructive_hint, told.idempotent_hint, told.open_world_hint)
        for name, tool in tools.items()
        if (told := tool.annotations) is not None
    }
    assert hints == {
        "python_repl": (False, True, False, False),
        "python_list_variables": (True, False, True, False),
        "python_list_sessions": (True, False, True, False),
        "python_result": (True, False, True, False),
        "python_clear_session": (False, True, True, False),
        "python_delete_session": (False, True, True, False),
    }
    repl = tools["python_repl"]
    assert repl.input_schema["required"] == ["code"]
    assert repl.input_schema["properties"]["session_id"]["type"] == "string"
    assert all("description" in property_ for property_ in repl.input_schema["properties"].values())
    assert repl.output_schema is not None
    assert {"status", "output", "value", "error", "saved_through"} <= set(repl.output_schema["properties"])
    listed = tools["python_list_sessions"].output_schema
    assert listed is not None
    described = listed["$defs"]["SessionEntry"]["properties"]["state"]["description"]
    assert {state for state in SessionState if f"`{state}`" in described} == set(SessionState) - {
        "destroying",
        "expired",  # not listed
    }
    assert client.instructions is not None
    assert "session_id" in client.instructions
    for text_for_models in (client.instructions, repl.description or ""):  # some clients show only one of them
        words = " ".join(text_for_models.split())
        assert "idle" in words
        assert "restart" in words
        assert "open files" in words
        assert "notes" in words


@pytest.mark.parametrize(
    ("arguments", "meta", "arrives"),
    [
        ({}, None, None),
        ({"idempotency_key": None}, None, None),
        ({"idempotency_key": "one"}, None, "one"),
        ({}, {"session-orchestrator/idempotency-key": "two"}, "two"),
        ({"idempotency_key": "one"}, {"session-orchestrator/idempotency-key": "two"}, "one"),
        ({}, {"session-orchestrator/idempotency-key": 3}, None),
    ],
)
async def test_a_key_for_repetitions_is_an_argument_or_stands_beside_them(
    client: Client, arguments: dict[str, Any], meta: dict[str, Any] | None, arrives: str | None
) -> None:
    beside = None if meta is None else RequestParamsMeta(**meta)  # type: ignore[typeddict-item]
    answer = await client.call_tool("python_repl", {"code": "arguments", **arguments}, meta=beside)
    assert json.loads(fields(answer)["value"])["key"] == arrives


async def test_an_earlier_answer_is_picked_up(client: Client) -> None:
    await run(client, code="x", session_id="s")
    kept = await client.call_tool("python_result", {"session_id": "s", "execution": 1})
    assert (fields(kept)["output"], fields(kept)["execution"]) == ("kept", 1)


@pytest.mark.parametrize(("execution", "code"), [(2, "busy"), (3, "not_found")])
async def test_an_answer_that_is_not_there_is_told_apart(client: Client, execution: int, code: str) -> None:
    await run(client, code="x", session_id="s")
    answer = await client.call_tool("python_result", {"session_id": "s", "execution": execution})
    assert answer.is_error
    assert fields(answer)["error"]["code"] == code
