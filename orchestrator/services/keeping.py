"""What a session's sandbox holds is kept: saved at once, in the background, or before it sleeps."""

import asyncio
import logging
from collections.abc import Callable

from orchestrator.domain.errors import NamespaceLostError, OrchestratorError, SandboxLostError
from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.snapshots import StoredSnapshot
from orchestrator.services.about import about
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.incarnation import Incarnation
from orchestrator.services.jobs import Job
from orchestrator.services.saving import Saver
from orchestrator.services.spent import Spent
from orchestrator.services.survivors import Sandbox

logger = logging.getLogger(__name__)


class Keeping:
    """Of one session."""

    def __init__(self, book: Bookkeeping, saver: Saver, incarnation: Incarnation, spent: Spent) -> None:
        self._book = book
        self._spent = spent
        self._saver = saver
        self._incarnation = incarnation
        self.hibernating = False

    async def save(self) -> StoredSnapshot | None:
        """Save what there is and wait for it; None where there is no sandbox. Raises what stood in the way."""
        try:
            sandbox = await self._incarnation.whole()
            return None if sandbox is None else await self._saver.save(sandbox.agent)
        except (NamespaceLostError, SandboxLostError) as error:
            await self._incarnation.gone(error)
            await self._book.try_to_settle()
            if isinstance(error, SandboxLostError) or self._incarnation.serving is None:
                raise
        # A copy serves on, which can be saved as well.
        return await self._saver.save(self._incarnation.serving.agent)

    async def begin_to_save(self) -> None:
        """Save in the background; what stands in the way is told, and it is tried again."""
        try:
            sandbox = await self._incarnation.whole()
            if sandbox is not None:
                await self._saver.begin(sandbox.agent)
        except OrchestratorError as error:
            await self._not_saved(error)

    async def _not_saved(self, error: OrchestratorError) -> None:
        self._saver.failed(error)
        if isinstance(error, NamespaceLostError | SandboxLostError):
            await self._incarnation.gone(error)
        await self._book.try_to_settle()

    async def hibernate(self, job: Job[bool], wanted: Callable[[], bool] = lambda: True) -> bool:
        """Save all, then remove the sandbox; False where that could not be done, and the session serves on.

        Never removes a sandbox that holds what no snapshot has. `wanted` is asked when its turn has come.
        """
        if not wanted():
            return False
        try:
            sandbox = await self._incarnation.whole()
        except OrchestratorError as error:
            await self._not_saved(error)
            return False
        if sandbox is None or (self._saver.container.saving and not await self._alone(job)):
            return False
        if not await self._hibernated(sandbox, job):
            self._book.owe_ready()
            await self._book.try_to_settle()
        # Asked of the record, since the answer to the change itself may have gone missing.
        if self._incarnation.sandbox is None or self._book.session.state not in ASLEEP:
            return False
        # The snapshot knows nothing of what it holds only in part: what is yet to be told outlives this process, too.
        self._book.owe_notes(self._saver.log.taken())
        await self._book.try_to_settle()
        self._incarnation.drop()
        return True

    async def _alone(self, job: Job[bool]) -> bool:
        """Wait for a save that goes on beside the cells; False where a call came first, which does not wait for it."""
        if job.stopped:
            return False
        waiting = asyncio.create_task(self._saver.ended(), name="wait for a save")

        def stop() -> None:
            waiting.cancel()

        job.can_be_stopped_by(stop)
        try:
            await asyncio.wait([waiting])
        finally:
            waiting.cancel()
        return not job.stopped

    async def _hibernated(self, sandbox: Sandbox, job: Job[bool]) -> bool:
        self.hibernating = True
        try:
            activity = await self._book.snapshotting()
            if activity is None or job.stopped:
                return False
            job.can_be_stopped_by(self._saver.abandon)
            await self._saver.save(sandbox.agent, final=True)
            await self._spent.between(self._book.session, self._saver.log.taken_since())
            return not job.stopped and await self._book.hibernate_saved(activity)
        except OrchestratorError as error:
            logger.warning("not hibernated: %s", error, extra=about(self._book.session))
            if isinstance(error, NamespaceLostError | SandboxLostError):
                await self._incarnation.gone(error)
            return False
        except BaseException:
            self._book.owe_ready()
            await self._book.try_to_settle()
            raise
        finally:
            self.hibernating = False
