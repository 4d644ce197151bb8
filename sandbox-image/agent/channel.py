"""The agent's end of the channel to the host: connect, prove, answer each request once, and end with the lease."""

import _socket  # what the module socket wraps, which is dear to import before the hello
import os
import time
from _collections_abc import Sequence  # collections is dear, too

from agent.framestream import READ_SIZE, FrameStream
from agent.reactor import Reactor
from agent.wire import Header, encode, proof, proven, readdressed

CHANNEL_DIRECTORY = "/run/channel"
TYPE_CHECKING = False  # typing is dear to import before the hello
if TYPE_CHECKING:
    from typing import Protocol

    class Served(Protocol):
        """Whom the channel serves."""

        def identity(self) -> Header:
            """What a hello says."""

        def greeted(self) -> None:
            """A hello is out."""

        def asked(self, header: Header, parts: list[bytes]) -> None:
            """The host wants something."""

        def disconnected(self) -> None:
            """The connection is gone."""


_SEND_BUFFER = 2 * 1024 * 1024  # bytes, where the kernel allows: a piece goes out in one write, and the next beside it
_KEPT_REPLIES = 32
_KEPT_BYTES = 16 * 1024 * 1024
_HANDSHAKE_BOUND = 10.0  # seconds
_LEAST_TRYING = 30.0  # seconds of uninterrupted trying before a lease may be over
_QUICK_TRIES = 500
_GAP = 5.0  # a tick this late means that we were frozen: trying was interrupted


class Channel:
    """One proven connection at a time, whatever carries it."""

    def __init__(
        self,
        reactor: Reactor,
        secret: str,
        lease: float,
        served: "Served",
    ) -> None:
        self._reactor = reactor
        self._secret = secret
        self._lease = lease
        self._served = served
        self._stream: FrameStream | None = None
        self._nonce = ""
        self._proven = False
        self._heard = 0.0
        self._heartbeat = _HANDSHAKE_BOUND
        self._replies: dict[int, bytes] = {}  # the oldest first
        self._at_work: set[int] = set()
        self._failed_at: set[int] = set()  # requests that were refused so, whatever else comes of them
        self._highest_id = 0
        self._alone_since = self._trying_since = self._ticked = time.monotonic()
        self._tick()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, proven or on its way there."""
        return self._stream is not None

    def begin(self, stream: FrameStream) -> None:
        """A connection stands; the host speaks first."""
        self._stream = stream
        self._proven = False
        self._heard = time.monotonic()
        self._heartbeat = _HANDSHAKE_BOUND / 3

    def ended(self, _reason: str = "") -> None:
        """The connection is gone."""
        if self._stream is not None:
            self._stream = None
            self._alone_since = self._trying_since = time.monotonic()
            self._served.disconnected()

    def send(self, header: Header) -> None:
        """A frame that is no reply; dropped where there is no connection."""
        self.send_encoded(encode(header))

    def send_encoded(self, frame: bytes | memoryview) -> None:
        """The same for the bytes of one, which must stay as they are until they are out."""
        if self._stream is not None and self._proven:
            self._stream.send_encoded(frame)

    def reply(self, request: int, header: Header, parts: Sequence[bytes] = ()) -> bytes:
        """Answer a request, now and whenever it is asked again: the frame that does so."""
        frame = encode({"type": "reply", "id": request, **header}, parts)
        self._answer(request, frame)
        return frame

    def reply_alike(self, request: int, frame: bytes) -> None:
        """Answer a request with what was the reply to another one."""
        try:
            self._answer(request, readdressed(frame, request))
        except ValueError:
            self.refuse(request, "forgotten", "its reply does not fit into a frame under this id")

    def _answer(self, request: int, frame: bytes) -> None:
        if request in self._failed_at:
            return
        self._at_work.discard(request)
        self._replies[request] = frame
        while len(self._replies) > _KEPT_REPLIES or sum(map(len, self._replies.values())) > _KEPT_BYTES:
            del self._replies[next(iter(self._replies))]
        self.send_encoded(frame)

    def refuse(self, request: int, code: str, message: str, resumed: int | None = None) -> None:
        """Answer that it is not to be done; where the worker was lost, with what the present one stands at."""
        error: Header = {"code": code, "message": message}
        if code == "lost":
            error["resumed"] = resumed
        self.reply(request, {"ok": False, "error": error})

    def arrived(self, header: Header, parts: list[bytes]) -> None:
        """A frame from the host."""
        self._heard = time.monotonic()
        kind = header["type"]
        if not self._proven:
            self._shake_hands(kind, header)
        elif kind == "ping":
            self._send({"type": "pong"})
        elif kind != "pong":
            self._dispatch(header, parts)

    def _shake_hands(self, kind: str, header: Header) -> None:
        if kind == "challenge" and isinstance(header.get("nonce"), str):
            self._nonce = os.urandom(16).hex()
            proof_of_agent = proof(self._secret, "agent", header["nonce"])
            identity = {**self._served.identity(), "last_request": self._highest_id}
            self._send({"type": "hello", "proof": proof_of_agent, "nonce": self._nonce, **identity})
            self._served.greeted()
        elif kind == "welcome" and self._nonce and proven(self._secret, "host", self._nonce, header.get("proof")):
            self._proven = True
            heartbeat = header.get("heartbeat")
            self._heartbeat = float(heartbeat) if isinstance(heartbeat, int | float) and heartbeat > 0 else 10.0
        else:
            self._drop()

    def _dispatch(self, header: Header, parts: list[bytes]) -> None:
        request = header.get("id")
        if not isinstance(request, int):
            self._served.asked(header, parts)
        elif request in self._replies:
            if self._stream is not None:
                self._stream.send_encoded(self._replies[request])
        elif request > self._highest_id:
            self._highest_id = request
            self._at_work.add(request)
            self._ask(request, header, parts)
        elif request not in self._at_work:
            self.refuse(request, "forgotten", "its reply is no longer kept")

    def _ask(self, request: int, header: Header, parts: list[bytes]) -> None:
        try:
            self._served.asked(header, parts)
        except Exception:  # who waits is answered, though nobody knows how far it came
            self.refuse(request, "failed", "the agent failed at it")
            self._failed_at.add(request)
            raise

    def _send(self, header: Header) -> None:
        if self._stream is not None:
            self._stream.send(header)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self.ended()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked > _GAP:
            self._trying_since = self._heard = now
        self._ticked = now
        if self._stream is not None:
            if now - self._heard > 3 * self._heartbeat:
                self._drop()
        elif now - self._alone_since > self._lease and now - self._trying_since > _LEAST_TRYING:
            os._exit(0)
        self._reactor.after(1.0, self._tick)


class UnixConnector:
    """Connects to the host's socket whenever there is no connection."""

    def __init__(self, reactor: Reactor, channel: Channel, secret: str) -> None:
        self._reactor = reactor
        self._channel = channel
        self._path = f"{CHANNEL_DIRECTORY}/{proof(secret, 'socket', '')[:32]}"
        self._tries = 0
        self._try()

    def _try(self) -> None:
        if not self._channel.connected:
            self._connect()
        self._tries += 1
        # Quick at first: after a lost channel the host listens again within milliseconds.
        self._reactor.after(0.02 if self._tries < _QUICK_TRIES else 0.25, self._try)

    def _connect(self) -> None:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SEND_BUFFER)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            return
        fd = connection.detach()
        self._tries = 0
        self._channel.begin(FrameStream(self._reactor, fd, fd, self._channel.arrived, self._channel.ended))


class AttachConnector:
    """Standard input and output as the channel: a connection begins with the host's marker."""

    def __init__(self, reactor: Reactor, channel: Channel, secret: str) -> None:
        self._reactor = reactor
        self._channel = channel
        self._marker = bytes.fromhex(proof(secret, "host", "attach"))
        self._answer = bytes.fromhex(proof(secret, "agent", "attach"))
        self._reading, self._writing = os.dup(0), os.dup(1)
        self._stream: FrameStream | None = None
        self._recent = b""  # the last bytes read, in which a marker may have begun
        os.set_blocking(self._reading, False)
        reactor.watch(self._reading, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            data = os.read(self._reading, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._reactor.forget(self._reading)  # the engine closed it for good; the lease decides
            return
        recent = self._recent + data
        found = recent.rfind(self._marker)
        if found >= 0:
            data = recent = recent[found + len(self._marker) :]
            self._begin()
        self._recent = recent[1 - len(self._marker) :]
        if data and self._stream is not None and self._stream.open:
            self._stream.take(data)

    def _begin(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._channel.ended()
        self._stream = FrameStream(
            self._reactor, None, os.dup(self._writing), self._channel.arrived, self._channel.ended
        )
        self._stream.send_encoded(self._answer)
        self._channel.begin(self._stream)
