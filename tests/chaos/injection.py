"""The injector as the run sees it: started, listened to, ended."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.injector import Injected, Orders
from tests.chaos.places import INJECTOR

_ROOT = Path(__file__).parents[2]
_END_SECONDS = 120.0  # a daemon that is told to end waits for its containers, and comes up again afterwards


class Injection:
    """The second process and what it has done so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.faults: list[Injected] = []
        self._process = process
        self._reading = asyncio.create_task(self._read(), name="read the injector's log")

    @classmethod
    @asynccontextmanager
    async def begun(cls, orders: Orders) -> AsyncIterator["Injection"]:
        """Faults come until the block ends; then whatever it has stopped goes on, and the engine is up."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", INJECTOR, orders.as_argument()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
        )
        injection = cls(process)
        try:
            yield injection
        finally:
            await injection._end()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.faults.append(Injected(**json.loads(line)))

    async def _end(self) -> None:
        """Its standard input ends. Raises RuntimeError where it has failed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                code = await self._process.wait()
                await self._reading
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._reading.cancel()
            raise
        if code != 0:
            raise RuntimeError(f"the injector ended with exit code {code}")
