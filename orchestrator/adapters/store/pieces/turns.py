"""Blocking work on sessions' files: one turn after the other for each session, in a few threads for all of them."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.domain.errors import ShuttingDownError

Kind = Literal["read", "write"]
Result = TypeVar("Result")

# Of each kind. A write waits for the disk most of its time, so two keep it busy; readers have threads of their own, so
# that no session's wake waits for the writes of others.
_THREADS = 2


@dataclass(frozen=True, slots=True)
class _Turn:
    kind: Kind
    work: Callable[[], Any]
    # Ours and not the pool's: it exists before the turn has come to any pool, and can be cancelled until it runs.
    future: "Future[Any]" = field(default_factory=Future)


class Turns:
    """First come, first served within a key; keys run beside one another."""

    def __init__(self) -> None:
        self._pools = {
            kind: ThreadPoolExecutor(_THREADS, thread_name_prefix=f"pieces-{kind}") for kind in ("read", "write")
        }
        self._lock = threading.Condition()
        self._waiting: dict[str, deque[_Turn]] = {}  # has a key while a turn of it is with a pool
        self._is_closing = False

    def take(self, key: str, kind: Kind, work: Callable[[], Result]) -> "asyncio.Future[Result]":
        """Queue `work`; the future is its result. Cancelled before its turn it never runs, later it runs to its end."""
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
        taken: asyncio.Future[Result] = asyncio.wrap_future(turn.future)
        # An exception that nobody awaits any more is no news.
        taken.add_done_callback(lambda done: done.cancelled() or done.exception())
        return taken

    async def close(self) -> None:
        """Run what was queued and end the threads. Idempotent."""
        with self._lock:
            self._is_closing = True
        await in_thread(self._drain, "pieces-close")

    def _run(self, key: str, turn: _Turn) -> None:
        if turn.future.set_running_or_notify_cancel():
            try:
                result = turn.work()
            except BaseException as error:  # noqa: BLE001 - handed to the waiter, whatever it is
                turn.future.set_exception(error)
            else:
                turn.future.set_result(result)
        with self._lock:
            line = self._waiting[key]
            if line:
                following = line.popleft()
                self._pools[following.kind].submit(self._run, key, following)
            else:
                del self._waiting[key]
                self._lock.notify_all()

    def _drain(self) -> None:
        with self._lock:
            self._lock.wait_for(lambda: not self._waiting)
        for pool in self._pools.values():
            pool.shutdown(wait=True)
