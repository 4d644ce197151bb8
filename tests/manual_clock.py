"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

from orchestrator.domain.ports import Clock


class ManualClock(Clock):
    def __init__(self) -> None:
        self._elapsed = timedelta()
        self._start = datetime(2030, 1, 1, tzinfo=UTC)

    def advance(self, seconds: float) -> None:
        self._elapsed += timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock, while no time passes."""
        self._start += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed.total_seconds()

    def uptime(self) -> float:
        return self.monotonic()
