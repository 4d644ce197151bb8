"""The engine's attach stream as a transport, for engines whose file system we do not share.

A pump thread stands between the stream and a socket pair, so that what is above sees the same kind of socket as with
the Unix transport, and nothing of the engine's on the loop.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from orchestrator.adapters.channel.attach_pump import StreamSplitter, pump
from orchestrator.adapters.channel.disposable_threads import spawn
from orchestrator.adapters.channel.handshake import HEARTBEAT_SECONDS, shake_hands
from orchestrator.adapters.channel.transport import Connection, TransportError, UnreachableError, passed, seconds_until
from orchestrator.domain import wire
from orchestrator.domain.hardening import Channel

_CHUNK = 64 * 1024

logger = logging.getLogger(__name__)

# Opens the raw attach stream of the container, blocking until the deadline; raises OSError or TransportError.
AttachStream = Callable[[float], socket.socket]


def host_marker(secret: str) -> bytes:
    """With which a connection begins."""
    return bytes.fromhex(wire.proof(secret, "host", "attach"))


def agent_marker(secret: str) -> bytes:
    """With which the agent answers; what comes before belongs to an older connection."""
    return bytes.fromhex(wire.proof(secret, "agent", "attach"))


class AttachTransport:
    """Attaches anew for each connection."""

    def __init__(
        self, *, attach: AttachStream, sandbox_id: str, secret: str, heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self._attach = attach
        self._sandbox_id = sandbox_id
        self._secret = secret
        self._heartbeat = heartbeat
        self._closed = threading.Event()
        self._stream: socket.socket | None = None  # of the attempt that waits

    @property
    def channel(self) -> Channel:
        """The container's standard streams."""
        return Channel("attach")

    def open(self) -> None:
        """Nothing has to stand before the container."""

    def admit(self, pid: int) -> None:
        """The engine vouches for whom the stream belongs to."""

    def connect(self, deadline: float) -> Connection:
        """Attach, find the agent's marker, and shake hands through the pump."""
        try:
            return self._connect(deadline)
        except TimeoutError as error:
            raise TransportError("its agent did not say hello") from error
        except (OSError, wire.ProtocolViolationError) as error:
            if self._closed.is_set():
                raise TransportError("its channel was closed") from error
            kind = UnreachableError if isinstance(error, OSError) else TransportError
            raise kind(f"its stream broke: {error}") from error

    def close(self) -> None:
        """End the attempt that waits."""
        self._closed.set()
        if stream := self._stream:
            _shut(stream)

    def remove(self) -> None:
        """Nothing stands."""

    def _connect(self, deadline: float) -> Connection:
        if self._closed.is_set():
            raise TransportError("its channel was closed")
        try:
            stream = self._attach(deadline)
        except TimeoutError as error:
            raise UnreachableError("the engine did not attach in time") from error
        self._stream = stream
        if self._closed.is_set():  # after the stream is known: `close` either sees it or was seen here
            _shut(stream)
        try:
            stream.settimeout(seconds_until(deadline))
            stream.sendall(host_marker(self._secret))
            splitter = StreamSplitter()
            leftover = self._resynchronise(stream, splitter, deadline)
        except BaseException:
            stream.close()
            raise
        finally:
            self._stream = None
        ours, pumps = socket.socketpair()
        spawn(lambda: pump(stream, pumps, splitter, leftover), "channel-pump")  # closes both
        self._stream = ours
        try:
            hello = shake_hands(
                ours, secret=self._secret, sandbox_id=self._sandbox_id, heartbeat=self._heartbeat, deadline=deadline
            )
        except BaseException:
            ours.close()
            raise
        finally:
            self._stream = None
        return Connection(ours, hello, self._heartbeat)

    def _resynchronise(self, stream: socket.socket, splitter: StreamSplitter, deadline: float) -> bytes:
        marker = agent_marker(self._secret)
        seen = b""
        while not passed(deadline):
            stream.settimeout(seconds_until(deadline))
            data = stream.recv(_CHUNK)
            if not data:
                raise TransportError("the engine ended its stream")
            seen += splitter.feed(data)
            before, found, after = seen.partition(marker)
            if found:
                return after
            seen = before[-(len(marker) - 1) :]
        raise TransportError("its agent did not say hello")


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
