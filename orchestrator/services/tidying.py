"""Gives back to the disk, behind a session's snapshots, what they have left in its file."""

import asyncio
import logging

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.services.about import about
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

_MOST_STEPS = 64  # of some ten MiB each; what is left then waits for the next snapshot


class Tidying:
    """After each snapshot, and all the more after one that failed. Nobody waits for it, and the next snapshot may begin
    meanwhile.
    """

    def __init__(self, key: str, pieces: Pieces, tasks: Tasks) -> None:
        self._key = key
        self._pieces = pieces
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._wanted = False

    def begin(self) -> None:
        """Tidy up from now on; once more, where that is under way."""
        self._wanted = True
        if self._task is not None:
            return
        try:
            self._task = self._tasks.spawn(self._run(), f"tidy up {self._key[:8]}")
        except OrchestratorError:
            self._wanted = False  # the end has come; the next owner's snapshots do it

    async def _run(self) -> None:
        try:
            while self._wanted and not self._tasks.patience.lost:
                self._wanted = False
                await self._steps()
        except OrchestratorError as error:
            logger.warning("what is not needed is not removed: %s", error, extra=about(self._key))
        finally:
            self._task = None

    async def _steps(self) -> None:
        for _ in range(_MOST_STEPS):
            if self._tasks.patience.lost or not (await self._pieces.collect(self._key)).more:
                return
