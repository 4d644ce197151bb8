"""What an owner and an operator's client say to each other, with clients that are broken, slow or gone."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.domain.orders import MAX_CHUNK_BYTES, Answer, Field, Progress
from orchestrator.faces import admin
from orchestrator.faces.admin import ADMIN, admin_conversation
from orchestrator.faces.admin_client import Link, NotListeningError, linked
from orchestrator.faces.admin_wire import MAX_REQUEST_BYTES, ToldError
from orchestrator.faces.owner import serve_connections
from orchestrator.services.orders import Call, Desk, Operations, Order

WAIT = 20.0  # seconds, which no test needs


class Events:
    """What became of orders."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.taken = 0


def orders(events: Events) -> tuple[Order, ...]:
    async def echo(call: Call) -> AsyncGenerator[Answer, None]:
        yield Progress("echo", 1, None, "lines")
        yield {"said": call.given["text"], "times": call.given["times"]}

    async def back(call: Call) -> AsyncGenerator[Answer, None]:
        async for chunk in call.chunks:
            events.taken += 1
            yield chunk

    async def deaf(call: Call) -> AsyncGenerator[Answer, None]:
        async for chunk in call.chunks:
            del chunk
            break
        yield {"read": 1}

    async def hang(_call: Call) -> AsyncGenerator[Answer, None]:
        events.begun.set()
        try:
            await asyncio.Event().wait()
            yield {}
        finally:
            events.ended.set()

    async def flood(_call: Call) -> AsyncGenerator[Answer, None]:
        try:
            while True:
                events.taken += 1
                yield b"x" * MAX_CHUNK_BYTES
        finally:
            events.ended.set()

    takes = {"text": Field("text", required=True), "times": Field("integer", default=1, least=1, most=9)}
    return (
        Order("echo", "", echo, takes, reads=True),
        Order("back", "", back, takes_stream=True, gives_stream=True),
        Order("deaf", "", deaf, takes_stream=True),
        Order("hang", "", hang),
        Order("flood", "", flood, gives_stream=True),
        Order("engine", "", hang, basis="whole"),
    )


@asynccontextmanager
async def owner(path: Path) -> AsyncIterator[Events]:
    events, ready = Events(), asyncio.Event()
    operations = Operations(orders(events), Desk(*(cast("Any", None),) * 5))
    serving = asyncio.create_task(
        serve_connections({ADMIN: admin_conversation(operations)}, path, linger=None, ready=ready.set)
    )
    await ready.wait()
    try:
        yield events
    finally:
        serving.cancel()
        await asyncio.wait([serving])


@asynccontextmanager
async def raw(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that says whatever it likes, after its greeting."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(json.dumps({"protocol": ADMIN[0], "version": ADMIN[1]}).encode() + b"\n")
    assert json.loads(await reader.readline())["ok"]
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said(link: Link, order: str, chunks: AsyncIterator[bytes] | None = None, **given: object) -> list[Answer]:
    async with asyncio.timeout(WAIT):
        return [answer async for answer in link.answers(order, given, chunks=chunks)]


async def works(path: Path) -> bool:
    """Whether another client is served."""
    async with linked(path) as link:
        return {"said": "x", "times": 1} in await said(link, "echo", text="x")


async def pieces(number: int, *, fails: bool = False) -> AsyncIterator[bytes]:
    for place in range(number):
        yield bytes([place]) * MAX_CHUNK_BYTES
    if fails:
        raise OSError("the file is gone")


async def test_answers_progress_and_errors_come_as_what_they_were(tmp_path: Path) -> None:
    async with owner(tmp_path / "s"), linked(tmp_path / "s") as link:
        assert await said(link, "echo", text="a", times=3) == [
            Progress("echo", 1, None, "lines"),
            {"said": "a", "times": 3},
        ]
        with pytest.raises(ToldError) as told:
            await said(link, "echo", text="a", times=10)
        assert (told.value.code, told.value.retryable) == ("invalid_request", False)
        assert "at most 9" in told.value.message
        assert await said(link, "echo", text="still there")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"text": 1},
        {"text": "x", "times": True},
        {"text": "x", "times": 1.5},
        {"text": "x", "times": 0},
        {"text": "x", "extra": 1},
        {"text": "x" * 5_000},
    ],
)
async def test_fields_that_are_not_as_they_should_be_are_named(given: dict[str, object], tmp_path: Path) -> None:
    async with owner(tmp_path / "s"), linked(tmp_path / "s") as link:
        with pytest.raises(ToldError, match=r"text|times|extra"):
            _ = [answer async for answer in link.answers("echo", given)]


async def test_a_stream_goes_in_and_comes_back_in_bounded_pieces(tmp_path: Path) -> None:
    async with owner(tmp_path / "s"), linked(tmp_path / "s") as link:
        back = await said(link, "back", pieces(40))
        assert back == [bytes([place]) * MAX_CHUNK_BYTES for place in range(40)]
        assert await said(link, "back", pieces(0)) == []


async def test_a_stream_that_cannot_be_read_on_ends_the_order_and_says_why(tmp_path: Path) -> None:
    async with owner(tmp_path / "s"):
        async with linked(tmp_path / "s") as link:
            with pytest.raises(OSError, match="the file is gone"):
                await said(link, "back", pieces(2, fails=True))
        assert await works(tmp_path / "s")


async def test_an_order_that_leaves_its_stream_unread_answers_and_what_is_left_is_no_order(tmp_path: Path) -> None:
    async with owner(tmp_path / "s"):
        async with linked(tmp_path / "s") as link:
            assert await said(link, "deaf", pieces(1)) == [{"read": 1}]
            with pytest.raises(NotListeningError):
                await said(link, "echo", text="x")
        assert await works(tmp_path / "s")


async def test_an_order_ends_when_its_client_hangs_up(tmp_path: Path) -> None:
    async with owner(tmp_path / "s") as events, asyncio.timeout(WAIT):
        async with raw(tmp_path / "s") as (_, writer):
            writer.write(b'{"order": "hang", "given": {}}\n')
            await events.begun.wait()
            assert not events.ended.is_set()
        await events.ended.wait()
        assert await works(tmp_path / "s")


async def test_a_link_that_is_left_early_ends_its_order(tmp_path: Path) -> None:
    async with owner(tmp_path / "s") as events, asyncio.timeout(WAIT):
        async with linked(tmp_path / "s") as link, aclosing(link.answers("flood", {})) as answers:
            async for _ in answers:
                break
        await events.ended.wait()


async def test_who_does_not_read_holds_back_the_order_and_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "UNREAD_SECONDS", 0.5)
    async with owner(tmp_path / "s") as events, asyncio.timeout(WAIT), raw(tmp_path / "s") as (_, writer):
        writer.write(b'{"order": "flood", "given": {}}\n')
        await events.ended.wait()
        assert events.taken < 20  # what fits between the two sides, and not what the order could give


async def test_a_long_order_says_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ALIVE_SECONDS", 0.01)
    async with owner(tmp_path / "s"), asyncio.timeout(WAIT), raw(tmp_path / "s") as (reader, writer):
        writer.write(b'{"order": "hang", "given": {}}\n')
        assert json.loads(await reader.readline()) == {"alive": True}


async def test_a_light_owner_refuses_what_takes_the_engine(tmp_path: Path) -> None:
    async with owner(tmp_path / "s"), linked(tmp_path / "s") as link:
        with pytest.raises(ToldError, match="records"):
            await said(link, "engine")


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b'{"order": 1, "given": {}}\n',
        b'{"order": "echo", "given": []}\n',
        b'{"order": "echo", "given": {"text": NaN}}\n',
        b'{"order": "' + b"x" * 100_000 + b'"}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b'{"order": "back"}\n{"chunk": "***"}\n',
        b'{"order": "back"}\n{"chunk": 5}\n',
        b'{"order": "back"}\nnonsense\n',
    ],
)
async def test_what_cannot_be_read_is_answered_and_harms_nobody(line: bytes, tmp_path: Path) -> None:
    async with owner(tmp_path / "s"), asyncio.timeout(WAIT):
        async with raw(tmp_path / "s") as (reader, writer):
            writer.write(line)
            assert json.loads(await reader.readline())["error"]["code"] == "invalid_request"
        assert await works(tmp_path / "s")


@pytest.mark.parametrize("ending", [b"\n", b""])
async def test_a_line_without_end_is_refused_and_the_client_with_it(ending: bytes, tmp_path: Path) -> None:
    async with owner(tmp_path / "s"), asyncio.timeout(WAIT):
        async with raw(tmp_path / "s") as (reader, writer):
            too_long = MAX_REQUEST_BYTES + 1 if ending else MAX_REQUEST_BYTES * 64
            writer.write(b"x" * too_long + ending)
            told = json.loads(await reader.readline())
            assert str(MAX_REQUEST_BYTES) in told["error"]["message"]
            with suppress(ConnectionResetError):  # what was not read of it is thrown away
                assert await reader.read() == b""
        assert await works(tmp_path / "s")
