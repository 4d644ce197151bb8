"""What the tests of the web share: a site of their own on loopback, keys that are known, and raw requests."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context
from starlette.types import ASGIApp

from orchestrator.domain.access import Caller
from orchestrator.domain.errors import StoreUnusableError
from orchestrator.faces.mcp_server import ToolServer, build_server
from orchestrator.faces.web.connections import Connections
from orchestrator.faces.web.keys import caller_of, line_of
from orchestrator.faces.web.pages import Site, SiteBounds
from orchestrator.faces.web.protected_resource import ProtectedResource
from orchestrator.faces.web.server import Reception, bound, listening
from tests.mcp.fake_owner import FakeOperations, FakeSessions

NEWEST = "2026-07-28"
HANDSHAKE = "2025-11-25"
PATIENCE = 20.0  # seconds; for what should take less than one
KEY = "so_aa_right"
READ_KEY = "so_bb_reader"
ADMIN_KEY = "so_cc_admin"
NO_SCOPE_KEY = "so_dd_nothing"
OTHER_KEY = "so_ee_other"


@dataclass
class KnownKeys:
    """Credentials as they stand in a dictionary."""

    callers: dict[str, Caller] = field(
        default_factory=lambda: {
            KEY: Caller("team", "aa", "a user", frozenset({"use"})),
            READ_KEY: Caller("team", "bb", "a reader", frozenset({"read"})),
            ADMIN_KEY: Caller("ops", "cc", "an operator", frozenset({"admin", "read"})),
            NO_SCOPE_KEY: Caller("team", "dd", "nobody", frozenset()),
            OTHER_KEY: Caller("others", "ee", "a stranger", frozenset({"use"})),
        }
    )
    asked: int = 0
    broken: bool = False  # nobody can say

    async def verify(self, token: str) -> Caller | None:
        self.asked += 1
        if self.broken:
            raise StoreUnusableError("The records are damaged.")
        return self.callers.get(token)

    async def current(self, caller: Caller) -> bool:
        if self.broken:
            raise StoreUnusableError("The records are damaged.")
        return caller in self.callers.values()


@dataclass
class Place:
    """A site that is served, and what stands behind it."""

    port: int
    keys: KnownKeys
    sessions: Mapping[str, FakeSessions]  # by tenant
    site: Site
    connections: Connections
    parts: dict[str, bool]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def events(self) -> list[str]:
        path = self.sessions["team"].events
        return path.read_text().splitlines() if path.exists() else []

    async def connect(self) -> "Wire":
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def request(
        self,
        method: str = "POST",
        path: str = "/mcp",
        *,
        body: object = None,
        key: str | None = KEY,
        headers: Mapping[str, str | None] | None = None,
    ) -> "Answer":
        """One request on a connection of its own."""
        wire = await self.connect()
        try:
            await wire.send(method, path, body=body, key=key, headers=headers)
            return await wire.answer()
        finally:
            await wire.close()


@asynccontextmanager
async def serving(
    tmp_path: Path,
    *,
    bounds: SiteBounds | None = None,
    connections: int = 500,
    each: int | None = None,
    resource: ProtectedResource | None = None,
    idle: float = 75,
    patience: float = 20,
    grace: float = 10,
    port: int = 0,
    furnish: Callable[[ToolServer], None] = lambda _server: None,
    wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> AsyncIterator[Place]:
    """Serve a site with pretended sessions on a free port."""
    tmp_path.mkdir(exist_ok=True)  # noqa: ASYNC240 - once, for a test
    keys = KnownKeys()
    sessions = {name: FakeSessions(tmp_path / name, {}) for name in ("team", "ops", "others")}
    parts = {"engine": True, "store": True, "image": True}

    async def left_by(context: Context, returns: bool) -> None:  # noqa: FBT001 - a callback
        await line_of(context).left(grace, returns=returns)

    async def readiness() -> Mapping[str, bool]:
        return dict(parts)

    async def figures() -> bytes:
        return b"orchestrator_up 1\n"

    server = build_server(
        lambda context: sessions[caller_of(context).tenant], left_by=left_by, progress_seconds=(0.05, 0.05)
    )
    furnish(server)
    site = Site(
        server,
        keys,
        readiness=readiness,
        figures=figures,
        open_figures=False,
        operations=FakeOperations(),
        bounds=bounds or SiteBounds(patience=patience),
        resource=resource,
    )
    sock = bound("127.0.0.1", port)
    reception = Reception(connections, idle, patience, each=each)
    async with site.running(), listening(wrap(site.guarded), sock, reception) as counted:
        watching = asyncio.create_task(site.watch())
        yield Place(sock.getsockname()[1], keys, sessions, site, counted, parts)
        watching.cancel()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was sent
        return json.loads(self.body)


class Wire:
    """A raw connection, on which anything may be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(
        self,
        method: str = "POST",
        path: str = "/mcp",
        *,
        body: object = None,
        key: str | None = KEY,
        headers: Mapping[str, str | None] | None = None,
    ) -> None:
        """A request; `headers` replace those that it would have, None leaves one out."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields: dict[str, str | None] = {
            "Host": "127.0.0.1",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "Content-Length": str(len(payload)),
            "Authorization": None if key is None else f"Bearer {key}",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + payload)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value for name, value in fields.items()}

    async def answer(self) -> Answer:
        """The next answer, whole."""
        status, headers = await self.head()
        async with asyncio.timeout(PATIENCE):
            if headers.get("transfer-encoding") == "chunked":
                body = b"".join([chunk async for chunk in self.chunks()])
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The parts of an answer that comes in parts."""
        while size := int((await self.reader.readuntil(b"\r\n")).strip() or b"0", 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)

    async def ended(self) -> None:
        """Wait until the server has closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.writer.wait_closed()
        except ConnectionError:
            pass

    def vanish(self) -> None:
        """Be gone without a word that is in order."""
        link: socket.socket = self.writer.get_extra_info("socket")
        del link
        self.writer.transport.abort()


def calling(code: str, session_id: str | None = None, number: int = 1, **more: object) -> dict[str, Any]:
    """A call of `python_repl`, as the newest revision has it."""
    arguments = {"code": code, **({} if session_id is None else {"session_id": session_id})}
    meta = {
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
        **more,
    }
    params = {"name": "python_repl", "arguments": arguments, "_meta": meta}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


MODERN: Mapping[str, str | None] = {
    "MCP-Protocol-Version": NEWEST,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "python_repl",
}
