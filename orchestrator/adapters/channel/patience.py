"""A deadline that runs only while the other side has something to do."""

import asyncio
from collections.abc import Callable


class Patience:
    """Calls `over` once, with a clause that says why: after `total` seconds of waiting in all, or after `idle` seconds
    without progress. Runs from the start.
    """

    def __init__(self, *, total: float, idle: float, over: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = total
        self._idle = idle
        self._over = over
        self._since: float | None = None  # when it began to run
        self._progress = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self.resume()

    def resume(self) -> None:
        """The other side is to do something."""
        if self._since is None and not self._ended:
            self._since = self._progress = self._loop.time()
            if self._timer is None:
                self._arm(self._since)

    def pause(self) -> None:
        """It is our turn."""
        if self._since is not None:
            self._left -= self._loop.time() - self._since
            self._since = None

    def progress(self) -> None:
        """The other side has done something."""
        self._progress = self._loop.time()

    def cancel(self) -> None:
        """Want no more."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, since: float) -> None:
        self._timer = self._loop.call_at(min(since + self._left, self._progress + self._idle), self._look)

    def _look(self) -> None:
        # Neither a pause nor progress moves the timer, since they come with every piece: it looks when it is due.
        self._timer = None
        if self._since is None:
            return
        now = self._loop.time()
        if now >= self._since + self._left:
            self._end("took too long")
        elif now >= self._progress + self._idle:
            self._end(f"made no progress for {self._idle:.0f} s")
        else:
            self._arm(self._since)

    def _end(self, why: str) -> None:
        self._ended = True
        self._over(why)
