"""Carries bytes between an engine's multiplexed attach stream and a socket of ours, both ways, in one thread.

One thread and not two, since a TLS socket must not be read and written at once.
"""

import contextlib
import selectors
import socket
import ssl
import struct
from typing import Final

_HEADER: Final = struct.Struct(">BxxxI")  # which stream, how many bytes
_STDOUT: Final = 1
_STREAMS: Final = 3
_CHUNK: Final = 256 * 1024
_MOST_HELD: Final = 1024 * 1024  # each way; beyond it the source waits
_IDLE_SECONDS: Final = 30.0
_TLS_RETRY_SECONDS: Final = 1.0  # TLS may have to write in order to read, which no selector tells of
_NOT_NOW: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StreamSplitter:
    """Takes the engine's 8-byte headers off and keeps what was written to standard output."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self._kept = False

    def feed(self, data: bytes) -> bytes:
        """The standard output in `data`. Raises OSError where it is not such a stream."""
        view = memoryview(data)
        kept = bytearray()
        while view:
            if self._left:
                piece = view[: self._left]
                if self._kept:
                    kept += piece
                self._left -= len(piece)
                view = view[len(piece) :]
                continue
            missing = _HEADER.size - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) == _HEADER.size:
                kind, self._left = _HEADER.unpack(self._header)
                if kind >= _STREAMS:
                    raise OSError("the engine's attach stream is not multiplexed")
                self._kept = kind == _STDOUT
                self._header = b""
        return bytes(kept)


def pump(engine: socket.socket, ours: socket.socket, splitter: StreamSplitter, leftover: bytes) -> None:
    """Carry until either side ends, then close both."""
    with contextlib.suppress(OSError), engine, ours, selectors.DefaultSelector() as selector:
        engine.setblocking(False)
        ours.setblocking(False)
        selector.register(engine, selectors.EVENT_READ)
        selector.register(ours, selectors.EVENT_READ)
        _carry(engine, ours, splitter, bytearray(leftover), selector)


def _carry(
    engine: socket.socket,
    ours: socket.socket,
    splitter: StreamSplitter,
    to_host: bytearray,
    selector: selectors.BaseSelector,
) -> None:
    to_agent = bytearray()
    engine_ended = False
    longest = _TLS_RETRY_SECONDS if isinstance(engine, ssl.SSLSocket) else _IDLE_SECONDS
    while not (engine_ended and not to_host):
        reads_engine = not engine_ended and len(to_host) < _MOST_HELD
        _watch(selector, engine, read=reads_engine, write=bool(to_agent))
        _watch(selector, ours, read=len(to_agent) < _MOST_HELD, write=bool(to_host))
        # What TLS has decrypted already, no selector tells of.
        buffered = reads_engine and isinstance(engine, ssl.SSLSocket) and engine.pending() > 0
        selector.select(0 if buffered else longest)
        if reads_engine and (data := _read(engine)) is not None:
            engine_ended = not data
            to_host += splitter.feed(data)
        if len(to_agent) < _MOST_HELD and (data := _read(ours)) is not None:
            if not data:
                return
            to_agent += data
        _write(ours, to_host)
        _write(engine, to_agent)


def _watch(selector: selectors.BaseSelector, sock: socket.socket, *, read: bool, write: bool) -> None:
    events = selectors.EVENT_READ * read | selectors.EVENT_WRITE * write
    known = selector.get_map().get(sock)
    if known is not None and known.events == events:
        return
    if known is not None:
        selector.unregister(sock)
    if events:
        selector.register(sock, events)


def _read(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(_CHUNK)
    except _NOT_NOW:
        return None


def _write(sock: socket.socket, pending: bytearray) -> None:
    try:
        while pending:
            # A copy: TLS wants the same bytes again after "not now", wherever they lie.
            del pending[: sock.send(bytes(pending[:_CHUNK]))]
    except _NOT_NOW:
        return
