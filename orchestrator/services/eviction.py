"""Makes room for calls that wait for a sandbox: sessions in which nothing runs are hibernated."""

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Callable, Collection

from orchestrator.domain.errors import BusyError, OrchestratorError
from orchestrator.domain.eviction import evictions
from orchestrator.domain.plan import SessionRow
from orchestrator.domain.ports import Clock
from orchestrator.domain.telemetry import SILENCE, Telemetry
from orchestrator.services.about import about
from orchestrator.services.live_session import LiveSession
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

_PAUSE = 0.1  # seconds between two looks while somebody waits
_PASSED_OVER = 5.0  # seconds for which a session is left alone that could not be hibernated


class Eviction:
    """Looks for room while somebody waits. What was decided is checked again in the session's own queue."""

    def __init__(
        self,
        sessions: Callable[[], Collection[LiveSession]],
        sandboxes: Sandboxes,
        tasks: Tasks,
        clock: Clock,
        telemetry: Telemetry = SILENCE,
    ) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._tasks = tasks
        self._clock = clock
        self._telemetry = telemetry
        self._under_way: dict[str, str] = {}  # the tenants of sessions that are being hibernated
        self._passed_over: dict[str, float] = {}  # until when

    async def run(self) -> None:
        """For ever, until it is cancelled."""
        while True:
            await self._sandboxes.crowded()
            try:
                self.look()
            except Exception:
                logger.exception("who could make room could not be found out")
            await asyncio.sleep(_PAUSE)

    def look(self) -> None:
        """Hibernate as many sessions as are wanted, beside those that are hibernated or removed already."""
        now = self._clock.monotonic()
        self._passed_over = {key: until for key, until in self._passed_over.items() if now < until}
        spared = self._under_way.keys() | self._passed_over.keys()
        lives = {live.session.key: live for live in self._sessions() if live.session.key not in spared}
        containers = {key: container for key, live in lives.items() if (container := live.container) is not None}
        rows = [lives[key].row for key in containers]
        wanted, under_way = self._sandboxes.wanted, Counter(self._under_way.values())
        chosen: list[SessionRow] = []
        for tenant, number in wanted.of_own.items():  # another tenant's end would be of no use to it
            own = [row for row in rows if lives[row.key].session.tenant == tenant]
            chosen += evictions(now, own, containers, wanted=number - under_way[tenant])
        rest = [row for row in rows if row not in chosen]
        chosen += evictions(now, rest, containers, wanted=wanted.of_any - under_way.total())
        for row in chosen:
            work = self._hibernate(lives[row.key], row.active_at)
            self._under_way[row.key] = lives[row.key].session.tenant
            task = self._tasks.spawn(work, f"make room {row.key[:8]}")
            task.add_done_callback(functools.partial(self._done, row.key))

    async def _hibernate(self, live: LiveSession, active_at: float) -> None:
        def idle() -> bool:
            return live.row.active_at == active_at

        def wanted() -> bool:
            # Another call may have come, and who waited may have gone.
            return idle() and not self._sandboxes.wanted.nothing

        try:
            if await live.hibernate(wanted):
                self._telemetry.acted("evict")
                logger.info("hibernated to make room", extra=about(live.session))
                return
        except BusyError:
            pass  # calls came first
        except OrchestratorError as error:
            logger.warning("could not make room: %s", error, extra=about(live.session))
        if idle():  # else a call came, which is no fault of the session's
            self._passed_over[live.session.key] = self._clock.monotonic() + _PASSED_OVER

    def _done(self, key: str, _task: asyncio.Task[None]) -> None:
        self._under_way.pop(key, None)
