"""The engine's attach stream: headers off wherever it is cut, the first byte never lost, TLS pumped in one thread."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.channel.attach_pump import StreamSplitter, pump
from orchestrator.adapters.channel.attach_stream import attach
from orchestrator.adapters.channel.transport import TransportError


def multiplexed(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", kind, len(data)) + data


@given(st.lists(st.tuples(st.sampled_from((0, 1, 2)), st.binary(max_size=30))), st.lists(st.integers(0, 10_000)))
def test_standard_output_comes_out_whole_however_the_stream_is_cut(
    written: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    raw = b"".join(multiplexed(kind, data) for kind, data in written)
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    splitter = StreamSplitter()
    read = b"".join(splitter.feed(raw[start:end]) for start, end in pairwise(edges))
    assert read == b"".join(data for kind, data in written if kind == 1)


def test_stream_without_headers_is_refused() -> None:
    with pytest.raises(OSError, match="not multiplexed"):
        StreamSplitter().feed(b"HTTP/1.1 200 OK")


Engine = Callable[[bytes], Callable[[float], socket.socket]]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine that answers one request with what the test says, and hangs up after it."""
    threads: list[threading.Thread] = []

    def answering(answer: bytes) -> Callable[[float], socket.socket]:
        ours, theirs = socket.socketpair()

        def serve() -> None:
            with theirs:
                theirs.settimeout(5)
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += theirs.recv(4096)
                assert request.startswith(b"POST /v1.41/containers/so-x/attach?stream=1&stdin=1&stdout=1 HTTP/1.1")
                theirs.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return lambda _deadline: ours

    yield answering
    for thread in threads:
        thread.join(5)


def test_first_bytes_of_the_stream_are_not_swallowed_with_the_head(engine: Engine) -> None:
    dial = engine(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n" + multiplexed(1, b"hello"))
    with attach(dial, api_version="1.41", container="so-x", deadline=time.monotonic() + 5) as stream:
        assert stream.recv(100, socket.MSG_WAITALL) == multiplexed(1, b"hello")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'HTTP/1.1 404 Not Found\r\n\r\n{"message":"No such container"}', "refused to attach \\(404\\)"),
        (b"HTTP/1.1 101", "hung up"),
        (b"x" * 20_000, "did not answer"),
    ],
)
def test_engine_that_does_not_attach_is_told_apart(engine: Engine, answer: bytes, reason: str) -> None:
    with pytest.raises(TransportError, match=reason):
        attach(engine(answer), api_version="1.41", container="so-x", deadline=time.monotonic() + 5)


def pumping(engine: socket.socket, leftover: bytes = b"") -> tuple[socket.socket, threading.Thread]:
    ours, inner = socket.socketpair()
    ours.settimeout(10)
    thread = threading.Thread(target=pump, args=(engine, inner, StreamSplitter(), leftover))
    thread.start()
    return ours, thread


def test_pump_carries_megabytes_both_ways_at_once_and_ends_with_its_host() -> None:
    far, near = socket.socketpair()
    far.settimeout(10)
    data = bytes(range(256)) * 20_000
    ours, thread = pumping(near, leftover=b"before")
    senders = [
        threading.Thread(target=ours.sendall, args=(data,)),
        threading.Thread(target=far.sendall, args=(multiplexed(1, data) + multiplexed(2, b"noise"),)),
    ]
    readers = [
        threading.Thread(target=lambda: received.append(read(far, len(data)))),
        threading.Thread(target=lambda: received.append(read(ours, len(data) + 6))),
    ]
    received: list[bytes] = []
    for worker in (*senders, *readers):
        worker.start()
    for worker in (*senders, *readers):
        worker.join(10)
    assert sorted(received, key=len) == [data, b"before" + data]
    ours.close()
    thread.join(5)
    assert not thread.is_alive()
    assert far.recv(1) == b""
    far.close()


def test_pump_hands_on_what_came_before_the_engine_hung_up() -> None:
    far, near = socket.socketpair()
    ours, thread = pumping(near)
    far.sendall(multiplexed(1, b"last words"))
    far.close()
    assert read(ours, 100) == b"last words"
    thread.join(5)
    ours.close()


def test_pump_speaks_tls_in_its_one_thread() -> None:
    """Without certificates: what is tested is reading, writing and waiting."""
    far, near = socket.socketpair()
    plain = []
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
    accepting = threading.Thread(target=lambda: plain.append(server.wrap_socket(far, server_side=True)))
    accepting.start()
    secure = client.wrap_socket(near)
    accepting.join(5)
    engine = plain[0]
    engine.settimeout(10)
    data = bytes(1_000_000)
    ours, thread = pumping(secure)
    sending = threading.Thread(target=engine.sendall, args=(multiplexed(1, data),))
    sending.start()
    assert read(ours, len(data)) == data
    sending.join(5)
    ours.sendall(b"to the agent")
    assert engine.recv(100) == b"to the agent"
    ours.close()
    thread.join(5)
    assert not thread.is_alive()
    engine.close()


def read(sock: socket.socket, size: int) -> bytes:
    taken = b""
    while len(taken) < size:
        piece = sock.recv(65536)
        if not piece:
            break
        taken += piece
    return taken
