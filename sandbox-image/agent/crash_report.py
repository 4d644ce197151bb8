"""What the worker's C code says of the lines that run: at a fatal signal by itself, else when it is asked by a signal.

It goes through a pipe that user code can write to as well: what is shown is what user code could have printed.
"""

import builtins
import os

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

LINES_SIGNAL = 60  # of the real-time ones, far from those that libraries use
_MAX_READ = 64 * 1024
_MAX_LINES = 110  # faulthandler itself stops at a hundred frames
_FATAL, _STACK = b"Fatal Python error", b"Stack (most"
_LINE = b"  File "
_OURS = (b'"/opt/agent/', b"<frozen runpy>")


class CrashReport:
    """The pipe of one worker and of the copies that took over from it."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._kept = b""
        self.asked = False  # whether something may lie in it that is of no use any more

    def close_writing(self) -> None:
        """The worker has it."""
        os.close(self.writing)

    def waits(self) -> bool:
        """Whether nothing was said since this was asked last."""
        return not self._take()

    def lines(self) -> bytes:
        """The user's lines that were said last, or nothing; what was said before them is dropped."""
        self._take()
        said, self._kept, self.asked = self._kept, b"", False
        newest: list[bytes] = []
        for line in said.split(b"\n"):
            if line.startswith((_FATAL, _STACK)):
                newest = newest if line.startswith(_STACK) and newest[-1:] and newest[-1].startswith(_FATAL) else []
                newest.append(line)
            elif newest and line.startswith(_LINE) and not any(ours in line for ours in _OURS):
                newest.append(line)
        newest = newest[:_MAX_LINES]
        if not newest[-1:] or not newest[-1].startswith(_LINE):
            newest = [line for line in newest if line.startswith(_FATAL)]
        return b"\n".join(newest)

    def forget(self) -> None:
        """What was said was of a cell that has ended well."""
        if self.asked:
            self.lines()

    def close(self) -> None:
        """There is no such worker any more."""
        os.close(self._reading)

    def _take(self) -> bool:
        try:
            said = os.read(self._reading, _MAX_READ)
        except OSError:  # nothing is there
            return False
        self._kept = (self._kept + said)[-_MAX_READ:]
        return bool(said)
