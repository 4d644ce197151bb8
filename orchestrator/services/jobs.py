"""One call at a time, first come first served: the queue of a session."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from orchestrator.domain.errors import BusyError, OrchestratorError
from orchestrator.services.tasks import Tasks

T = TypeVar("T")


class Job(Generic[T]):
    """A call on its way. Its caller may go away; the work then stops as soon as it can."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._stop: Callable[[], None] | None = None

    @property
    def awaited(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self._answer.done()

    def can_be_stopped_by(self, stop: Callable[[], None]) -> None:
        """From now on `stop` asks the work to end early; it returns at once."""
        self._stop = stop

    def stop(self) -> None:
        """Ask the work to end early, where it can."""
        if self._stop is not None:
            self._stop()

    def finish(self, answer: T) -> None:
        """Answer, if somebody still waits."""
        if not self._answer.done():
            self._answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if somebody still waits."""
        if not self._answer.done():
            self._answer.set_exception(error)

    async def answer(self) -> T:
        """Wait; being cancelled here stops the work."""
        try:
            return await self._answer
        except asyncio.CancelledError:
            self._answer.cancel()
            self.stop()
            raise


async def carry_out(job: Job[T], work: Awaitable[T], cancelled: OrchestratorError) -> None:
    """Do the work and hand its outcome to whoever waits for the job; `cancelled` is told where it is cut short."""
    try:
        job.finish(await work)
    except asyncio.CancelledError:
        job.fail(cancelled)
        raise
    except Exception as error:  # noqa: BLE001 - it belongs to the caller, who gets it
        job.fail(error)


class JobQueue:
    """Serial work with a bounded number of calls waiting; its task lives only while there is work."""

    def __init__(self, tasks: Tasks, name: str, *, limit: int, idle: Callable[[], None]) -> None:
        self._tasks = tasks
        self._name = name
        self._limit = limit
        self._idle = idle
        self._waiting: deque[tuple[Job[Any], Callable[[], Awaitable[Any]]]] = deque()
        self._running: Job[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: OrchestratorError | None = None

    async def submit(self, work: Callable[[Job[T]], Awaitable[T]], *, interrupts: bool = False) -> T:
        """Wait for a turn and the outcome; with `interrupts`, what runs now is asked to end early.

        Raises BusyError where too many calls wait, and what the queue was ended with.
        """
        if self._ended is not None:
            raise self._ended
        if len(self._waiting) >= self._limit:
            raise BusyError(
                f"{self._limit} calls wait for this session already.",
                hint="Wait for their answers, or use another session for work that can run beside it.",
            )
        job: Job[T] = Job()
        self._waiting.append((job, lambda: work(job)))
        if interrupts and self._running is not None:
            self._running.stop()
        if self._task is None:
            self._task = self._tasks.spawn(self._work(), self._name)
        return await job.answer()

    def end(self, error: OrchestratorError) -> None:
        """Answer every call with `error`, now and from now on; what runs is asked to end early."""
        self._ended = error
        if self._running is not None:
            self._running.stop()
            self._running.fail(error)
        while self._waiting:
            self._waiting.popleft()[0].fail(error)

    async def ended(self) -> None:
        """Wait until nothing runs any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def abort(self) -> None:
        """Cut short what runs."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                job, work = self._waiting.popleft()
                if job.awaited:
                    self._running = job
                    await carry_out(job, work(), BusyError("The call was cut short."))
                    self._running = None
        finally:
            # No await from the last look at the queue to here: a call that comes now starts another task.
            self._running = None
            self._task = None
        self._idle()
