"""Which sessions have not been used for long, and what becomes of them. Pure.

Age is time that counts (ticks.py), never a difference of dates. Each decision names what it saw of its session, and is
checked again in the session's queue: whoever calls first keeps it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.domain.model import SessionState

DAY: Final = 86_400.0
# Beyond both at once, a tick expires none: that looks like a mistake of ours, or like a clock's.
MANY_SESSIONS: Final = 10
MANY_SHARE: Final = 10  # one in so many of all
_SLACK: Final = 3600.0  # seconds by which counted time may lag behind the date that callers are told


@dataclass(frozen=True, slots=True)
class AgeingPolicy:
    """How long a session may go unused; times in seconds, None: for ever."""

    inactive_after: float | None = 7 * DAY  # marked so; it wakes as usual
    expire_after: float | None = 30 * DAY  # not listed any more; a call still wakes it
    delete_after: float | None = DAY  # deleted with its snapshots, that long after it expired

    def horizons(self) -> Sequence[tuple[SessionState, float]]:
        """From which age on a session in that state has something coming."""
        first = [age for age in (self.inactive_after, self.expire_after) if age is not None]
        found = [(SessionState.HIBERNATED, min(first))] if first else []
        if self.expire_after is not None:
            found.append((SessionState.INACTIVE, self.expire_after))
        if self.delete_after is not None:
            found.append((SessionState.EXPIRED, self.delete_after))
        return found


@dataclass(frozen=True, slots=True)
class AgedSession:
    """A session that sleeps, as a decision about it saw it."""

    key: str
    tenant: str
    session_id: str
    state: SessionState
    incarnation: int
    activity: int
    stamp: int  # of its last use
    seconds: float  # counted since then; of an expired one those watched since it expired


@dataclass(frozen=True, slots=True)
class AgeingCounts:
    """How many sessions there are, and how many of them have reached the age to expire."""

    sessions: int
    expiring: int


@dataclass(frozen=True, slots=True)
class Age:
    """Let that session go on to `target`; `destroying` deletes it with all that it has."""

    session: AgedSession
    target: SessionState
    why: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many sessions this tick may expire."""

    most: int | None  # None: all that are due
    stopped_at: float | None = None  # the watched time at which a mass expiry was stopped that still stands
    why: str | None = None  # why not all


def allowance(counts: AgeingCounts, watched: float, stopped_at: float | None) -> Allowance:
    """Stops a mass expiry for a day of watched time, in which somebody may see it; then a few go with each tick."""
    usual = max(MANY_SESSIONS, counts.sessions // MANY_SHARE)
    if counts.expiring <= usual:
        return Allowance(None)
    since = watched if stopped_at is None else min(stopped_at, watched)
    what = f"{counts.expiring} of {counts.sessions} sessions would expire at once"
    if watched - since < DAY:
        return Allowance(0, since, f"{what}; none does until this has stood for a day")
    return Allowance(usual, since, f"{what}; {usual} do with each look")


def plan_ageing(rows: Iterable[AgedSession], most: int | None, policy: AgeingPolicy) -> Iterator[Age]:
    """What is due of these; of those that would expire, the first `most`."""
    for row in rows:
        target = _target(row, policy, may_expire=most is None or most > 0)
        if target is None:
            continue
        if target is SessionState.EXPIRED and most is not None:
            most -= 1
        what = "expired" if row.state is SessionState.EXPIRED else "not used"
        yield Age(row, target, f"{what} for {row.seconds / DAY:.1f} days")


def _target(row: AgedSession, policy: AgeingPolicy, *, may_expire: bool) -> SessionState | None:
    if row.state is SessionState.EXPIRED:
        return SessionState.DESTROYING if _reached(row.seconds, policy.delete_after) else None
    if may_expire and _reached(row.seconds, policy.expire_after):
        return SessionState.EXPIRED
    if row.state is SessionState.HIBERNATED and _reached(row.seconds, policy.inactive_after):
        return SessionState.INACTIVE
    return None


def _reached(seconds: float, age: float | None) -> bool:
    return age is not None and seconds >= age


def expiry_of(used_at: datetime, unused: float, now: datetime, policy: AgeingPolicy) -> datetime | None:
    """When a session expires at the earliest, if nobody uses it: by its date, unless less time than that counts."""
    if policy.expire_after is None:
        return None
    by_date = used_at + timedelta(seconds=policy.expire_after)
    by_count = now + timedelta(seconds=max(0.0, policy.expire_after - unused))
    return by_date if by_count - by_date < timedelta(seconds=_SLACK) else by_count.replace(microsecond=0)
