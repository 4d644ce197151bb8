"""TCP connections within bounds: how many, how long they may be idle, how large and slow a request's head may be."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from orchestrator.faces.web.shares import is_among, network_of

MAX_HEAD: Final = 64 * 1024  # bytes of request line and headers
ABORT: Final = "orchestrator.abort"  # the key under which a request's scope has the way to cut its connection
LINGER_SECONDS: Final = 5.0  # for the rest of a body that nobody reads any more
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))  # seconds, seconds, times


class HeadTooLargeError(Exception):
    """A request's head has more than MAX_HEAD bytes."""


class Connections:
    """The connections of one server. Where there are too many, the one that has been idle for longest goes; where
    one address has too many, its own goes. Proxies have no share, since they speak for many.
    """

    def __init__(self, limit: int, patience: float, *, each: int | None = None, proxies: str | None = None) -> None:
        self.limit = limit
        self.patience = patience
        self._each = limit if each is None else each
        self._speaks_for_many = is_among(proxies)
        self._of: Counter[str] = Counter()  # by address
        self._idle: dict[BoundedProtocol, None] = {}  # in the order in which they became so
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def made(self, protocol: "BoundedProtocol") -> bool:
        """A connection has come; whether it may stay."""
        self._count += 1
        self._of[protocol.address] += 1
        if self._of[protocol.address] > self._each and not self._speaks_for_many(protocol.host):
            # One look through those that are idle, and only for whom has too many.
            longest = next((one for one in self._idle if one.address == protocol.address), None)
        elif self._count > self.limit:
            longest = next(iter(self._idle), None)
        else:
            self._idle[protocol] = None
            return True
        if longest is None:
            return False
        self.busy(longest)
        longest.transport.abort()
        self._idle[protocol] = None
        return True

    def lost(self, protocol: "BoundedProtocol") -> None:
        """It is gone."""
        self._count -= 1
        self._of[protocol.address] -= 1
        if not self._of[protocol.address]:
            del self._of[protocol.address]
        self.busy(protocol)

    def busy(self, protocol: "BoundedProtocol") -> None:
        """It has a request. Idempotent."""
        self._idle.pop(protocol, None)

    def idle(self, protocol: "BoundedProtocol") -> None:
        """It has none."""
        self._idle[protocol] = None


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, which itself bounds neither the head nor the time that it takes."""

    bounds: Connections  # of the server that it belongs to; set by `protocol_of`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._reading_body = False
        self._timer: asyncio.TimerHandle | None = None
        self._status = 400
        self.host = (transport.get_extra_info("peername") or ("",))[0]
        self.address = network_of(self.host)
        _keep_alive(transport)
        if self.bounds.made(self):
            self._expect(self.bounds.patience, self._refuse, 408)
        else:
            self._refuse(503)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._expect_nothing()
        self.bounds.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless it makes the head too large."""
        if not self._reading_body:
            self._head_bytes += len(data)
            if self._timer is None:
                self._expect(self.bounds.patience, self._refuse, 408)
        super().data_received(data)
        if not self._reading_body and self._head_bytes > MAX_HEAD:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """A request begins; whoever answers it can cut the connection."""
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """The head is whole: what follows has bounds of its own."""
        self._expect_nothing()
        self._reading_body = True
        self.bounds.busy(self)
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            self._status = 431
            raise HeadTooLargeError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole, too."""
        self._reading_body = False
        self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, for a while."""
        super().on_response_complete()
        if self.transport.is_closing():  # it waits until all is read, and that may be never
            self._expect(self.bounds.patience, self.transport.abort)
            return
        if self.pipeline:
            return
        self.bounds.idle(self)
        if self._reading_body:  # it was answered before its end; a close at once could cost the client the answer
            self._expect(LINGER_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """It was idle for long. What is not read by now never will be."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        del msg
        self._refuse(self._status)

    def _refuse(self, status: int) -> None:
        self._expect_nothing()
        if not self.transport.is_closing():
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def _expect(self, seconds: float, otherwise: Callable[..., None], *arguments: object) -> None:
        self._expect_nothing(head=self._head_bytes)
        self._timer = self.loop.call_later(seconds, otherwise, *arguments)

    def _expect_nothing(self, head: int = 0) -> None:
        self._head_bytes = head
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_of(bounds: Connections) -> "Callable[..., BoundedProtocol]":
    """The protocol for one server's connections."""
    return type("Protocol", (BoundedProtocol,), {"bounds": bounds})


def _keep_alive(transport: asyncio.Transport) -> None:
    """Have the kernel find out about peers that vanished without a word."""
    link: Any = transport.get_extra_info("socket")
    if link is None or link.family not in (socket.AF_INET, socket.AF_INET6):
        return
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
