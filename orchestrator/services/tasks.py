"""Background work: named, guarded, and owned by one TaskGroup; and how long an end waits for it."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from orchestrator.domain.errors import ShuttingDownError

logger = logging.getLogger(__name__)


class Patience:
    """What an end waits for has its bounds; once this is lost, nothing is waited for any more."""

    def __init__(self) -> None:
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def lost(self) -> bool:
        """Whether somebody is in a hurry."""
        return self._lost.done()

    def lose(self) -> None:
        """Cut short what is waited for, now and from now on. Idempotent."""
        if not self._lost.done():
            self._lost.set_result(None)

    async def wait(
        self, work: "Iterable[asyncio.Future[None]]", *, seconds: float | None = None, first: bool = False
    ) -> None:
        """Return when all of it (or the first) is done, the time is over, or patience is lost."""
        left = set(work)
        try:
            async with asyncio.timeout(seconds):
                while left and not self.lost:
                    _, pending = await asyncio.wait({*left, self._lost}, return_when=asyncio.FIRST_COMPLETED)
                    left &= pending
                    if first:
                        return
        except TimeoutError:
            return


class Tasks:
    """Starts tasks in the composition root's group; a failing one is logged and takes nothing down with it."""

    def __init__(self, group: asyncio.TaskGroup, patience: Patience | None = None) -> None:
        self._group = group
        self.patience = patience or Patience()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it until it ends or the group is cancelled. Raises ShuttingDownError where the group has ended."""
        guarded = _guarded(work, name)
        try:
            task = self._group.create_task(guarded, name=name)
        except RuntimeError as error:
            guarded.close()
            work.close()
            raise ShuttingDownError("The orchestrator is stopping.", hint="Call again when it runs.") from error
        task.add_done_callback(lambda _: work.close())  # one that is cancelled before its first step awaits nothing
        return task


async def _guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:
        logger.exception("the task %r failed", name)
