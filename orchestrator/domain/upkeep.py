"""What upkeep needs of the records, and what it says of itself. Each docstring is the contract, as in ports.py."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from orchestrator.domain.ageing import Age, AgedSession, AgeingCounts
from orchestrator.domain.asides import DropAside
from orchestrator.domain.model import SessionState
from orchestrator.domain.plan import Hibernate, Save
from orchestrator.domain.strays import HeldSandbox, OpenExecution, SessionBetween, Sweep
from orchestrator.domain.ticks import Counted

Maintained = Literal["more", "done", "in use"]
Chore = Age | Sweep | DropAside  # of what is not in use
Action = Save | Hibernate | Chore


@dataclass(frozen=True, slots=True)
class Withheld:
    """What would be due, and is not done."""

    what: str  # a clause, such as '12 sessions would age'
    why: str


@dataclass(frozen=True, slots=True)
class Due:
    """What would be done now, and what is withheld. Nothing was changed for it."""

    actions: tuple[Action, ...]
    withheld: tuple[Withheld, ...]


class UpkeepRecords(Protocol):
    """What the records do for ageing and sweeping. Rules as for `Records`: one transaction each, atomic under
    cancellation; guarded changes return False where the row is not as the caller saw it.
    """

    async def counted(self) -> Counted:
        """The time that counts, as of the last accepted tick; zeros at first."""

    async def count(self, counted: Counted, *, late: float = 0.0, began_at: float = 0.0) -> None:
        """Note it. Whatever raises a session's `used_at` is stamped with it from now on, and what did since the last
        tick is stamped anew: it was used now, at the latest. Of the seconds, `late` had passed before the count went on
        from `began_at`: they make no session older that was used after that.
        """

    async def unused(self, tenant: str) -> Mapping[str, float]:
        """Of a tenant's sessions by key: the seconds that have counted since the last use."""

    async def aged(
        self, state: SessionState, seconds: float, *, after: AgedSession | None = None, limit: int = 100
    ) -> Sequence[AgedSession]:
        """A page of the sessions in that state of at least that age, the longest unused first, after the row given."""

    async def ageing_counts(self, seconds: float) -> AgeingCounts:
        """How many sessions there are that are not being destroyed, and how many of them are asleep, not expired, and
        of at least that age.
        """

    async def age(self, session: AgedSession, target: SessionState) -> bool:
        """Guarded change to `inactive`, `expired` or `destroying`: the session is in the state, of the incarnation, and
        of the activity that were seen, and nobody has used it since. One to `destroying` frees the name.
        """

    async def spare(self, session: AgedSession) -> bool:
        """Guarded change from `destroying` back to `expired`, for a call that came while age was ending the session.
        Only before anything of it was removed. False where its name has been taken.
        """

    async def used(self, key: str) -> None:
        """Somebody uses the session without changing it: raise `used_at`, and end its being `inactive` or `expired`."""

    async def between(self) -> Sequence[SessionBetween]:
        """All sessions in `creating`, `ready`, `snapshotting` and `destroying`."""

    async def open_executions(self) -> Sequence[OpenExecution]:
        """All executions that have not ended, of sessions that are not being destroyed."""

    async def abandon_executions(self, key: str, incarnation: int) -> int:
        """Close the session's open executions up to that incarnation as `outcome_unknown`: how many. For its worker,
        in whose turn nothing runs.
        """

    async def held_sandboxes(self) -> Sequence[HeldSandbox]:
        """All rows of sandboxes, with what their sessions say."""

    async def unknown(self, keys: Collection[str]) -> frozenset[str]:
        """Which of those keys no session has, in whatever state."""

    async def maintain(self) -> Maintained:
        """One small step of maintenance, which holds up no call. Does nothing while the records are in use."""
