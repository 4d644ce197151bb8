"""Calls with an idempotency key: run once, and answered alike however often they are made."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.domain.errors import BusyError, InvalidRequestError, OutcomeUnknownError
from orchestrator.domain.model import ExecutionResult
from orchestrator.domain.ports import Clock
from orchestrator.domain.repeats import FirstCall, Repeat, RepeatRecords
from orchestrator.services.lookups import Lookups
from orchestrator.services.tasks import Tasks


@dataclass(slots=True)
class _Flight:
    """A call under way, and how many wait for it."""

    request: str
    answer: "asyncio.Future[ExecutionResult]"
    task: "asyncio.Task[None] | None" = None
    awaited: int = field(default=0)


class Repeats:
    """Of all tenants. A key belongs to a tenant and a session's name."""

    def __init__(self, records: RepeatRecords, lookups: Lookups, tasks: Tasks, clock: Clock, *, window: float) -> None:
        self._records = records
        self._lookups = lookups
        self._tasks = tasks
        self._clock = clock
        self._window = timedelta(seconds=window)
        self._flights: dict[tuple[str, str, str], _Flight] = {}

    async def once(
        self, tenant: str, session_id: str, repeat: Repeat, run: Callable[[], Awaitable[ExecutionResult]]
    ) -> ExecutionResult:
        """What `run` answers, or has answered to the first call with that key.

        Raises InvalidRequestError where that one asked for something else, OutcomeUnknownError where nobody can tell
        any more what became of it, BusyError where it runs in a sandbox of an earlier owner. Whoever waits for a call
        that is under way may go away; the last one's going ends it.
        """
        name = (tenant, session_id, repeat.key)
        flight = self._flights.get(name)
        if flight is None:
            first = await self._records.first_call(tenant, session_id, repeat.key)
            flight = self._flights.get(name)
            if flight is None and first is not None:
                _require_same(first.request, repeat)
                return await self._first_answer(tenant, session_id, first)
        if flight is None:
            flight = self._flights[name] = _Flight(repeat.request, asyncio.get_running_loop().create_future())
            flight.task = self._tasks.spawn(_carry(flight, run), "call with a key")
            flight.task.add_done_callback(lambda _: self._landed(name))
        _require_same(flight.request, repeat)
        return await _join(flight)

    async def forget_old(self) -> None:
        """Keys that were used long ago."""
        await self._records.forget_calls(self._clock.now() - self._window)

    def _landed(self, name: tuple[str, str, str]) -> None:
        flight = self._flights.pop(name)
        if not flight.answer.done():
            flight.answer.set_exception(BusyError("The call was stopped.", hint="Call again."))
        flight.answer.exception()  # whether or not anybody waits

    async def _first_answer(self, tenant: str, session_id: str, first: FirstCall) -> ExecutionResult:
        kept = await self._lookups.kept(session_id, first.execution, tenant=tenant, key=first.session)
        if kept is not None and kept.result is not None:
            return kept.result
        told = "and nobody can tell what became of it"
        if kept is None:
            told = "in a session that was deleted since"
        elif kept.outcome not in (None, "outcome_unknown"):
            told = f"and ended as {kept.outcome!r}; its answer is not kept"
        elif kept.outcome is None and kept.started_at is not None:
            raise BusyError(
                f"The call is under way, as execution {first.execution}.",
                hint="Make it again later, with the same key.",
            )
        raise OutcomeUnknownError(
            f"The call was made before, as execution {first.execution}, {told}. It was not run again.",
            execution=first.execution,
            hint="Look at the session's variables to see what it did; use a new key to run the code again.",
        )


async def _carry(flight: _Flight, run: Callable[[], Awaitable[ExecutionResult]]) -> None:
    try:
        answer = await run()
    except Exception as error:  # noqa: BLE001 - it belongs to who waits
        if not flight.answer.done():
            flight.answer.set_exception(error)
    else:
        if not flight.answer.done():
            flight.answer.set_result(answer)


async def _join(flight: _Flight) -> ExecutionResult:
    flight.awaited += 1
    try:
        return await asyncio.shield(flight.answer)
    finally:
        flight.awaited -= 1
        if not flight.awaited and not flight.answer.done() and flight.task is not None:
            flight.task.cancel()


def _require_same(request: str, repeat: Repeat) -> None:
    if request != repeat.request:
        raise InvalidRequestError(
            "This idempotency key was used for another call in this session.", hint="Use a new key for each new call."
        )
