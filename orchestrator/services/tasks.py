"""Background work: named, guarded, and owned by one TaskGroup."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from orchestrator.domain.errors import ShuttingDownError

logger = logging.getLogger(__name__)


class Tasks:
    """Starts tasks in the composition root's group; a failing one is logged and takes nothing down with it."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it until it ends or the group is cancelled. Raises ShuttingDownError where the group has ended."""
        guarded = _guarded(work, name)
        try:
            return self._group.create_task(guarded, name=name)
        except RuntimeError as error:
            guarded.close()
            work.close()
            raise ShuttingDownError("The orchestrator is stopping.", hint="Call again when it runs.") from error


async def _guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:
        logger.exception("the task %r failed", name)
