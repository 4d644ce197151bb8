"""What libraries keep of threads and processes that a copy of the worker does not have: it would be waited for in vain.

Thread pools start threads anew; pools of processes are marked as broken, so that they say so and do not hang. Only what
the session has imported is touched, and only what is as the library made it.
"""

import sys
from collections.abc import Iterator
from typing import Any

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_WHY = "its processes have ended with the process that they belonged to"
_PROCESS_POOLS = (
    "concurrent.futures.process",
    "joblib.externals.loky.process_executor",
    "loky.process_executor",
)
_REUSED = ("joblib.externals.loky.reusable_executor", "loky.reusable_executor")


def renew() -> None:
    """In a copy that takes over. Raises nothing."""
    for act in (_thread_pools, _process_pools, _reused_pools, _pools_of_multiprocessing):
        try:
            act()
        except Exception:  # noqa: S112 - another version of the library, or the user's own changes
            continue


def _thread_pools() -> None:
    module = sys.modules.get("concurrent.futures.thread")
    for pool in _executors(module, "_threads_queues"):
        import threading

        pool._threads = set()
        pool._idle_semaphore = threading.Semaphore(0)


def _executors(module: Any, registry: str) -> Iterator[Any]:
    """The executors that threads were working for."""
    for thread in list(getattr(module, registry, ())):
        reference = getattr(thread, "executor_reference", None) or (getattr(thread, "_args", None) or (None,))[0]
        executor = reference() if reference is not None else None
        if executor is not None:
            yield executor


def _process_pools() -> None:
    for name in _PROCESS_POOLS:
        module: Any = sys.modules.get(name)
        for pool in _executors(module, "_threads_wakeups"):
            if hasattr(pool, "_flags"):  # loky's
                pool._flags.broken = module.BrokenProcessPool(_WHY)
            else:
                pool._broken = _WHY


def _reused_pools() -> None:
    for name in _REUSED:
        module: Any = sys.modules.get(name)
        if module is not None:
            module._executor = None


def _pools_of_multiprocessing() -> None:
    util: Any = sys.modules.get("multiprocessing.util")
    pools: Any = sys.modules.get("multiprocessing.pool")
    for finalizer in list(getattr(util, "_finalizer_registry", {}).values()) if pools is not None else ():
        pool = finalizer._weakref() if finalizer._weakref is not None else None
        if pool is not None and issubclass(type(pool), pools.Pool):
            pool._state = pools.TERMINATE
