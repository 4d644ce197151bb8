"""What is measured, by its names; and where it is told. Figures and traces are views: nothing depends on them."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal, Protocol

Stage = Literal["queue", "claim", "start", "wake", "execute", "snapshot"]
Act = Literal["save", "hibernate", "evict", "age", "sweep"]
STAGES: Final[tuple[Stage, ...]] = ("queue", "start", "claim", "wake", "execute", "snapshot")


@dataclass(frozen=True, slots=True)
class Subject:
    """What something is about. In traces and logs; no label of a figure, since there is no end of them."""

    tenant: str | None = None
    session: str | None = None  # the internal key
    incarnation: int | None = None
    execution: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a call, and the trace that it belongs to."""

    at: float  # seconds, monotonic
    trace: object = None


class Telemetry(Protocol):
    """Called from the loop; each method returns at once and raises nothing."""

    def mark(self) -> Mark:
        """Now, in the trace of whoever calls."""

    def turn(self, since: Mark, subject: Subject) -> AbstractContextManager[None]:
        """A call's turn has come, for which it has waited `since` then: what happens within belongs to its trace."""

    def stage(self, stage: Stage, subject: Subject) -> AbstractContextManager[None]:
        """A stage that lasts as long as this; where it raises, it counts as failed."""

    def executed(self, outcome: str, subject: Subject, seconds: float) -> None:
        """A cell has ended."""

    def engine_failed(self) -> None:
        """The engine did not do what it was asked for."""

    def acted(self, act: Act) -> None:
        """The orchestrator has done something by itself."""


class Silence:
    """Telemetry that nobody hears."""

    def mark(self) -> Mark:
        """Any moment."""
        return Mark(0.0)

    def turn(self, since: Mark, subject: Subject) -> AbstractContextManager[None]:
        """Nothing."""
        del since, subject
        return nullcontext()

    def stage(self, stage: Stage, subject: Subject) -> AbstractContextManager[None]:
        """Nothing."""
        del stage, subject
        return nullcontext()

    def executed(self, outcome: str, subject: Subject, seconds: float) -> None:
        """Nothing."""

    def engine_failed(self) -> None:
        """Nothing."""

    def acted(self, act: Act) -> None:
        """Nothing."""


SILENCE: Final = Silence()
