"""What the MCP tests share: an installation of their own, raw relays, bounded waits."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters

from orchestrator import places
from orchestrator.adapters.data_directory import holder
from orchestrator.settings import Settings
from tests.pace import paced

HERE = Path(__file__).parent
PATIENCE = 20.0  # seconds; for what should take less than one


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait, within bounds, until the condition holds."""
    deadline = time.monotonic() + paced(PATIENCE)
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)


@dataclass
class Installation:
    """A data directory of a test's own, and what its relays and its owner see of the world."""

    root: Path

    @property
    def settings(self) -> Settings:
        return Settings.load(data_dir=self.root / "data", runtime_dir=self.root / "run")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            places.DATA_DIR_VARIABLE: str(self.root / "data"),
            places.RUNTIME_DIR_VARIABLE: str(self.root / "run"),
            "ORCHESTRATOR_OWNER_LINGER": "30",
        }

    @property
    def relay_command(self) -> list[str]:
        return [sys.executable, str(HERE / "fake_relay.py")]

    @property
    def server(self) -> StdioServerParameters:
        """How an MCP client starts a relay."""
        return StdioServerParameters(
            command=self.relay_command[0], args=self.relay_command[1:], env=self.environment, cwd="/"
        )

    @property
    def events(self) -> list[str]:
        """What the fake sessions noted."""
        path = self.root / "events"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def owner_pid(self) -> int | None:
        """The process that owns the data directory now."""
        lock = self.settings.data_dir / places.LOCK_NAME
        if not lock.exists():
            return None
        with lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = holder(self.settings.data_dir)
                return None if found is None else found.pid
        return None

    def stop_owner(self) -> None:
        """End the owner as a user would, and wait until it has gone."""
        pid = self.owner_pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + paced(PATIENCE)
        while self.owner_pid == pid:
            assert time.monotonic() < deadline, "the owner does not end"
            time.sleep(0.01)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    },
}


def call(number: int, code: str, session_id: str | None = None, **params: object) -> dict[str, Any]:
    """A request to run code."""
    arguments = {"code": code} if session_id is None else {"code": code, "session_id": session_id}
    return {
        "jsonrpc": "2.0",
        "id": number,
        "method": "tools/call",
        "params": {"name": "python_repl", "arguments": arguments, **params},
    }


class Relay:
    """A relay process, spoken to line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def spawn(cls, installation: Installation, **changed: str) -> "Relay":
        return cls(
            await asyncio.create_subprocess_exec(
                *installation.relay_command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**installation.environment, **changed},
                cwd="/",
                limit=64 * 1024 * 1024,
            )
        )

    async def send(self, message: dict[str, Any] | bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")
        await self.process.stdin.drain()

    async def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            answer = json.loads(await self.process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    async def initialize(self) -> dict[str, Any]:
        await self.send(INITIALIZE)
        return await self.receive()

    async def wait(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    async def close(self) -> tuple[bytes, bytes]:
        """End its input; what it still wrote to standard output and error."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.communicate(b"")

    async def put_away(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.close()
