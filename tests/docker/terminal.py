"""A command in a terminal of its own, as somebody at a keyboard has it."""

import asyncio
import fcntl
import os
import pty
import re
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.settings import Settings
from tests.pace import paced

_STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")
_CURSOR_ASKED = b"\x1b[6n"


class Terminal:
    """What the command has shown, and the keys that it is sent."""

    def __init__(self, process: asyncio.subprocess.Process, keyboard: int) -> None:
        self.process = process
        self._keyboard = keyboard
        self._raw = b""
        self._read = 0

    def hear(self) -> None:
        try:
            data = os.read(self._keyboard, 65_536)
        except OSError:  # the other side is gone
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._keyboard)
        if _CURSOR_ASKED in data:
            os.write(self._keyboard, b"\x1b[1;1R")  # as a terminal answers
        self._raw += data

    @property
    def shown(self) -> str:
        return _STEERING.sub("", self._raw.decode(errors="replace"))

    async def sees(self, text: str, *, seconds: float = 30) -> str:
        """All that came since the last look, once that text is in it."""
        try:
            async with asyncio.timeout(paced(seconds)):
                while text not in (fresh := self.shown[self._read :]):  # noqa: ASYNC110 - another process decides
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{text!r} did not come; there was: {self.shown[self._read :]!r}") from None
        self._read += fresh.index(text) + len(text)
        return fresh

    def types(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    async def ended(self, *, seconds: float = 30) -> int:
        async with asyncio.timeout(paced(seconds)):
            return await self.process.wait()


@asynccontextmanager
async def terminal(settings: Settings, *order: str) -> AsyncIterator[Terminal]:
    """`orchestrator` with that order, over those settings, in a terminal of 100 columns and 30 lines."""
    keyboard, screen = pty.openpty()
    os.set_blocking(keyboard, False)
    environment = {
        "TERM": "xterm",
        "COLUMNS": "100",
        "LINES": "30",
        "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", *order, "--data-dir", str(settings.data_dir)),
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
        preexec_fn=_take_terminal,
        env={**os.environ, **environment},
    )
    os.close(screen)
    opened = Terminal(process, keyboard)
    asyncio.get_running_loop().add_reader(keyboard, opened.hear)
    try:
        yield opened
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(keyboard)
        os.close(keyboard)


def _take_terminal() -> None:
    """So that Ctrl-C at the keyboard is a signal to the command."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
