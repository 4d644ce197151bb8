"""An operator's side of the conversation with an owner."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from orchestrator.domain.errors import OrchestratorError, OwnedError
from orchestrator.domain.orders import Answer
from orchestrator.faces.admin_wire import ADMIN, Line, chunk_line, encoded, heard

CONNECT_SECONDS: Final = 5.0
GREETING_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 60.0  # an owner that works says every ten seconds that it does
_MOST_LINE: Final = 64 * 1024 * 1024  # bytes of a line; an owner is trusted, and an answer with a cell's output is long


class NotListeningError(OwnedError):
    """Nobody listens there: an owner that is just beginning or ending, or one that has no socket."""


class Link:
    """A connection to an owner, which does one order at a time for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def answers(
        self, name: str, given: Line, *, chunks: AsyncIterator[bytes] | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Have the owner carry out an order; leave it early only with the whole link, which ends the order. Raises
        ToldError with what the owner refuses, OwnedError where it is gone.
        """
        try:
            self._writer.write(encoded({"order": name, "given": given}))
            await self._writer.drain()
            sending = None if chunks is None else asyncio.create_task(self._send(chunks), name="send a stream")
            try:
                while (line := await self._line(SILENCE_SECONDS)).get("done") is not True:
                    if (answer := heard(line)) is not None:
                        yield answer
            finally:
                if sending is not None:
                    sending.cancel()
                    await asyncio.wait([sending])
                    if not sending.cancelled() and (failure := sending.exception()) is not None:
                        raise failure  # what could not be read here is why the owner has ended the order
        except (ConnectionError, ValueError, KeyError, TypeError) as failure:
            raise _gone() from failure

    async def _send(self, chunks: AsyncIterator[bytes]) -> None:
        """Raises what reading the chunks raises, after the owner has been told nothing of an end."""
        try:
            async for chunk in chunks:
                self._writer.write(encoded(chunk_line(chunk)))
                await self._writer.drain()
            self._writer.write(encoded({"end": True}))
            await self._writer.drain()
        except ConnectionError:
            return  # its last line says why
        except (OSError, OrchestratorError):
            self._writer.close()  # so that the owner ends the order, and nothing waits
            raise

    async def _line(self, seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                line = await self._reader.readuntil(b"\n")
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as failure:
            raise _gone() from failure
        said: dict[str, Any] = json.loads(line)
        return said

    async def greet(self) -> None:
        """Raises OwnedError where the owner does not speak with operators, or not as we do."""
        self._writer.write(encoded({"protocol": ADMIN[0], "version": ADMIN[1]}))
        await self._writer.drain()
        greeting = await self._line(GREETING_SECONDS)
        if not greeting.get("ok"):
            raise OwnedError(
                f"The owner of the data directory refuses: {greeting.get('error', 'it says nothing')}",
                hint="End it, or upgrade it, and run the command again.",
            )


@asynccontextmanager
async def linked(socket_path: Path) -> AsyncIterator[Link]:
    """A link to the owner that listens there. Raises NotListeningError and OwnedError."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=_MOST_LINE)
    except (OSError, TimeoutError) as failure:
        raise NotListeningError(
            f"The owner of the data directory cannot be asked: {failure or 'it does not answer'}.",
            hint="Where a program uses the directory as a library, wait for its end; else end the owner.",
        ) from failure
    try:
        link = Link(reader, writer)
        try:
            await link.greet()
        except (OSError, ValueError, AttributeError) as failure:
            raise NotListeningError(f"The owner of the data directory has hung up: {failure}.") from failure
        yield link
    finally:
        writer.transport.abort()


def _gone() -> OwnedError:
    return NotListeningError("The owner of the data directory has ended meanwhile.", hint="Run the command again.")
