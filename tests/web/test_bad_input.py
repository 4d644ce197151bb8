"""What no client should send: each has its status, and the server lives on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.faces.web.connections import MAX_HEAD
from orchestrator.faces.web.pages import SiteBounds
from orchestrator.faces.web.protocol_sessions import MOST
from tests.mcp.harness import INITIALIZE, eventually
from tests.web.harness import HANDSHAKE, KEY, MODERN, NEWEST, PATIENCE, Answer, Place, Wire, calling, serving

MIB = 1024 * 1024
JUNK = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b"{}" * 3]


@pytest.fixture(autouse=True)
async def lives_on(place: Place) -> AsyncIterator[None]:
    """After whatever was sent, a call is answered."""
    yield
    answer = await place.request(body=calling("still there", "s"), headers=MODERN)
    assert answer.json["result"]["structuredContent"]["output"] == "still there"


async def opened(place: Place) -> dict[str, str | None]:
    """A session of the handshake's revisions; the headers of its requests."""
    answer = await place.request(body=INITIALIZE)
    assert answer.status == 200
    headers: dict[str, str | None] = {
        "Mcp-Session-Id": answer.headers["mcp-session-id"],
        "MCP-Protocol-Version": HANDSHAKE,
    }
    started = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await place.request(body=started, headers=headers)).status == 202
    return headers


@pytest.mark.parametrize("body", JUNK)
async def test_what_is_no_message_is_answered_400_on_either_revision(place: Place, body: bytes) -> None:
    newest = await place.request(body=body, headers=MODERN)
    assert newest.status == 400
    assert newest.json["error"]["code"] in (-32700, -32600)
    older = await place.request(body=body, headers=await opened(place))
    assert older.status == 400


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"method": "tools/fall"}, -32601),
        ({"jsonrpc": "1.0"}, -32600),
        ({"id": {}}, -32600),
        ({"id": 1.5}, -32600),
        ({"params": []}, -32600),
        ({"params": {"name": 5, "_meta": calling("")["params"]["_meta"]}}, -32602),
    ],
)
async def test_a_message_that_is_wrong_gets_the_protocols_error(
    place: Place, changed: dict[str, Any], code: int
) -> None:
    body = {**calling("1"), **changed}
    headers = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": str(body["method"])}
    answer = await place.request(body=body, headers=headers)
    assert 400 <= answer.status < 500
    assert answer.json["error"]["code"] in (code, -32020, -32001, -32602), answer


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"code": 5},
        {"code": None},
        {"code": "1", "session_id": ["s"]},
        {"code": "1", "timeout": "soon"},
        {"code": "1", "timeout": True},
    ],
)
async def test_arguments_of_the_wrong_type_are_a_typed_failure(place: Place, arguments: dict[str, Any]) -> None:
    body = calling("")
    body["params"]["arguments"] = arguments
    answer = await place.request(body=body, headers=MODERN)
    assert answer.status == 200
    assert answer.json["result"]["structuredContent"]["error"]["code"] == "invalid_request"


async def test_an_unknown_tool_is_refused(place: Place) -> None:
    body = calling("")
    body["params"]["name"] = "no_such_tool"
    answer = await place.request(body=body, headers={**MODERN, "Mcp-Name": "no_such_tool"})
    assert answer.status in (200, 400)
    assert "error" in answer.json or answer.json["result"]["isError"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_answered_413(tmp_path: Path, place: Place, declared: bool) -> None:  # noqa: FBT001
    del tmp_path
    body = b"x" * (9 * MIB)
    wire = await place.connect()
    length = (
        {"Content-Length": str(len(body))} if declared else {"Content-Length": None, "Transfer-Encoding": "chunked"}
    )
    await wire.send(headers={**MODERN, **length})
    if not declared:
        sending = asyncio.create_task(wire.raw(b"%x\r\n%s\r\n" % (len(body), body)))
    else:
        sending = asyncio.create_task(wire.raw(body[:1000]))
    assert (await wire.answer()).status == 413
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await wire.close()


async def test_a_body_without_a_key_is_not_waited_for(place: Place) -> None:
    wire = await place.connect()
    await wire.send(headers={**MODERN, "Content-Length": str(8 * MIB)}, key="wrong")
    assert (await wire.answer()).status == 401
    await wire.ended()
    await wire.close()


async def test_a_slow_body_is_answered_408(tmp_path: Path) -> None:
    async with serving(tmp_path / "other", patience=1) as place:
        wire = await place.connect()
        await wire.send(headers={**MODERN, "Content-Length": "1000"})
        await wire.raw(b"{")
        assert (await wire.answer()).status == 408
        await wire.ended()
        await wire.close()


@pytest.mark.parametrize("start", [b"", b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
async def test_a_head_that_does_not_come_is_answered_408(tmp_path: Path, start: bytes) -> None:
    async with serving(tmp_path / "other", patience=1) as place:
        wire = await place.connect()
        await wire.raw(start)
        assert (await wire.answer()).status == 408
        await wire.ended()
        await wire.close()


async def test_a_head_that_is_too_large_is_answered_431(place: Place) -> None:
    for padding in (b"x" * (MAX_HEAD + 1) + b"\r\n\r\n", b"x" * (4 * MAX_HEAD)):
        wire = await place.connect()
        await wire.raw(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + padding)
        assert (await wire.answer()).status == 431
        await wire.close()


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"]
)
async def test_what_is_no_http_is_answered_400_and_closed(place: Place, junk: bytes) -> None:
    wire = await place.connect()
    await wire.raw(junk)
    assert (await wire.answer()).status == 400
    await wire.ended()
    await wire.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80"])
async def test_a_host_that_is_not_ours_is_answered_421(place: Place, host: str) -> None:
    assert (await place.request(body=calling("1"), headers={**MODERN, "Host": host})).status == 421
    assert (await place.request(body=INITIALIZE, headers={"Host": host})).status == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
async def test_an_origin_that_is_not_ours_is_answered_403(place: Place, origin: str) -> None:
    assert (await place.request(body=calling("1"), headers={**MODERN, "Origin": origin})).status == 403


@pytest.mark.parametrize(("method", "status"), [("PUT", 405), ("GET", 405), ("PATCH", 405)])
async def test_a_method_that_is_none_is_answered_405(place: Place, method: str, status: int) -> None:
    assert (await place.request(method, headers=MODERN)).status == status


async def test_another_tenants_protocol_session_is_as_an_absent_one(place: Place) -> None:
    headers = await opened(place)
    ping = {"jsonrpc": "2.0", "id": 5, "method": "ping"}
    others = await place.request(body=ping, headers=headers, key="so_ee_other")
    absent = await place.request(body=ping, headers={**headers, "Mcp-Session-Id": "0" * 32}, key="so_ee_other")
    assert (others.status, others.body) == (absent.status, absent.body)
    assert others.status == 404


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "other", patience=1) as place:
        wire = await place.connect()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(body=calling("flood 3000000", "s"), headers=MODERN)
        for _ in range(30):
            await wire.send(body=calling("flood 3000000", "s"), headers=MODERN)
        await eventually(lambda: not len(place.connections), "the connection is given up")
        await wire.close()


async def test_beyond_the_limit_the_connection_goes_that_was_idle_for_longest(tmp_path: Path) -> None:
    async with serving(tmp_path / "other", connections=20) as place:
        wires = [await place.connect() for _ in range(60)]
        await wires[0].ended()
        await wires[-1].send("GET", "/healthz", key=None)
        assert (await wires[-1].answer()).status == 200
        assert len(place.connections) <= 20
        for wire in wires:
            await wire.close()


async def test_where_all_connections_are_busy_the_next_is_answered_503(tmp_path: Path) -> None:
    async with serving(tmp_path / "other", connections=10) as place:
        busy = [await place.connect() for _ in range(10)]
        for wire in busy:
            await wire.send(body=calling("sleep 60"), headers=MODERN)
        await eventually(lambda: place.events.count("started None") == 10, "all are busy")
        assert (await place.request("GET", "/healthz")).status == 503
        for wire in busy:
            await wire.close()
        await eventually(lambda: place.events.count("cancelled None") == 10, "all are interrupted")
        assert (await place.request("GET", "/healthz")).status == 200


async def test_thousands_of_idle_connections_and_churn_leave_nothing(place: Place) -> None:
    for _ in range(4):
        wires = await asyncio.gather(*(place.connect() for _ in range(500)))
        for number, wire in enumerate(wires):
            if number % 2:
                wire.vanish()
            else:
                wire.writer.write(b"GET /hea")
        answer = await place.request(body=calling("between", "s"), headers=MODERN)
        assert answer.status == 200
        for wire in wires:
            wire.vanish()
    await eventually(lambda: not len(place.connections), "all are forgotten")


async def test_half_open_streams_end_with_their_connection(place: Place) -> None:
    headers = await opened(place)
    for _ in range(20):
        wire = await place.connect()
        await wire.send("GET", headers={**headers, "Accept": "text/event-stream"})
        status, _ = await wire.head()
        assert status == 200, "the one before has made room"
        wire.vanish()
        await eventually(lambda: not len(place.site.lines), "the stream has ended")


async def test_a_session_of_the_protocol_that_never_began_leaves_nothing(place: Place) -> None:
    for body in (b"{", json.dumps(calling("1")).encode()):
        answer = await place.request(body=body)
        assert answer.status == 400
    assert not place.site._manager._server_instances


async def test_a_tenant_that_opens_session_after_session_of_the_protocol_ends_its_own_oldest(place: Place) -> None:
    theirs = (await place.request(body=INITIALIZE, key="so_ee_other")).headers["mcp-session-id"]
    wire = await place.connect()
    opened_ids = []
    for _ in range(MOST + 5):
        await wire.send(body=INITIALIZE)
        opened_ids.append((await wire.answer()).headers["mcp-session-id"])
    await wire.close()
    ping = {"jsonrpc": "2.0", "id": 5, "method": "ping"}

    async def status(session: str, key: str) -> int:
        headers = {"Mcp-Session-Id": session, "MCP-Protocol-Version": HANDSHAKE}
        return (await place.request(body=ping, headers=headers, key=key)).status

    assert [await status(session, KEY) for session in (opened_ids[0], opened_ids[4])] == [404, 404]
    assert [await status(session, KEY) for session in (opened_ids[5], opened_ids[-1])] == [200, 200]
    assert await status(theirs, "so_ee_other") == 200


async def test_pipelined_requests_are_answered_in_their_order(place: Place) -> None:
    wire = await place.connect()
    for number in range(50):
        await wire.send(body=calling(f"cell {number}", "s", number), headers=MODERN)
    async with asyncio.timeout(PATIENCE):
        answers: list[Answer] = [await wire.answer() for _ in range(50)]
    assert [answer.json["id"] for answer in answers] == list(range(50))
    await wire.close()


async def test_bounds_that_are_set_are_kept(tmp_path: Path) -> None:
    async with serving(tmp_path / "other", bounds=SiteBounds(body=100_000)) as place:
        assert (await place.request(body=calling("x" * 200_000), headers=MODERN)).status == 413
        wire: Wire = await place.connect()
        await wire.send(body=calling("x"), headers=MODERN, key=KEY)
        assert (await wire.answer()).status == 200
        await wire.close()
