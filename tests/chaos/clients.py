"""MCP clients as people have them: each starts its relay, and starts another when that has ended."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CONNECTION_CLOSED

_PAUSE = 0.2  # seconds between one start and the next
CONNECT_SECONDS = 90.0
ANSWER_SECONDS = 120.0  # beyond the cell's own limit: starts, wakes and an engine that is away


class ClosedError(Exception):
    """The relay, or the owner behind it, has ended: the call has no answer."""


class BreachError(Exception):
    """What no client should ever see."""


class Editor:
    """One client and its connection, as long as `run` runs."""

    def __init__(self, server: StdioServerParameters, mode: Literal["legacy", "auto"], errors: TextIO) -> None:
        self.connections = 0
        self._server = server
        self._mode = mode
        self._errors = errors
        self._client: Client | None = None
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Connect, again and again."""
        while True:
            # A relay that is killed while it starts shows as a group around what the SDK saw of it.
            with contextlib.suppress(MCPError, OSError, ExceptionGroup):
                async with Client(stdio_client(self._server, errlog=self._errors), mode=self._mode) as client:
                    self.connections += 1
                    await self._now(client)
                    async with self._changed:
                        await self._changed.wait_for(lambda: self._client is not client)
            await self._now(None)
            await asyncio.sleep(_PAUSE)

    async def call(self, tool: str, arguments: Mapping[str, Any], *, seconds: float) -> Mapping[str, Any]:
        """The structured answer. Raises ClosedError where the connection ends first, BreachError for anything else."""
        client = await self._connected()
        try:
            async with asyncio.timeout(seconds + ANSWER_SECONDS):
                result = await client.call_tool(tool, dict(arguments))
        except TimeoutError as late:
            raise BreachError(f"no answer to {tool} within {seconds + ANSWER_SECONDS:g} s") from late
        except MCPError as failure:
            if failure.error.code != CONNECTION_CLOSED:
                raise BreachError(f"a protocol error: {failure}") from failure
            await self._left(client)
            raise ClosedError from failure
        if not isinstance(result.structured_content, dict):
            raise BreachError(f"an answer without fields: {result}")
        return result.structured_content

    async def _connected(self) -> Client:
        try:
            async with asyncio.timeout(CONNECT_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self._client is not None)
                if self._client is not None:
                    return self._client
        except TimeoutError:
            pass
        raise BreachError(f"no relay could be started within {CONNECT_SECONDS:g} s")

    async def _now(self, client: Client | None) -> None:
        async with self._changed:
            self._client = client
            self._changed.notify_all()

    async def _left(self, client: Client) -> None:
        if self._client is client:
            await self._now(None)
