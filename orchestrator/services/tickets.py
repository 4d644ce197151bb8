"""What one call carries on its way: where it waits, how that is ended, and the terms that its tenant has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import ExecutionResult
from orchestrator.domain.repeats import Repeat
from orchestrator.services.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant may have of what all share."""

    weight: float = 1.0  # against other tenants' where all wait
    sandboxes: int | None = None  # at once; None: as many as there are
    running: int | None = None  # executions at once, likewise


class Turn(Protocol):
    """A place among the executions that may run at once."""

    async def take(self) -> None:
        """Wait for it. Raises BusyError and QuotaError. Idempotent while it is had."""

    def over(self) -> None:
        """Let somebody else have it. Idempotent."""


class Witness(Protocol):
    """Somebody who is told what becomes of a call, whether its caller waits for that or not."""

    def begins(self) -> None:
        """Its cell is sent: from here on `ended` will be told."""

    def beginning(self) -> AuditEntry:
        """To be written by the commit of its row, before its cell is sent."""

    def closing(self, answer: ExecutionResult) -> AuditEntry | None:
        """What it is answered with, for the commit that closes its row; None where its end was told before."""

    def failing(self, error: BaseException) -> AuditEntry | None:
        """Likewise where it is not answered."""

    async def ended(self, answer: ExecutionResult) -> None:
        """The same of a call that has no row."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one call."""

    share: Share = field(default_factory=Share)
    profile: SandboxProfile | None = None  # of a sandbox that is made for it; None: the installation's
    sessions: int | None = None  # how many its tenant may have
    turn: Turn | None = None  # None: it runs whenever it can
    witness: Witness | None = None
    repeat: Repeat | None = None  # by what it is known when it is made again


FREE: Final = Terms()


class Ticket:
    """One call's way to a sandbox: where it stands in a line, and how its waiting is ended from outside. And back:
    with a `receipt`, what its answer tells counts as told only once that says so, and not when the answer is returned.
    """

    def __init__(self, receipt: Receipt | None = None) -> None:
        self.receipt = receipt
        self.terms = FREE
        self._place: Callable[[], int | None] | None = None
        self._leave: Callable[[], None] | None = None
        self._given_up = False
        # Told how many bytes the call's cell has written by now, and the last of them; None: nobody wants to know.
        self.heard: Callable[[int, str], None] | None = None

    @property
    def place(self) -> int | None:
        """How many turns it is until its own, that one counted; None while it does not wait."""
        return None if self._place is None else self._place()

    @property
    def given_up(self) -> bool:
        """Whether it was asked to wait no longer."""
        return self._given_up

    def give_up(self) -> None:
        """Wait no longer, now and from now on; a slot that it has is not touched. Returns at once. Idempotent."""
        self._given_up = True
        if self._leave is not None:
            self._leave()

    def waits(self, place: Callable[[], int | None], leave: Callable[[], None]) -> None:
        """It has joined a line."""
        self._place, self._leave = place, leave

    def waits_no_longer(self) -> None:
        """It has left that, with its turn or without."""
        self._place = self._leave = None

    async def take_turn(self) -> None:
        """Wait until it may run."""
        if self.terms.turn is not None:
            await self.terms.turn.take()

    def turn_over(self) -> None:
        """It runs no more."""
        if self.terms.turn is not None:
            self.terms.turn.over()

    def begins(self) -> None:
        """Its cell is sent."""
        if self.terms.witness is not None:
            self.terms.witness.begins()

    def beginning(self) -> AuditEntry | None:
        """What the audit is to say of its beginning."""
        return None if self.terms.witness is None else self.terms.witness.beginning()

    def closing(self, answer: ExecutionResult) -> AuditEntry | None:
        """It has ended, so: what the audit is to say of it."""
        return None if self.terms.witness is None else self.terms.witness.closing(answer)

    def failing(self, error: BaseException) -> AuditEntry | None:
        """Likewise where it fails before its cell has begun."""
        return None if self.terms.witness is None else self.terms.witness.failing(error)

    async def ended(self, answer: ExecutionResult) -> None:
        """It is answered, and no row tells of it."""
        if self.terms.witness is not None:
            await self.terms.witness.ended(answer)
