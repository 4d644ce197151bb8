"""A relay in front of a real engine that a test tells what goes wrong, at which request, and how often."""

import contextlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.adapters.engine.candidates import Endpoint
from orchestrator.adapters.engine.endpoint import Probe, dial, find_engine

# What happens to a request: `hold` passes it on late, `answer` gives an error in the engine's place, `trickle` passes
# the engine's answer on byte by byte, `cut` has it done and hangs up before the answer, `late` hangs up at once and has
# it done later.
Kind = Literal["hold", "answer", "trickle", "cut", "late"]

_BYTE_PAUSE = 0.05  # seconds between two bytes that trickle


@dataclass
class Fault:
    """What happens to requests that match; `met` counts them. Over when the test is, or when `end` is called."""

    request: re.Pattern[bytes]
    kind: Kind
    seconds: float = 60.0  # for which a request is held or late
    status: int = 500
    message: str = "something went wrong"
    times: int = 1_000_000
    met: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        """Let go of what is held, and spare what comes."""
        self.times = 0
        self.over.set()

    def hits(self, data: bytes) -> bool:
        """Whether it happens to what begins with these bytes."""
        if self.met >= self.times or self.request.match(data) is None:
            return False
        self.met += 1
        return True


class EngineRelay:
    """Listens on a TCP port of its own."""

    def __init__(self, engine: Probe | None = None, *, port: int = 0) -> None:
        self._engine = engine or find_engine()
        self._faults: list[Fault] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def probe(self) -> Probe:
        return Probe(Endpoint(self.address, "test"), "works", "", "", self._engine.api_version)

    def fault(self, request: str, kind: Kind, **more: object) -> Fault:
        """`request` is a pattern of method and path, without the version of the API, such as `POST /containers/create`;
        a newer fault goes before an older one.
        """
        method, _, path = request.partition(" ")
        pattern = re.compile(rf"(?:{method}) (?:/v[0-9.]+)?{path}".encode())
        made = Fault(pattern, kind, **more)  # type: ignore[arg-type] # the fields of a fault
        self._faults.insert(0, made)
        return made

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        for fault in self._faults:
            fault.end()

    def close(self) -> None:
        self.heal()
        for sock in self._open:
            _end(sock)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            engine = dial(self._engine.endpoint, time.monotonic() + 5)
            self._open.append(engine)
            engine.settimeout(None)
            answers = _Answers(engine, client)
            threading.Thread(target=answers.carry, daemon=True).start()
            while data := client.recv(65536):
                fault = next((fault for fault in self._faults if fault.hits(data)), None)
                if fault is not None and fault.kind == "late":
                    answers.cut = True
                    _do_late(fault, data, client, engine)
                    return
                if fault is not None and not _passed_on(fault, client, answers):
                    break
                engine.sendall(data)
            _end(engine, socket.SHUT_WR)


class _Answers:
    """What comes back on one connection."""

    def __init__(self, engine: socket.socket, client: socket.socket) -> None:
        self.trickling: Fault | None = None
        self.cut = False
        self._engine = engine
        self._client = client

    def carry(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._engine.recv(65536):
                if self.cut:
                    _end(self._client)
                    continue
                self._send(data)
            _end(self._client, socket.SHUT_WR)

    def _send(self, data: bytes) -> None:
        fault = self.trickling
        while fault is not None and data and not fault.over.wait(_BYTE_PAUSE):
            self._client.sendall(data[:1])
            data = data[1:]
        self._client.sendall(data)


def _passed_on(fault: Fault, client: socket.socket, answers: _Answers) -> bool:
    """Whether the request is to reach the engine."""
    match fault.kind:
        case "answer":
            client.sendall(_answer(fault))
            while client.recv(
                65536
            ):  # what belongs to the request; a close with bytes unread would take the answer back
                pass
            return False
        case "hold":
            fault.over.wait(fault.seconds)
        case "trickle":
            answers.trickling = fault
        case "cut":
            answers.cut = True
    return True


def _do_late(fault: Fault, data: bytes, client: socket.socket, engine: socket.socket) -> None:
    _end(client, socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while more := client.recv(65536):
            data += more
    fault.over.wait(fault.seconds)
    engine.sendall(data)  # and no end after it, which the engine would take for a client that has gone


def _answer(fault: Fault) -> bytes:
    body = json.dumps({"message": fault.message}).encode()
    head = f"HTTP/1.1 {fault.status} Fault\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _end(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(how)
