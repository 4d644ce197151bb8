"""uvicorn's protocol on a socket of ours: listen, and at the end let the calls under way come to theirs."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from orchestrator.faces.web.connections import Connections, protocol_of

_BACKLOG = 2_048
_CLOSE_SECONDS = 1.0  # for what is on its way to clients that read


@dataclass(frozen=True, slots=True)
class Reception:
    """How connections are received. Times in seconds."""

    connections: int
    idle: float
    patience: float
    tls: ssl.SSLContext | None = None
    proxies: str | None = None  # whose word about the client's address is taken
    each: int | None = None  # connections of one address; None: as many as of all


async def _at_once() -> None:
    """Wait for nothing."""


@asynccontextmanager
async def listening(
    app: ASGIApp, sock: socket.socket, reception: Reception, *, drain: Callable[[], Awaitable[None]] = _at_once
) -> AsyncIterator[Connections]:
    """Serve that application on a bound socket within this block. At its end nobody is let in any more, and no
    connection is left when `drain` has returned.
    """
    bounds = Connections(reception.connections, reception.patience, each=reception.each, proxies=reception.proxies)
    config = _config(app, reception, protocol_of(bounds))
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: config.http_protocol_class(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]
        sock=sock,
        ssl=reception.tls,
        ssl_handshake_timeout=reception.patience if reception.tls is not None else None,
        backlog=_BACKLOG,
    )
    try:
        yield bounds
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()  # those that are idle close; the others do after their answer
        try:
            await drain()
        finally:
            await _end(state)


async def _end(state: ServerState) -> None:
    tasks = set(state.tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
    for connection in list(state.connections):
        connection.transport.abort()


def bound(host: str, port: int) -> socket.socket:
    """A socket that is bound there. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _config(app: ASGIApp, reception: Reception, protocol: object) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=round(reception.idle),
        proxy_headers=reception.proxies is not None,
        forwarded_allow_ips=reception.proxies or "",
    )
    config.load()
    return config
