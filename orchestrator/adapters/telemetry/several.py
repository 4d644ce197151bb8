"""Telemetry that several hear, and a line in the log for each cell."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

from orchestrator.adapters.telemetry.timing import Observed
from orchestrator.domain.telemetry import Act, Mark, Stage, Subject, Telemetry

logger = logging.getLogger(__name__)

_MILLISECONDS = 1000


class Several:
    """Tells each of them; see `domain/telemetry.py`."""

    def __init__(self, *others: Telemetry) -> None:
        self._others = others

    def mark(self) -> Mark:
        """All their marks."""
        marks = tuple(other.mark() for other in self._others)
        return Mark(marks[0].at, marks)

    def turn(self, since: Mark, subject: Subject) -> AbstractContextManager[None]:
        """To each with its own mark."""
        marks = since.trace if isinstance(since.trace, tuple) else (since,) * len(self._others)
        return _together([other.turn(mark, subject) for other, mark in zip(self._others, marks, strict=True)])

    def stage(self, stage: Stage, subject: Subject) -> AbstractContextManager[None]:
        """To each."""
        return _together([other.stage(stage, subject) for other in self._others])

    def executed(self, outcome: str, subject: Subject, seconds: float) -> None:
        """To each, and to the log: the ids and how it ended, never what the cell said."""
        logger.info(
            "cell ended: %s after %.1f ms",
            outcome,
            seconds * _MILLISECONDS,
            extra={
                "session": subject.session,
                "incarnation": subject.incarnation,
                "execution": subject.execution,
                "tenant": subject.tenant,
            },
        )
        for other in self._others:
            other.executed(outcome, subject, seconds)

    def engine_failed(self) -> None:
        """To each."""
        for other in self._others:
            other.engine_failed()

    def acted(self, act: Act) -> None:
        """To each."""
        for other in self._others:
            other.acted(act)


def _together(blocks: Sequence[AbstractContextManager[None]]) -> AbstractContextManager[None]:
    stack = ExitStack()
    for block in blocks:
        stack.enter_context(block)

    def ended(failure: BaseException | None) -> None:
        stack.__exit__(None if failure is None else type(failure), failure, None)

    return Observed(ended)
