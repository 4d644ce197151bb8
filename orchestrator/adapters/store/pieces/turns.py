"""Blocking work on sessions' files: one turn after the other for each session, in a few threads for all of them.

A disk may never answer (a network mount, a dying device), and no thread can be taken back from it. Whoever waits is
told so after a while, and so is everybody whose turn would come after it.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.domain.errors import ShuttingDownError, StoreUnreachableError
from orchestrator.domain.ports import Clock

logger = logging.getLogger(__name__)

Kind = Literal["read", "write"]
Result = TypeVar("Result")

# Of each kind. A write waits for the disk most of its time, so two keep it busy; readers have threads of their own, so
# that no session's wake waits for the writes of others.
_THREADS = 2
STALLED_AFTER = 120.0  # seconds in which one turn has not ended, or none has begun: many times what 1 GB takes


@dataclass(frozen=True, slots=True)
class _Turn:
    kind: Kind
    work: Callable[[], Any]
    # Ours and not the pool's: it exists before the turn has come to any pool, and can be cancelled until it runs.
    future: "Future[Any]" = field(default_factory=Future)


class Turns:
    """First come, first served within a key; keys run beside one another."""

    def __init__(self, clock: Clock, stalled_after: float = STALLED_AFTER) -> None:
        self._clock = clock
        self._pools = {
            kind: ThreadPoolExecutor(_THREADS, thread_name_prefix=f"pieces-{kind}") for kind in ("read", "write")
        }
        self._lock = threading.Condition()
        self._waiting: dict[str, deque[_Turn]] = {}  # has a key while a turn of it is with a pool
        self._running: dict[str, float] = {}  # since when, by the monotonic clock
        self._moved = dict.fromkeys(self._pools, 0.0)  # when a turn of that kind last began
        self._stalled_after = stalled_after
        self._is_closing = False

    def take(self, key: str, kind: Kind, work: Callable[[], Result]) -> "asyncio.Future[Result]":
        """Queue `work`; the future is its result. Cancelled before its turn it never runs, later it runs to its end.

        The future raises StoreUnreachableError where the disk has not answered for long; the work may yet be done then.
        """
        turn = _Turn(kind, work)
        with self._lock:
            if self._is_closing:
                raise ShuttingDownError("The snapshots are closed.")
            line = self._waiting.get(key)
            if line is None:
                self._waiting[key] = deque()
                self._pools[kind].submit(self._run, key, turn)
            else:
                line.append(turn)
        return self._answer(key, turn)

    async def close(self) -> None:
        """Run what was queued and end the threads, but for those that the disk keeps. Idempotent."""
        with self._lock:
            self._is_closing = True
        await in_thread(self._drain, "pieces-close")

    def _answer(self, key: str, turn: _Turn) -> "asyncio.Future[Any]":
        # No closures: one that refers to itself, or to what holds it, keeps a turn's megabytes until the garbage
        # collector comes, which few and large objects never call.
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        is_stalled = partial(self._stalled, key, turn.kind, self._clock.monotonic())
        watch = loop.call_later(self._stalled_after, self._look, answer, turn.future, is_stalled)
        answer.add_done_callback(partial(_ended, watch, turn.future))
        turn.future.add_done_callback(partial(_report, loop, answer))
        return answer

    def _look(self, answer: "asyncio.Future[Any]", outcome: "Future[Any]", is_stalled: Callable[[], bool]) -> None:
        """Tell who waits that the disk does not answer; look again later where it does."""
        if answer.done():
            return
        if is_stalled():
            outcome.cancel()  # never to run, if it has not begun
            answer.set_exception(_unreachable(self._stalled_after))
        else:
            answer.get_loop().call_later(self._stalled_after / 4, self._look, answer, outcome, is_stalled)

    def _stalled(self, key: str, kind: Kind, taken_at: float) -> bool:
        """Whether nothing has happened for too long on which that turn waits."""
        with self._lock:
            since = self._running.get(key, max(taken_at, self._moved[kind]))
        return self._clock.monotonic() - since >= self._stalled_after

    def _run(self, key: str, turn: _Turn) -> None:
        with self._lock:
            self._running[key] = self._moved[turn.kind] = self._clock.monotonic()
        if turn.future.set_running_or_notify_cancel():
            try:
                result = turn.work()
            except BaseException as error:  # noqa: BLE001 - handed to the waiter, whatever it is
                turn.future.set_exception(error)
            else:
                turn.future.set_result(result)
        with self._lock:
            del self._running[key]
            line = self._waiting[key]
            if line:
                following = line.popleft()
                self._pools[following.kind].submit(self._run, key, following)
            else:
                del self._waiting[key]
                self._lock.notify_all()

    def _drain(self) -> None:
        with self._lock:
            ended = self._lock.wait_for(lambda: not self._waiting, timeout=self._stalled_after)
        if not ended:
            logger.error(
                "the disk has not answered for %.0f s: files of sessions are left as they are", self._stalled_after
            )
        for pool in self._pools.values():
            pool.shutdown(wait=ended, cancel_futures=not ended)


def _ended(watch: asyncio.TimerHandle, outcome: "Future[Any]", answer: "asyncio.Future[Any]") -> None:
    watch.cancel()
    if answer.cancelled():
        outcome.cancel()
    else:
        answer.exception()  # one that nobody awaits any more is no news


def _report(loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Any]", outcome: "Future[Any]") -> None:
    with suppress(RuntimeError):  # the loop is closed, so nobody waits
        loop.call_soon_threadsafe(_settle, answer, outcome)


def _settle(answer: "asyncio.Future[Any]", outcome: "Future[Any]") -> None:
    if answer.done() or outcome.cancelled():
        return
    error = outcome.exception()
    if error is None:
        answer.set_result(outcome.result())
    else:
        answer.set_exception(error)


def _unreachable(seconds: float) -> StoreUnreachableError:
    return StoreUnreachableError(
        f"The disk that holds the sessions has not answered for {seconds:.0f} s.",
        hint="Check that disk; what was saved before is not touched. Call again once it answers.",
    )
