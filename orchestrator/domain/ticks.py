"""How much time has passed, by a clock that may be wrong. Pure: the same readings give the same answer.

What ages by the wall clock dies of the first one that is set wrong. So time is counted from tick to tick, and only as
far as two clocks agree on it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

JUMP: Final = 3600.0  # seconds that the wall clock moves against the other one, from which on it is not believed
SETTLED: Final = 600.0  # seconds that the clock must have held before the time that nobody watched counts
MOST_UNWATCHED: Final = 86_400.0  # seconds of such time that one start may count, however long it says that it was
MOST_WATCHED: Final = 600.0  # seconds between two ticks that were watched; a machine that sleeps watches nothing


@dataclass(frozen=True, slots=True)
class Counted:
    """The time that counts, in seconds since the installation's first tick. Outlives the process."""

    seconds: float = 0.0  # what sessions age by
    watched: float = 0.0  # of these, those that a running process saw pass: what a deletion waits for
    seen_at: datetime | None = None  # the wall clock at the last tick that was accepted


@dataclass(frozen=True, slots=True)
class _Reading:
    wall: datetime
    uptime: float


@dataclass(frozen=True, slots=True)
class Ticks:
    """Where the counting stands in this process."""

    counted: Counted
    refused: str | None = "nobody has looked at the clock yet"  # why nothing may be aged now; None: it may
    late: float = 0.0  # seconds that were counted by this tick, and had passed when the count stood at `began_at`
    began_at: float = 0.0  # the count at which the counting began anew
    _last: _Reading | None = None
    _began: float = 0.0  # the uptime then
    _unwatched: float = 0.0  # seconds between an earlier process and this one that do not count yet

    def next(self, wall: datetime, uptime: float) -> "Ticks":
        """One tick on: `wall` may jump, `uptime` never does (`Clock`).

        The first tick, and one at which the wall clock has moved an hour or more against the uptime, begins anew: it
        counts nothing, and nothing may be aged on it. On every other one as much counts as both clocks say.
        """
        if self._last is None:
            return self._anew(wall, uptime, "this is the first look after a start", self._gap(wall))
        by_wall, by_uptime = (wall - self._last.wall).total_seconds(), uptime - self._last.uptime
        if by_uptime < 0 or abs(by_wall - by_uptime) >= JUMP:
            moved = f"the clock moved by {by_wall:.0f} s while {by_uptime:.0f} s passed"
            return self._anew(wall, uptime, moved, 0.0)
        elapsed = max(0.0, min(by_wall, by_uptime))
        late = self._unwatched if uptime - self._began >= SETTLED else 0.0
        counted = Counted(
            seconds=self.counted.seconds + elapsed + late,
            watched=self.counted.watched + min(elapsed, MOST_WATCHED),
            seen_at=wall,
        )
        return replace(
            self,
            counted=counted,
            refused=None,
            late=late,
            _last=_Reading(wall, uptime),
            _unwatched=self._unwatched - late,
        )

    def _anew(self, wall: datetime, uptime: float, why: str, unwatched: float) -> "Ticks":
        return Ticks(
            self.counted,
            why,
            began_at=self.counted.seconds,
            _last=_Reading(wall, uptime),
            _began=uptime,
            _unwatched=unwatched,
        )

    def _gap(self, wall: datetime) -> float:
        """What may have passed while no process ran. Nobody can tell, so it counts only in part."""
        if self.counted.seen_at is None:
            return 0.0
        return min(MOST_UNWATCHED, max(0.0, (wall - self.counted.seen_at).total_seconds()))
