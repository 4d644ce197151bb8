"""Blocking work in daemon threads of its own, one for each call, so that none of it can hold the loop, the default
executor, or the end of the process.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def spawn(function: Callable[[], object], name: str) -> None:
    """Run it in a daemon thread and forget it; it answers for its own exceptions."""
    threading.Thread(target=function, name=name, daemon=True).start()


def in_thread(
    function: Callable[[], T], name: str, *, discard: Callable[[T], object] | None = None
) -> asyncio.Future[T]:
    """Start it at once; the future is its result. Cancelling the future abandons the thread and does not stop it.

    `discard` is given, in the thread, a result that nobody takes any more.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    # An exception that nobody awaits any more is no news.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(result: T, error: BaseException | None) -> None:
        if future.cancelled():
            if error is None and discard is not None:
                spawn(lambda: discard(result), f"{name}-discard")
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        error: BaseException | None = None
        result: T = None  # type: ignore[assignment]
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001 - handed to the waiter, whatever it is
            error = raised
        # Looked at from here, too: a loop that has stopped passes nothing on. What is missed here `settle` sees.
        abandoned = future.cancelled()
        if not abandoned:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # the loop is closed, so nobody waits
                abandoned = True
        if abandoned and error is None and discard is not None:
            _let_go(result, discard)

    spawn(run, name)
    return future


def _let_go(result: T, discard: Callable[[T], object]) -> None:
    with contextlib.suppress(OSError):
        discard(result)


def abandon(future: asyncio.Future[T], discard: Callable[[T], object]) -> None:
    """Want the result no more: whether it is there already or comes later, it is discarded in a thread."""
    if not future.cancel() and not future.cancelled() and future.exception() is None:
        result = future.result()
        spawn(lambda: discard(result), "discard")
