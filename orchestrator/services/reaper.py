"""Looks at the sessions in use now and then and has done what is due: one loop, no timer for each session."""

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from orchestrator.domain.errors import BusyError, OrchestratorError
from orchestrator.domain.plan import Action, Hibernate, plan
from orchestrator.domain.ports import Clock
from orchestrator.domain.telemetry import SILENCE, Telemetry
from orchestrator.services.about import about
from orchestrator.services.equipment import Limits
from orchestrator.services.live_session import LiveSession
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

_PAUSE = 0.25  # seconds between two looks; what is due is late by at most this


class Reaper:
    """Carries out plans. What was decided goes through the session's own queue and is checked again there."""

    def __init__(
        self,
        sessions: Callable[[], Collection[LiveSession]],
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        telemetry: Telemetry = SILENCE,
    ) -> None:
        self._sessions = sessions
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._telemetry = telemetry
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """For ever, until it is cancelled."""
        while True:
            await asyncio.sleep(_PAUSE)
            try:
                self.look()
            except Exception:
                logger.exception("what is due could not be found out")

    def due(self) -> Sequence[Action]:
        """What is due now; nothing for a session in which something of that is under way."""
        return self._plan(self._free())

    def look(self) -> None:
        """Start what is due now. At most one thing at a time for each session."""
        lives = self._free()
        for action in self._plan(lives):
            self._telemetry.acted("hibernate" if isinstance(action, Hibernate) else "save")
            task = self._tasks.spawn(_carry_out(lives[action.key], action), f"{type(action).__name__} {action.key[:8]}")
            self._under_way[action.key] = task
            task.add_done_callback(functools.partial(self._done, action.key))

    def _free(self) -> Mapping[str, LiveSession]:
        return {live.session.key: live for live in self._sessions() if live.session.key not in self._under_way}

    def _plan(self, lives: Mapping[str, LiveSession]) -> Sequence[Action]:
        containers = {key: container for key, live in lives.items() if (container := live.container) is not None}
        return plan(self._clock.monotonic(), [lives[key].row for key in containers], containers, self._limits.policy)

    def _done(self, key: str, _task: asyncio.Task[None]) -> None:
        self._under_way.pop(key, None)


async def _carry_out(live: LiveSession, action: Action) -> None:
    try:
        if isinstance(action, Hibernate):
            await live.hibernate()
        else:
            await live.save_when_due(first=action.why == "age")
    except BusyError:
        pass  # calls came first; it is looked at again
    except OrchestratorError as error:
        logger.warning("what was due was not done: %s", error, extra=about(action.key))
