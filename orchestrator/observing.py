"""What is seen of an orchestrator from outside: figures, and traces where somebody collects them."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.adapters.telemetry.figures import Figures
from orchestrator.adapters.telemetry.measured import MeasuredEngine
from orchestrator.adapters.telemetry.several import Several
from orchestrator.adapters.telemetry.spans import Spans, exporting_tracer
from orchestrator.domain.model import Session, SessionState
from orchestrator.domain.ports import Clock, Engine
from orchestrator.domain.telemetry import Telemetry
from orchestrator.settings import Settings

_NANOSECONDS = 1_000_000_000


class Observing:
    """Made for one orchestrator; `close` at its end."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises InvalidRequestError where traces are wanted and cannot be sent."""
        self._data_dir = settings.data_dir
        self.figures = Figures(clock)
        heard: list[Telemetry] = [self.figures]
        self._flush: Callable[[], None] | None = None
        if settings.traces_endpoint is not None:
            tracer, self._flush = exporting_tracer(settings.traces_endpoint)
            heard.append(Spans(tracer, lambda: int(clock.now().timestamp() * _NANOSECONDS)))
        self.telemetry: Telemetry = Several(*heard)

    def measured(self, engine: Engine) -> Engine:
        """The same engine, whose stages are told."""
        return MeasuredEngine(engine, self.telemetry)

    async def exposition(self, sessions: Sequence[Session]) -> bytes:
        """All figures as they are now."""
        counted = Counter(session.state for session in sessions)
        states: Mapping[str, int] = {state.value: counted[state] for state in SessionState}
        self.figures.standing(states, await asyncio.to_thread(_bytes_below, self._data_dir))
        return self.figures.exposition()

    async def close(self) -> None:
        """Send what is left."""
        if self._flush is not None:
            await asyncio.to_thread(self._flush)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):  # files come and go
                total += (Path(path) / file).stat().st_size
    return total
