"""The worker's part of a savepoint: a fork that stands by until the worker's end, and then goes on as the worker."""

from collections.abc import Callable
from typing import Any

from agent import pristine
from agent.before_fork import open_files, open_mp, other_threads, random_state, safe_to_fork
from agent.processes import SAVEPOINT_NAME, show_as
from agent.renewal import renew
from agent.self_check import check
from agent.snapshot import process_state
from agent.wire import Header

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_NAME = "python"  # of a worker's process

Tell = Callable[[Header], None]


class Forked:
    """What the copy has to know of the moment of its fork."""

    def __init__(self, execution: int) -> None:
        self.execution = execution
        self.threads = len(other_threads())
        self.random = random_state()

    def settle(self) -> None:
        """In the copy: out of the reach of what ends the worker."""
        pristine.setsid()  # a cell that kills its process group does not reach it
        show_as(f"{SAVEPOINT_NAME}{self.execution}")
        process_state.apply(self.random)


def fork(execution: int, tell: Callable[..., None]) -> Forked | None:
    """Fork a copy, and say what that took; in the copy what it has to know, in the worker None."""
    began = pristine.thread_time()
    try:
        if not safe_to_fork():
            tell(skipped="threads")
            return None
        open_mp.pause()
        open_files.flush()
        forked = Forked(execution)
        # Twice, so that the copy is PID 1's to reap, and no wait() of the user's sees it.
        intermediate = pristine.fork()
        if intermediate == 0:
            _fork_again()
            return forked
        pristine.waitpid(intermediate, 0)
    except Exception:  # no process, no memory, or what the session has changed
        tell(skipped="processes")
        return None
    tell(processor=pristine.thread_time() - began)
    return None


def _fork_again() -> None:
    """Returns in the copy only."""
    copied = False
    try:
        # The copy is born with it: stopped before it has its own name, it would count as a process of the session's.
        show_as(f"{SAVEPOINT_NAME}to be")
        copied = pristine.fork() == 0
    finally:
        if not copied:
            pristine.leave(0)


def resume(forked: Forked, tasks: int | None) -> dict[str, Any]:
    """The copy is to go on as the worker: what it says of itself. Raises where it is not fit to."""
    check()
    renew()
    show_as(_NAME)
    return {"threads": forked.threads, "tasks": tasks}
