"""Whether a copy of the worker can go on: what a fork may have broken is tried once. Who waits ends what hangs here.

An exception of the user's own making is no fault of the copy's: the worker had it, too.
"""

import sys
from typing import Any

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_SOME_MEGABYTES = 8 * 1024 * 1024
_SIDE = 128  # of a matrix: where BLAS has threads, it uses them for this
_IMPORTED = "agent.crash_report"  # small, and of no use in a worker


def check() -> None:
    """Import, allocate, lock, and multiply. Raises what Python raises where one of the first three fails."""
    _import()
    bytearray(_SOME_MEGABYTES)
    _lock()
    try:
        _multiply(sys.modules.get("numpy"))
    except Exception:
        return


def _import() -> None:
    sys.modules.pop(_IMPORTED, None)
    __import__(_IMPORTED)


def _lock() -> None:
    """A thread of its own holds a lock for a moment."""
    held, done = pristine.allocate_lock(), pristine.allocate_lock()
    done.acquire()

    def hold() -> None:
        with held:
            done.release()

    pristine.start_new_thread(hold, ())
    done.acquire()
    with held:
        pass


def _multiply(numpy: Any) -> None:
    if numpy is not None:
        ones = numpy.ones((_SIDE, _SIDE))
        ones.dot(ones)
