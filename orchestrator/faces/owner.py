"""The owner's unix socket: relays connect, name their protocol, and are served until the last one has left."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from orchestrator import __version__
from orchestrator.faces.line_transport import FLUSH_SECONDS, MAX_LINE_BYTES

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
GREETING_SECONDS = 10.0
MAX_GREETING_BYTES = 4096
_BACKLOG = 64
_PAUSE_AFTER_ACCEPT_FAILURE = 0.1  # seconds; out of descriptors, most likely

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is spoken after the greeting; returns when the peer stops sending."""


class RefusedError(Exception):
    """A connection that is not served; the text is told to it."""


async def serve_connections(
    conversations: Mapping[tuple[str, int], Conversation],
    socket_path: Path,
    *,
    linger: float | None,
    ready: Callable[[], None] | None = None,
    max_connections: int = MAX_CONNECTIONS,
) -> None:
    """Listen at `socket_path` until nobody has been connected for `linger` seconds; None: until it is cancelled.

    `conversations` says for each protocol and version how it is spoken; `ready` is called once clients can connect.
    The caller must hold the lock of the data directory that the path was derived from: a socket file found there is
    taken for stale. Cancelling ends every conversation; in any case the socket file is gone afterwards. Raises OSError
    where it cannot listen.
    """
    listener = _listen(socket_path)
    connections = _Connections(conversations, max_connections)
    try:
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(connections.accept(listener, group), name="accept relays")
            if ready is not None:
                ready()
            await connections.until_left(linger)
            accepting.cancel()
            # A relay that is just connecting finds its connection closed without an answer, and starts another owner.
            connections.end()
    finally:
        _stop_listening(listener, socket_path)


class _Connections:
    def __init__(self, conversations: Mapping[tuple[str, int], Conversation], limit: int) -> None:
        self._conversations = conversations
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        while True:
            try:
                link, _ = await loop.sock_accept(listener)
            except OSError:
                logger.exception("a connection cannot be accepted")
                await asyncio.sleep(_PAUSE_AFTER_ACCEPT_FAILURE)
                continue
            number += 1
            task = group.create_task(self._serve(link), name=f"relay {number}")
            self._tasks.add(task)
            self._changed.set()
            task.add_done_callback(self._forget)

    async def until_left(self, linger: float | None) -> None:
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._tasks else linger):
                    await self._changed.wait()
            except TimeoutError:
                return

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    async def _serve(self, link: socket.socket) -> None:
        link.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=link, limit=MAX_LINE_BYTES)
        try:
            conversation = await self._greet(link, reader)
            writer.write(_line({"ok": True, "product": __version__}))
            await conversation(reader, writer)
        except RefusedError as refusal:
            writer.write(_line({"ok": False, "error": str(refusal)}))
        except Exception:
            # One client's trouble must not reach the others, who share this task group.
            logger.exception("a connection failed")
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await writer.wait_closed()
            writer.transport.abort()  # a peer that does not read keeps no descriptor of ours

    async def _greet(self, link: socket.socket, reader: asyncio.StreamReader) -> Conversation:
        _check_peer(link)
        if len(self._tasks) > self._limit:
            raise RefusedError(f"{self._limit} clients are connected already; close one of them.")
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                line = await reader.readuntil(b"\n")
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as failure:
            raise RefusedError("No greeting came.") from failure
        protocol, version = _greeting(line)
        conversation = self._conversations.get((protocol, version))
        if conversation is None:
            known = ", ".join(f"{name} {number}" for name, number in self._conversations)
            raise RefusedError(
                f"This owner (version {__version__}) does not speak {protocol} {version}, only {known}. "
                "Close all clients, so that it ends and a newer one can start."
            )
        return conversation


def _greeting(line: bytes) -> tuple[str, int]:
    try:
        fields = json.loads(line[:MAX_GREETING_BYTES])
        protocol, version = fields["protocol"], fields["version"]
    except (ValueError, RecursionError, TypeError, KeyError) as failure:
        raise RefusedError("The first line must name protocol and version.") from failure
    if not isinstance(protocol, str) or type(version) is not int:
        raise RefusedError("The first line must name protocol and version.")
    return protocol[:64], version


def _check_peer(link: socket.socket) -> None:
    """Besides the socket's mode: this user's processes and root's are served, nobody else's."""
    credentials = getattr(socket, "SO_PEERCRED", None)
    if credentials is None:
        return
    _, user, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, credentials, struct.calcsize("3i")))
    if user not in (0, os.geteuid()):
        raise RefusedError(f"User {user} is not served here.")


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)  # the directory has kept strangers out until here
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _stop_listening(listener: socket.socket, path: Path) -> None:
    path.unlink(missing_ok=True)  # before the listener: no moment at which a file stands and nobody listens
    listener.close()


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
