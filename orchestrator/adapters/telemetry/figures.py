"""Figures for Prometheus. Every label has a handful of values: none names a tenant, a session or anything users say."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.adapters.telemetry.timing import Observed
from orchestrator.domain.ports import Clock
from orchestrator.domain.telemetry import STAGES, Act, Mark, Stage, Subject

# From a warm cell, of a millisecond, to the longest that a cell may run.
_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0),
)
OUTCOMES: Final = (
    "ok",
    "exception",
    "timeout",
    "interrupted",
    "oom",
    "crashed",
    "disk_full",
    "sandbox_lost",
)
ACTS: Final[tuple[Act, ...]] = ("save", "hibernate", "evict", "age", "sweep")


class Figures:
    """Counts what it is told; see `domain/telemetry.py`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._registry = registry = CollectorRegistry()
        self._executions = Counter(
            "orchestrator_executions", "Cells that have ended, by how", ["outcome"], registry=registry
        )
        self._stages = Histogram(
            "orchestrator_stage_seconds",
            "How long a stage took",
            ["stage"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._failed = Counter("orchestrator_stage_failures", "Stages that failed", ["stage"], registry=registry)
        self._engine_errors = Counter("orchestrator_engine_errors", "What the engine failed", registry=registry)
        self._acts = Counter("orchestrator_acts", "What was done without being asked", ["act"], registry=registry)
        self._sessions = Gauge("orchestrator_sessions", "Sessions, by state", ["state"], registry=registry)
        self._store = Gauge("orchestrator_store_bytes", "Bytes of records and snapshots on the disk", registry=registry)
        # Each line is there from the start, so that a rate can be told from the first event on.
        for outcome in OUTCOMES:
            self._executions.labels(outcome)
        for stage in STAGES:
            self._stages.labels(stage)
            self._failed.labels(stage)
        for act in ACTS:
            self._acts.labels(act)

    def mark(self) -> Mark:
        """Now."""
        return Mark(self._clock.monotonic())

    def turn(self, since: Mark, subject: Subject) -> AbstractContextManager[None]:
        """Count how long the call has waited."""
        del subject
        self._stages.labels("queue").observe(self._clock.monotonic() - since.at)
        return Observed()

    def stage(self, stage: Stage, subject: Subject) -> AbstractContextManager[None]:
        """Count how long it takes, and whether it fails."""
        del subject
        began = self._clock.monotonic()

        def ended(failure: BaseException | None) -> None:
            self._stages.labels(stage).observe(self._clock.monotonic() - began)
            if failure is not None:
                self._failed.labels(stage).inc()

        return Observed(ended)

    def executed(self, outcome: str, subject: Subject, seconds: float) -> None:
        """Count it, under one of the names that there are."""
        del subject, seconds
        if outcome in OUTCOMES:
            self._executions.labels(outcome).inc()

    def engine_failed(self) -> None:
        """Count it."""
        self._engine_errors.inc()

    def acted(self, act: Act) -> None:
        """Count it."""
        self._acts.labels(act).inc()

    def standing(self, sessions: Mapping[str, int], store_bytes: int) -> None:
        """How things stand right now."""
        for state, count in sessions.items():
            self._sessions.labels(state).set(count)
        self._store.set(store_bytes)

    def exposition(self) -> bytes:
        """All of it, in Prometheus' words."""
        return generate_latest(self._registry)
