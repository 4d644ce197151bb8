"""An owner's side of its conversation with an operator: one order after the other, each ended when nobody listens."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final, Protocol

from orchestrator.domain.errors import InvalidRequestError, OrchestratorError
from orchestrator.domain.orders import Answer
from orchestrator.faces.admin_wire import (
    ADMIN as ADMIN,  # noqa: PLC0414 - named with the conversation
)
from orchestrator.faces.admin_wire import ALIVE_SECONDS, MAX_REQUEST_BYTES, Line, chunk_of, encoded, told, told_error
from orchestrator.faces.owner import Conversation

IDLE_SECONDS: Final = 600.0  # between two orders
CHUNK_SECONDS: Final = 60.0  # between two pieces of a client's stream
UNREAD_SECONDS: Final = 60.0  # that a client may leave an answer unread
_AHEAD: Final = 4  # lines of a client that wait their turn
_ENDING_SECONDS: Final = 30.0  # for an order that nobody waits for any more
_TOO_LONG: Final = told_error(InvalidRequestError(f"A line has more than {MAX_REQUEST_BYTES} bytes."))


class Operations(Protocol):
    """What an owner does for operators; see services/orders.py."""

    def answers(
        self, name: str, given: Mapping[str, object], *, chunks: AsyncIterator[bytes] | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Carry out one order. Raises OrchestratorError."""


def admin_conversation(operations: Operations) -> Conversation:
    """How an owner answers: who can connect to its socket is its user, or root."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Talk(operations, reader, writer).run()

    return converse


class _Talk:
    """One client. `gone` is set when it has left, or broken the rules, so that nothing more is done for it."""

    def __init__(self, operations: Operations, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._operations = operations
        self._reader = reader
        self._writer = writer
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        self._gone = asyncio.Event()
        self._streaming = False  # pieces of a stream may still come

    async def run(self) -> None:
        listening = asyncio.create_task(self._listen(), name="listen to an operator")
        try:
            while not self._gone.is_set() and (line := await self._next(IDLE_SECONDS)) is not None:
                await self._serve(line)
                if self._streaming:  # what is left of it cannot be told from orders
                    return
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen(self) -> None:
        try:
            while True:
                line = await self._reader.readuntil(b"\n")
                if len(line) > MAX_REQUEST_BYTES:
                    self._write(_TOO_LONG)
                    return
                await self._lines.put(line)
        except asyncio.LimitOverrunError:
            self._write(_TOO_LONG)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._gone.set()
            with suppress(asyncio.QueueFull):  # then nobody waits for more
                self._lines.put_nowait(None)

    async def _next(self, seconds: float) -> bytes | None:
        """The next line; None where none came."""
        try:
            async with asyncio.timeout(seconds):
                return await self._lines.get()
        except TimeoutError:
            return None

    async def _serve(self, line: bytes) -> None:
        carrying = asyncio.create_task(self._carry_out(line), name="carry out an order")
        leaving = asyncio.create_task(self._gone.wait(), name="see an operator leave")
        try:
            while not carrying.done() and not leaving.done():
                await asyncio.wait((carrying, leaving), timeout=ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if self._writer.is_closing():
                    self._gone.set()
                elif not carrying.done() and not leaving.done():
                    self._write({"alive": True})
        finally:
            leaving.cancel()
            carrying.cancel()
            await asyncio.wait((carrying, leaving), timeout=_ENDING_SECONDS)
        if carrying.done() and not carrying.cancelled():
            carrying.result()

    async def _carry_out(self, line: bytes) -> None:
        try:
            order, given = _asked(line)
            self._streaming = False
            async with aclosing(self._operations.answers(order, given, chunks=self._chunks())) as answers:
                async for answer in answers:
                    await self._tell(told(answer))
            await self._tell({"done": True})
        except OrchestratorError as error:
            await self._tell(told_error(error))
        except ConnectionError:
            self._gone.set()

    async def _chunks(self) -> AsyncIterator[bytes]:
        """What the client sends after its order. Raises InvalidRequestError where it stops before the end."""
        self._streaming = True
        while True:
            line = await self._next(CHUNK_SECONDS)
            if line is None:
                raise InvalidRequestError("The stream ended before its end.")
            said = _object(line)
            if said.get("end") is True:
                self._streaming = False
                return
            yield chunk_of(said)

    async def _tell(self, line: Line) -> None:
        self._write(line)
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the operator does not read") from None

    def _write(self, line: Line) -> None:
        self._writer.write(encoded(line))


def _asked(line: bytes) -> tuple[str, Mapping[str, object]]:
    said = _object(line)
    order, given = said.get("order"), said.get("given", {})
    if not isinstance(order, str) or not isinstance(given, dict):
        raise InvalidRequestError("The request cannot be read.", hint='Ask {"order": NAME, "given": {…}}.')
    return order, given


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise InvalidRequestError("The request cannot be read.", hint="It must be one JSON object a line.")
    return said
