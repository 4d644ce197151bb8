"""One proven connection on the loop: frames in and out, heartbeats, and an end."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from orchestrator.domain import wire
from orchestrator.domain.wire import Frame, FrameDecoder, ProtocolViolationError

# A restore's request and its window of pieces, of at most 8 MiB each, and room for what else is asked.
MAX_UNSENT: Final = 24 * 1024 * 1024
# Where the kernel allows it: a piece goes out in one write, and not in five turns of the loop.
SEND_BUFFER: Final = 2 * 1024 * 1024
SILENT_HEARTBEATS: Final = 3
MAX_PINGS_PER_HEARTBEAT: Final = 100
_PING: Final = wire.encode({"type": "ping"})
_PONG: Final = wire.encode({"type": "pong"})


class AgentLink(asyncio.BufferedProtocol):
    """Calls `on_begin` when it can send, `on_frame` for each frame but heartbeats and, once,
    `on_end` with None (the connection went) or what rule was broken.
    """

    def __init__(
        self,
        *,
        heartbeat: float,
        on_begin: Callable[["AgentLink"], None],
        on_frame: Callable[["AgentLink", Frame], None],
        on_end: Callable[["AgentLink", str | None], None],
    ) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heartbeat = heartbeat
        self._on_begin = on_begin
        self._on_frame = on_frame
        self._on_end = on_end
        self._decoder = FrameDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._ended = False
        self._tick_handle: asyncio.TimerHandle | None = None
        self._heard = True
        self._silent = 0
        self._pings_heard = 0
        self._pongs_owed = 0  # by the agent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen and to beat."""
        self._transport = cast("asyncio.WriteTransport", transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if self._ended:  # dropped before it began
            self._transport.abort()
            return
        self._tick_handle = asyncio.get_running_loop().call_later(self._heartbeat, self._tick)
        self._on_begin(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it went makes no difference
        """The connection is over; told once."""
        self._stop()
        if not self.closed.done():
            self.closed.set_result(None)
        self._end(None)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the frame's own size is known better
        """Where the next bytes go: into the frame that they belong to."""
        return self._decoder.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Cut frames and judge each; stops at the first bad one, so that a flood of them costs one."""
        self._heard = True
        try:
            for frame in self._decoder.filled(nbytes):
                if self._ended:
                    return
                self._receive(frame)
        except ProtocolViolationError as violation:
            self._end(str(violation))

    def send(self, encoded: bytes) -> None:
        """Write a frame; does nothing where the connection is over. A peer that does not read ends it."""
        if self._ended or self._transport is None:
            return
        self._transport.write(encoded)
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._end("it does not read what it is sent")

    def drop(self) -> None:
        """End it from our side, without `on_end`; unsent bytes are dropped."""
        self._ended = True
        self._stop()
        if self._transport is not None:
            self._transport.abort()

    def _receive(self, frame: Frame) -> None:
        if frame.type == "ping":
            self._pings_heard += 1
            if self._pings_heard > MAX_PINGS_PER_HEARTBEAT:
                raise ProtocolViolationError("it floods with pings")
            self.send(_PONG)
        elif frame.type == "pong":
            if not self._pongs_owed:
                raise ProtocolViolationError("a pong that nobody asked for")
            self._pongs_owed -= 1
        else:
            self._on_frame(self, frame)

    def _tick(self) -> None:
        # Counted in beats and not in seconds: after a pause of the whole machine the agent gets its three again.
        self._silent = 0 if self._heard else self._silent + 1
        self._heard = False
        self._pings_heard = 0
        if self._silent >= SILENT_HEARTBEATS:
            self._end(None)
            return
        self._pongs_owed += 1
        self.send(_PING)
        if not self._ended:
            self._tick_handle = asyncio.get_running_loop().call_later(self._heartbeat, self._tick)

    def _end(self, violation: str | None) -> None:
        if not self._ended:
            self.drop()
            self._on_end(self, violation)

    def _stop(self) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
