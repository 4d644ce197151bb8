"""Errors that nobody in PID 1 has foreseen: it outlives them, since with it the whole sandbox would end."""

import os
import time

from agent.workers import Workers

FAILED = 72  # exit code of a sandbox whose agent cannot go on
_MOST, _WINDOW = 3, 60.0  # errors, and in so many seconds
_MAX_TEXT = 300  # characters


class OwnFaults:
    """What an error has left half done is of the worker at most, so that is ended for it: what was asked of it is
    answered, and its savepoint or a fresh one stands in its place. Where there is no worker, a replacement has failed,
    which nothing would do again; and where errors go on, nothing helps.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._met: list[float] = []

    def met(self, error: Exception) -> None:
        """Something that was called back has raised this."""
        now = time.monotonic()
        self._met = [*(moment for moment in self._met if now - moment < _WINDOW), now]
        if len(self._met) > _MOST or self._workers.pid is None:
            os._exit(FAILED)
        self._workers.kill(f"the agent beside it failed, and has ended it: {described(error)}")


def described(error: Exception) -> str:
    """Which error, and where."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}, line {trace.tb_lineno})"
    return f"{type(error).__name__}: {error}"[:_MAX_TEXT] + place
