"""The machine's clock: the one place that asks it."""

import time
from datetime import UTC, datetime

from orchestrator.domain.ports import Clock


class SystemClock(Clock):
    """Time as this machine has it. Safe in any thread."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    def uptime(self) -> float:
        """Seconds since the machine started, its sleep included where the system tells."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
