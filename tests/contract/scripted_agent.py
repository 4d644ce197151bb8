"""An agent that does what a test tells it, over either transport, from the other end of a real socket."""

import asyncio
import hashlib
import json
import os
import random
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from orchestrator.adapters.channel.attach_transport import agent_marker, host_marker
from orchestrator.adapters.channel.transport import Transport
from orchestrator.domain import wire

SANDBOX = "ab" * 16
SECRET = "cd" * 32
PATIENCE = 5.0  # seconds that any step of a script may take

Header = dict[str, Any]


class Writer(Protocol):
    """What a script writes to."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class End(Protocol):
    """How a scripted agent reaches its host."""

    async def connect(self) -> tuple[asyncio.StreamReader, Writer]: ...


class UnixEnd:
    """Connects to the socket in the sandbox's directory, again and again until it is there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def connect(self) -> tuple[asyncio.StreamReader, Writer]:
        while True:
            try:
                return await asyncio.open_unix_connection(sock=knock(self._directory))
            except OSError:
                await asyncio.sleep(0.005)


def knock(directory: Path) -> socket.socket:
    """A connection to the socket in that directory, whose path may be too long for an address."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    entered = os.open(directory, os.O_PATH)
    try:
        sock.connect(f"/proc/self/fd/{entered}/{wire.socket_name(SECRET)}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(entered)
    return sock


class AttachEnd:
    """An engine in this process: each attach is a socket pair, and what the agent writes is multiplexed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._attached: asyncio.Queue[socket.socket] = asyncio.Queue()
        self._untaken: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False

    def attach(self, _deadline: float) -> socket.socket:
        with self._lock:
            if self._closed:
                raise ConnectionRefusedError
            ours, engine = socket.socketpair()
            self._untaken.add(engine)
        self._loop.call_soon_threadsafe(self._attached.put_nowait, engine)
        return ours

    async def connect(self) -> tuple[asyncio.StreamReader, Writer]:
        attached = await self._attached.get()
        self._untaken.discard(attached)
        reader, writer = await asyncio.open_unix_connection(sock=attached)
        await reader.readuntil(host_marker(SECRET))
        engine = _Multiplexer(writer)
        # Replies to an older connection, and what is none of ours, may come first.
        engine.write(wire.encode({"type": "reply", "id": 1, "ok": True}))
        writer.write(struct.pack(">BxxxI", 2, 5) + b"error")
        engine.write(agent_marker(SECRET))
        return reader, engine

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for engine in self._untaken:
                engine.close()


class _Multiplexer:
    """Cuts at random, as an engine cuts where it likes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._random = random.Random(7)  # noqa: S311 - cuts, no secrets

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            piece = bytes(rest[: self._random.choice((1, 5, 31, 4096, 65536))])
            rest = rest[len(piece) :]
            self._writer.write(struct.pack(">BxxxI", 1, len(piece)) + piece)

    def close(self) -> None:
        self._writer.close()

    async def wait_closed(self) -> None:
        await self._writer.wait_closed()


class Reach:
    """A host's transport and the agent's end of it."""

    def __init__(self, transport: Transport, end: End) -> None:
        self.transport = transport
        self._end = end
        self._agents: list[ScriptedAgent] = []

    def agent(self, **identity: object) -> "ScriptedAgent":
        self._agents.append(ScriptedAgent(self._end, identity))
        return self._agents[-1]

    async def close(self) -> None:
        self.transport.close()
        for agent in self._agents:
            await agent.close()


class ScriptedAgent:
    """One connection at a time, and as honest as its script."""

    def __init__(self, end: End, identity: Header) -> None:
        self.answers_pings = True
        self.identity: Header = {
            "sandbox": SANDBOX,
            "agent": "digest",
            "python": "3.11.2",
            "incarnation": 0,
            "last_execution": 0,
            "running": None,
            "lease": 1800,
            "last_request": 0,
            **identity,
        }
        self._end = end
        self._reader: asyncio.StreamReader | None = None
        self._writer: Writer | None = None
        self._writers: list[Writer] = []
        self._decoder = wire.FrameDecoder()
        self._arrived: list[wire.Frame] = []

    async def connect(self) -> "ScriptedAgent":
        """Connect and say nothing."""
        async with asyncio.timeout(PATIENCE):
            self._reader, self._writer = await self._end.connect()
        self._writers.append(self._writer)
        self._decoder, self._arrived = wire.FrameDecoder(), []
        return self

    async def say_hello(self, *, secret: str = SECRET, **lies: object) -> "ScriptedAgent":
        """Connect, prove (or not), and wait for the welcome."""
        await self.connect()
        challenge = await self.next()
        assert challenge.type == "challenge"
        proof = wire.proof(secret, "agent", challenge.header["nonce"])
        self.send({"type": "hello", "proof": proof, "nonce": "ef" * 16, **self.identity, **lies})
        welcome = await self.next()
        assert welcome.type == "welcome"
        assert wire.proven(SECRET, "host", "ef" * 16, welcome.header["proof"])
        return self

    def send(self, header: Header, parts: Sequence[bytes] = ()) -> None:
        self.send_raw(wire.encode(header, parts))

    def send_raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def next(self) -> wire.Frame:
        """The next frame that is no heartbeat. Raises EOFError where the host hung up."""
        assert self._reader is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._arrived:
                    frame = self._arrived.pop(0)
                    if frame.type != "ping":
                        return frame
                    if self.answers_pings:
                        self.send({"type": "pong"})
                try:
                    data = await self._reader.read(65536)
                except ConnectionError as error:
                    raise EOFError from error
                if not data:
                    raise EOFError
                self._arrived += self._decoder.feed(data)

    async def hung_up_on(self) -> bool:
        """Whether the host ends the connection, whatever it says before."""
        try:
            while True:
                await self.next()
        except EOFError:
            return True

    async def answer(self, **fields: object) -> wire.Frame:
        """Answer the next request with `ok` and these fields."""
        request = await self.next()
        self.send({"type": "reply", "id": request.header["id"], "ok": True, **fields})
        return request

    async def refuse(self, code: str) -> None:
        self.turn_down(await self.next(), code, "no")

    def turn_down(self, request: wire.Frame, code: str, message: str = "no", **fields: object) -> None:
        """Refuse that request."""
        error = {"code": code, "message": message, **fields}
        self.send({"type": "reply", "id": request.header["id"], "ok": False, "error": error})

    def freeze(self, request: wire.Frame, *, files: bool = True) -> None:
        """Say that the moment of a save is past."""
        self.send({"type": "frozen", "save": request.header["id"], "files": files})

    def send_piece(self, request: wire.Frame, data: bytes, **lies: object) -> None:
        """Send a piece of a save."""
        self.send(*piece(request.header["id"], data, **lies))

    def saved(self, request: wire.Frame, **lies: object) -> None:
        """Answer a save with what it was ordered to make."""
        header = {"type": "reply", "id": request.header["id"], "ok": True, "files": True, "cpu": 0.5, "remarks": []}
        self.send(header, [manifest(request, **lies), b"names", b"files"])

    def restored(self, request: wire.Frame, **lies: object) -> None:
        """Answer a restore."""
        header = {"type": "reply", "id": request.header["id"], "ok": True, "restored": 1, "crashed": None, **lies}
        self.send(header, [b'{"lost":[["y","gone"]],"state_lost":[["cwd","gone, too"]]}'])

    async def taken(self) -> int:
        """How many pieces of a save the host has room for again."""
        frame = await self.next()
        assert frame.type == "taken"
        return int(frame.header["count"])

    def report(self, request: wire.Frame, *, output: bytes = b"", **fields: object) -> None:
        """Answer an execute request with a result."""
        self.send(*result(request.header["id"], request.header["execution"], output=output, **fields))

    def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.close()

    async def close(self) -> None:
        """Let go of all connections that there ever were."""
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def result(number: int, execution: int, *, output: bytes = b"", **fields: object) -> tuple[Header, list[bytes]]:
    """A reply that says that the cell ended well."""
    header = {
        "type": "reply",
        "id": number,
        "ok": True,
        "execution": execution,
        "outcome": "ok",
        "duration": 0.1,
        "output_bytes": len(output),
        "namespace_kept": True,
        "resumed": None,
        "memory_peak": 4096,
        "variables": 1,
        "cause": None,
        "notes": [],
        **fields,
    }
    report = b'{"error":null,"bound":["x"],"removed":[],"displays":[],"value":true,"notes":[]}'
    return header, [report, output, b"", b"42", b""]


def digest_of(data: bytes) -> str:
    """What a script calls a piece of that content."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def piece(save: int, data: bytes, **lies: object) -> tuple[Header, list[bytes]]:
    """A piece of a save."""
    fields = {"digest": digest_of(data), "size": len(data), "encoding": "raw"}
    return {"type": "piece", "save": save, **fields, **lies}, [data]


def manifest(request: wire.Frame, **lies: object) -> bytes:
    """The manifest that a save was ordered to make."""
    ordered = request.header
    fields = {
        "version": 1,
        "sequence": ordered["snapshot"],
        **{name: ordered[name] for name in ("incarnation", "execution", "environment")},
        "python": "3.11",
        "names": [["x", "value", "int", 28, "saved", None, None, "ab" * 16]],
        "unlisted_names": 0,
        "files": [],
        "unlisted_files": 0,
        "namespace": [],
        "workspace": [],
    }
    return json.dumps({**fields, **lies}).encode()
