"""Does one thing after the other: each bounded in time, none stopping the next, a failing one less and less often."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.ports import Clock

logger = logging.getLogger(__name__)

BOUND = 60.0  # seconds for one errand
_FIRST_REST, _LONGEST_REST = 60.0, 3600.0  # seconds after failures; doubling


@dataclass(frozen=True, slots=True)
class _Failed:
    why: str
    until: float  # by the monotonic clock: when it is tried again
    rest: float


class Errands:
    """Of a kind that fails, the first failure is logged, and then none until one has worked."""

    def __init__(self, clock: Clock, *, bound: float = BOUND) -> None:
        self._clock = clock
        self._bound = bound
        self._failed: dict[tuple[str, str], _Failed] = {}
        self._failing_kinds: set[str] = set()

    def resting(self, kind: str, subject: str) -> str | None:
        """Why this errand is not tried now, if it is not."""
        failed = self._failed.get((kind, subject))
        if failed is None or failed.until <= self._clock.monotonic():
            return None
        left = failed.until - self._clock.monotonic()
        return f"it failed ({failed.why}) and is tried again in {left:.0f} s"

    async def run(self, kind: str, subject: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Do it now, unless it rests; whether it was done."""
        if self.resting(kind, subject) is not None:
            return False
        try:
            async with asyncio.timeout(self._bound):
                await work()
        except TimeoutError:
            self._fails(kind, subject, f"it took longer than {self._bound:.0f} s", None)
        except OrchestratorError as error:
            self._fails(kind, subject, error.message, None)
        except Exception as error:  # noqa: BLE001 - a bug in one errand is not the end of the others
            self._fails(kind, subject, repr(error), error)
        else:
            self._failed.pop((kind, subject), None)
            self._failing_kinds.discard(kind)
            return True
        return False

    def forget_old(self) -> None:
        """Let go of what has not been tried again for long: whoever needed it is gone."""
        now = self._clock.monotonic()
        self._failed = {name: failed for name, failed in self._failed.items() if now - failed.until < _LONGEST_REST}

    def _fails(self, kind: str, subject: str, why: str, bug: Exception | None) -> None:
        before = self._failed.get((kind, subject))
        rest = _FIRST_REST if before is None else min(_LONGEST_REST, 2 * before.rest)
        self._failed[kind, subject] = _Failed(why, self._clock.monotonic() + rest, rest)
        level = logging.DEBUG if kind in self._failing_kinds else logging.WARNING
        self._failing_kinds.add(kind)
        logger.log(level, "%s %s: %s", kind, subject, why, exc_info=bug)
