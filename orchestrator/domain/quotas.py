"""How much a tenant may use, and what is said where it is more. Pure: the same figures give the same answer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from orchestrator.domain.errors import InvalidRequestError, QuotaError

MINUTE: Final = 60.0
DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one tenant may use. None: no limit; for memory and cpus: the installation's own figure."""

    sessions: int | None = None  # that there are, asleep or not
    live_sandboxes: int | None = None  # containers at once, stateless calls included
    running: int | None = None  # executions at once
    executions_a_minute: int | None = None
    cpu_seconds_a_day: float | None = None
    memory: int | None = None  # bytes of one sandbox
    cpus: float | None = None  # of one sandbox
    stored_bytes: int | None = None  # on the disk, of all its sessions
    files: int | None = None  # in the workspaces of all its sessions, as of their snapshots
    time_limit: float | None = None  # seconds of one execution


NO_LIMITS: Final = Quotas()
NAMES: Final = tuple(field.name for field in fields(Quotas))
_FRACTIONS: Final = frozenset({"cpus", "cpu_seconds_a_day", "time_limit"})
_LEAST: Final[Mapping[str, float]] = {"memory": 64 * 1024 * 1024, "cpus": 0.1}
_MOST: Final = 2**53  # what JSON carries exactly

_UNITS: Final[Mapping[str, str]] = {
    "sessions": "sessions",
    "live_sandboxes": "sandboxes",
    "running": "executions at once",
    "executions_a_minute": "executions a minute",
    "cpu_seconds_a_day": "CPU seconds a day",
    "stored_bytes": "bytes",
    "files": "files",
    "time_limit": "seconds",
}
_REMEDIES: Final[Mapping[str, str]] = {
    "sessions": "Delete a session that is not needed.",
    "live_sandboxes": "Wait for answers to other calls; idle sessions make room by themselves.",
    "running": "Wait for answers to other calls.",
    "stored_bytes": "Delete sessions that are not needed.",
    "files": "Delete sessions that are not needed.",
    "time_limit": "Give a smaller `timeout`, and do the work in several calls.",
}


def with_overrides(quotas: Quotas, overrides: Mapping[str, float | None]) -> Quotas:
    """Those quotas with others in place of some. Raises InvalidRequestError for what is no quota, or no such figure."""
    given: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in NAMES:
            raise InvalidRequestError(f"There is no quota {name!r}.", hint=f"There are: {', '.join(NAMES)}.")
        least = _LEAST.get(name, 0)
        if value is not None and not (math.isfinite(value) and least <= value <= _MOST):
            raise InvalidRequestError(
                f"The quota {name} cannot be {value:g}.",
                hint=f"Give a number of {least:g} or more, or none for no limit.",
            )
        given[name] = value if value is None or name in _FRACTIONS else int(value)
    return replace(quotas, **given)


def exceeded(quota: str, used: float, limit: float, *, frees_in: float | None = None) -> QuotaError:
    """What is told where a quota does not suffice."""
    when = "" if frees_in is None else f" It frees in {max(1, math.ceil(frees_in))} s."
    what = quota.replace("_", " ")
    return QuotaError(
        f"The quota of {what} is used up: {used:,.15g} of {limit:,.15g} {_UNITS[quota]}.{when}",
        quota=quota,
        used=used,
        limit=limit,
        unit=_UNITS[quota],
        frees_in=frees_in,
        hint=_REMEDIES.get(quota, "Wait that long, then call again.")
        if frees_in is None
        else "Wait that long, then call again.",
    )


class Window:
    """What was used within the last so many seconds, in at most `slots` steps, so that a flood takes no memory.

    What was used is forgotten a step late at most, never early.
    """

    def __init__(self, seconds: float, *, slots: int = 60) -> None:
        self.seconds = seconds
        self._step = seconds / slots
        self._used: dict[int, float] = {}  # by step, the oldest first

    def add(self, now: float, amount: float) -> None:
        """It was used now. Time never goes back."""
        self._forget(now)
        step = math.floor(now / self._step)
        self._used[step] = self._used.get(step, 0.0) + amount

    def used(self, now: float) -> float:
        """How much is remembered."""
        self._forget(now)
        return sum(self._used.values())

    def frees_in(self, now: float, limit: float) -> float | None:
        """Seconds until less than `limit` is remembered: 0 where it is now, None never."""
        left = self.used(now)
        if left < limit:
            return 0.0
        for step, amount in self._used.items():
            left -= amount
            if left < limit:
                return (step + 1) * self._step + self.seconds - now
        return None

    def _forget(self, now: float) -> None:
        old = [step for step in self._used if (step + 1) * self._step + self.seconds <= now]
        for step in old:
            del self._used[step]
