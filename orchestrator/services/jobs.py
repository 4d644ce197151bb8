"""One call at a time, first come first served: the queue of a session."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from orchestrator.domain.errors import BusyError, OrchestratorError
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Job(Generic[T]):
    """A call on its way. Its caller may go away; the work then stops as soon as it can."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._received: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._once_received: Callable[[], Awaitable[None]] | None = None
        self._afterwards: Callable[[], Awaitable[None]] | None = None
        self._stop: Callable[[], None] | None = None
        self._stopped = False

    @property
    def awaited(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self._answer.done()

    @property
    def stopped(self) -> bool:
        """Whether the work was asked to end early, be it before it could be told."""
        return self._stopped

    def can_be_stopped_by(self, stop: Callable[[], None]) -> None:
        """From now on `stop` asks the work to end early; it returns at once."""
        self._stop = stop

    def stop(self) -> None:
        """Ask the work to end early, where it can; work that has not begun looks at `stopped`."""
        self._stopped = True
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

    def once_received(self, then: Callable[[], Awaitable[None]]) -> None:
        """Do that, still within this job's turn, after its caller has taken the answer; never where it went away."""
        self._once_received = then

    def afterwards(self, then: Callable[[], Awaitable[None]]) -> None:
        """Do that within this job's turn when it has been answered, whoever took the answer."""
        self._afterwards = then

    def unwatched(self) -> None:
        """Nobody asks for the answer."""
        self._answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    async def answer(self) -> T:
        """Wait; being cancelled here stops the work. To be awaited at once, and once."""
        received = False
        try:
            answer = await self._answer
            received = True
        except asyncio.CancelledError:
            self._answer.cancel()
            self.stop()
            raise
        finally:
            self._received.set_result(received)
        return answer

    async def wind_up(self) -> None:
        """Do what was to be done after the answer, and once it is received, if it is."""
        try:
            if self._once_received is not None and await self._received:
                await self._once_received()
            if self._afterwards is not None:
                await self._afterwards()
        except Exception:
            logger.exception("what follows an answer failed")


async def carry_out(job: Job[T], work: Callable[[], Awaitable[T]], cancelled: OrchestratorError) -> None:
    """Do the work and hand its outcome to whoever waits for the job; `cancelled` is told where it is cut short."""
    try:
        job.finish(await work())
    except asyncio.CancelledError:
        job.fail(cancelled)
        raise
    except Exception as error:  # noqa: BLE001 - it belongs to the caller, who gets it
        job.fail(error)


# How a call stands to the others: `call` first come, first served, and too many are refused; `interrupting` asks what
# runs to end early, and needs no place among the others; `next` is work of ours that goes before what waits; `yielding`
# is work of ours that is asked to end as soon as a call comes.
Kind = Literal["call", "interrupting", "next", "yielding"]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    job: Job[Any]
    work: Callable[[], Awaitable[Any]]
    kind: Kind


class JobQueue:
    """Serial work with a bounded number of calls waiting; its task lives only while there is work."""

    def __init__(self, tasks: Tasks, name: str, *, limit: int, idle: Callable[[], None]) -> None:
        self._tasks = tasks
        self._name = name
        self._limit = limit
        self._idle = idle
        self._waiting: deque[_Waiting] = deque()
        self._running: _Waiting | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: OrchestratorError | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing is taken any more."""
        return self._ended is not None

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a call that runs or waits."""
        places = [place for place in (self._running, *self._waiting) if place is not None]
        return any(place.kind in {"call", "interrupting"} and place.job.awaited for place in places)

    async def submit(self, work: Callable[[Job[T]], Awaitable[T]], *, kind: Kind = "call") -> T:
        """Wait for a turn and the outcome.

        Raises BusyError where too many of a kind wait, ShuttingDownError, and what the queue was ended with.
        """
        place = self._place(work, kind)
        try:
            answer: T = await place.job.answer()
            return answer  # noqa: TRY300 - the place is left where it is
        except asyncio.CancelledError:
            if place in self._waiting:  # else it had its turn
                self._waiting.remove(place)
            raise

    def begin(self, work: Callable[[Job[None]], Awaitable[None]]) -> None:
        """Have that done before all that waits; nobody waits for it. Raises like `submit`."""
        self._place(work, "next").job.unwatched()

    def _place(self, work: Callable[[Job[T]], Awaitable[T]], kind: Kind) -> _Waiting:
        if self._ended is not None:
            raise self._ended
        # Work of ours ends no other: what is due beside a hibernation comes after it, and finds nothing to do.
        if self._running is not None and (
            kind == "interrupting" or (kind == "call" and self._running.kind == "yielding")
        ):
            self._running.job.stop()
        if kind == "interrupting":
            for waiting in self._waiting:
                if waiting.kind == "next":  # it goes before this one
                    waiting.job.stop()
        if sum(waiting.kind == kind for waiting in self._waiting) >= self._limit:
            raise BusyError(
                f"{self._limit} calls wait for this session already.",
                hint="Wait for their answers, or use another session for work that can run beside it.",
            )
        if self._task is None:
            self._task = self._tasks.spawn(self._work(), self._name)
        job: Job[T] = Job()
        place = _Waiting(job, lambda: work(job), kind)
        if kind == "next":
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        return place

    def interrupt(self) -> bool:
        """Ask the call that runs to end early; whether one runs."""
        if self._running is None or self._running.kind != "call" or not self._running.job.awaited:
            return False
        self._running.job.stop()
        return True

    def end(self, error: OrchestratorError) -> None:
        """Answer every call with `error`, now and from now on; what runs is asked to end early."""
        self._ended = error
        if self._running is not None:
            self._running.job.stop()
            self._running.job.fail(error)
        while self._waiting:
            self._waiting.popleft().job.fail(error)

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
                place = self._running = self._waiting.popleft()
                if place.kind == "yielding" and any(waiting.job.awaited for waiting in self._waiting):
                    place.job.stop()  # they came before its turn
                if place.job.awaited:
                    await carry_out(place.job, place.work, BusyError("The call was cut short."))
                    await place.job.wind_up()
                self._running = None
        finally:
            # No await from the last look at the queue to here: a call that comes now starts another task.
            self._running = None
            self._task = None
        self._idle()
