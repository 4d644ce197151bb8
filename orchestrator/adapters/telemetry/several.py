"""Telemetry that several hear, and a line in the log for each cell."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Final

from orchestrator.adapters.telemetry.timing import Observed
from orchestrator.domain.telemetry import Act, Mark, Stage, Subject, Telemetry

logger = logging.getLogger(__name__)

_MILLISECONDS = 1000
_MOST_SESSIONS: Final = 10_000  # whose tenants are remembered


class Several:
    """Tells each of them; see `domain/telemetry.py`."""

    def __init__(self, *others: Telemetry) -> None:
        self._others = others
        # Sandboxes know a session by its key alone; its turns say whose it is, which never changes.
        self._tenants: dict[str, str] = {}

    def mark(self) -> Mark:
        """All their marks."""
        marks = tuple(other.mark() for other in self._others)
        return Mark(marks[0].at, marks)

    def turn(self, since: Mark, subject: Subject) -> AbstractContextManager[None]:
        """To each with its own mark."""
        if subject.tenant is not None and subject.session is not None:
            self._tenants.pop(subject.session, None)
            self._tenants[subject.session] = subject.tenant
            if len(self._tenants) > _MOST_SESSIONS:
                del self._tenants[next(iter(self._tenants))]
        marks = since.trace if isinstance(since.trace, tuple) else (since,) * len(self._others)
        return _together([other.turn(mark, subject) for other, mark in zip(self._others, marks, strict=True)])

    def stage(self, stage: Stage, subject: Subject) -> AbstractContextManager[None]:
        """To each."""
        known = self._known(subject)
        return _together([other.stage(stage, known) for other in self._others])

    def executed(self, outcome: str, subject: Subject, seconds: float) -> None:
        """To each, and to the log: the ids and how it ended, never what the cell said."""
        subject = self._known(subject)
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

    def _known(self, subject: Subject) -> Subject:
        if subject.tenant is not None or subject.session is None:
            return subject
        return replace(subject, tenant=self._tenants.get(subject.session))

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
