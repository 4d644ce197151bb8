"""MCP over a byte stream, one JSON message a line.

The SDK's own line server drops what it cannot parse without an answer, so that a caller whose code holds a lone
surrogate would wait for ever; here every line is answered or served.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Awaitable, Callable

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic_core import PydanticSerializationError

from orchestrator.faces.deliveries import Deliveries

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 16 * 1024 * 1024
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
FLUSH_SECONDS = 1.0  # for answers that were on their way when the peer stopped sending

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]
Server = Callable[[Incoming, Outgoing], Awaitable[None]]


class LineTooLongError(Exception):
    """A line over MAX_LINE_BYTES; it was skipped whole."""


class UnreadableLineError(Exception):
    """A line that holds no message; `answer` is what its sender is told."""

    def __init__(self, answer: JSONRPCError) -> None:
        super().__init__(answer.error.message)
        self.answer = answer


async def serve_lines(
    serve: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deliveries: Deliveries
) -> None:
    """Run `serve` over the connection until the peer stops sending; its calls are cancelled then. What has arrived of
    its answers goes into `deliveries`.

    `reader` must have been made with a limit of MAX_LINE_BYTES. The caller closes `writer`.
    """
    incoming_send, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outgoing_receive = anyio.create_memory_object_stream[SessionMessage](0)
    lines = _LineWriter(writer)
    with contextlib.ExitStack() as streams:
        for stream in (incoming_send, incoming, outgoing, outgoing_receive):
            streams.callback(stream.close)
        async with anyio.create_task_group() as group:
            group.start_soon(_read, reader, incoming_send, lines, deliveries)
            written = anyio.Event()
            group.start_soon(_write, outgoing_receive, lines, written, deliveries)
            await serve(incoming, outgoing)
            outgoing.close()
            with anyio.move_on_after(FLUSH_SECONDS):
                await written.wait()
            group.cancel_scope.cancel()


def parse(line: bytes) -> JSONRPCMessage:
    """The message in a line. Raises UnreadableLineError where it is none."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return _parse_leniently(line)
    # A request with an id that is none passes for a notification, which nobody answers.
    if isinstance(message, JSONRPCNotification) and b'"id"' in line:
        return _parse_leniently(line)
    return message


def _parse_leniently(line: bytes) -> JSONRPCMessage:
    """Python's parser takes lone surrogates, which the tools then refuse in words."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as failure:
        raise UnreadableLineError(_error(None, PARSE_ERROR, "The line is not JSON in UTF-8.")) from failure
    _check_identity(fields)
    try:
        return jsonrpc_message_adapter.validate_python(fields, by_name=False)
    except ValueError as failure:
        identity = fields.get("id") if isinstance(fields, dict) else None
        answer = _error(identity, INVALID_REQUEST, "The line is not a JSON-RPC 2.0 message.")
        raise UnreadableLineError(answer) from failure


def _check_identity(fields: object) -> None:
    """Raises UnreadableLineError for an id that no answer could carry."""
    if not isinstance(fields, dict) or "id" not in fields:
        return
    identity = fields["id"]
    if type(identity) is int or (isinstance(identity, str) and _LONE_SURROGATE.search(identity) is None):
        return
    raise UnreadableLineError(_error(None, INVALID_REQUEST, "The id must be an integer or a string of valid text."))


async def read_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next whole line; None at the end of the stream. Raises LineTooLongError after skipping one."""
    skipped = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            await reader.readexactly(overrun.consumed)
            skipped = True
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        else:
            if skipped:
                raise LineTooLongError
            return line


class _LineWriter:
    """Writes messages whole, whoever they come from; silent once the peer has gone."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, message: JSONRPCMessage) -> bool:
        """Whether it is out."""
        if self._writer.is_closing():
            return False
        self._writer.write(_encode(message))
        try:
            await self._writer.drain()
        except ConnectionError:
            return False
        return True


async def _read(
    reader: asyncio.StreamReader,
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
    lines: _LineWriter,
    deliveries: Deliveries,
) -> None:
    # Where the server has stopped before its peer there is nobody left to read for.
    with incoming, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            try:
                line = await read_line(reader)
                if line is None:
                    return
                deliveries.heard()
                if line.strip():
                    await incoming.send(SessionMessage(parse(line)))
            except LineTooLongError:
                refusal = f"A line may have at most {MAX_LINE_BYTES} bytes."
                await lines.write(_error(None, INVALID_REQUEST, refusal))
            except UnreadableLineError as unreadable:
                await lines.write(unreadable.answer)


async def _write(
    outgoing: MemoryObjectReceiveStream[SessionMessage],
    lines: _LineWriter,
    written: anyio.Event,
    deliveries: Deliveries,
) -> None:
    with outgoing, contextlib.suppress(anyio.ClosedResourceError):
        async for message in outgoing:
            if await lines.write(message.message) and isinstance(message.message, JSONRPCResponse):
                deliveries.written(message.message.id)
    written.set()


def _encode(message: JSONRPCMessage) -> bytes:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
    except (PydanticSerializationError, UnicodeEncodeError):
        logger.exception("a message cannot be written as JSON")
        if not isinstance(message, JSONRPCResponse | JSONRPCError | JSONRPCRequest):
            return b""
        fallback = _error(message.id, INTERNAL_ERROR, "The answer cannot be written as JSON.")
        return fallback.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"


def _error(identity: str | int | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=identity, error=ErrorData(code=code, message=message))
