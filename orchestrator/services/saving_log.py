"""How saving a session went: what it cost, when to try again, and what callers have yet to be told."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.errors import (
    BusyError,
    NamespaceLostError,
    OrchestratorError,
    SandboxLostError,
    ShuttingDownError,
)
from orchestrator.domain.plan import ContainerRow
from orchestrator.domain.ports import Clock
from orchestrator.domain.snapshots import SaveReport, SnapshotVoidedError, StoredSnapshot
from orchestrator.services.about import about
from orchestrator.services.saving_notes import capped, pairs_note, refused_names, refused_notes

logger = logging.getLogger(__name__)

_TOLD_ELSEWHERE = (SnapshotVoidedError, NamespaceLostError, SandboxLostError, ShuttingDownError, BusyError)
_MOMENT = 1.0  # seconds until it is looked at again
_PAUSES = (2.0, 10.0, 30.0, 120.0, 300.0)  # seconds after a failure; the last one repeats


class SavingLog:
    """Of one session."""

    def __init__(self, key: str, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._refused: dict[str, tuple[str | None, str | None]] = {}  # names that were told: reason and origin
        self._remarks: set[tuple[str, str]] = set()  # likewise
        self._failures = 0
        self.cpu_since = 0.0  # seconds of processor time that no answer has told, by the last save before a sleep
        self.pending: list[str] = []  # notes for the next answer
        self.container = ContainerRow(saving=False, saved_at=0.0, duration=0.0, cpu_seconds=0.0, not_before=0.0)

    def begins(self) -> None:
        """There is a fresh sandbox, or a fresh worker in it."""
        self._failures = 0
        self.container = replace(self.container, saved_at=self._clock.monotonic(), not_before=0.0)

    def forget(self) -> None:
        """What there was to tell is of no interest any more."""
        self._refused.clear()
        self._remarks.clear()
        self.pending.clear()

    def told(self, notes: Sequence[str]) -> None:
        """A caller has these."""
        self.pending = [note for note in self.pending if note not in notes]

    def taken(self) -> Sequence[str]:
        """What is pending, which somebody else sees to from now on."""
        taken, self.pending = self.pending, []
        return taken

    def taken_since(self) -> float:
        """Seconds of processor time that nobody has counted yet."""
        taken, self.cpu_since = self.cpu_since, 0.0
        return taken

    def saved(self, began: float, report: SaveReport, stored: StoredSnapshot) -> None:
        """It went well; what was refused for the first time is to be told."""
        now = self._clock.monotonic()
        self._failures = 0
        self.cpu_since += report.cpu_since
        self.container = ContainerRow(
            saving=False, saved_at=now, duration=now - began, cpu_seconds=report.cpu_seconds, not_before=0.0
        )
        refused = refused_names(stored.manifest.names)
        fresh = [name for name in refused if self._refused.get(name.name) != (name.reason, name.excerpt)]
        self._refused = {name.name: (name.reason, name.excerpt) for name in refused}
        # The last value of a cell is nobody's choice to keep: listings and wakes name it, the next answer does not.
        notes = refused_notes([name for name in fresh if name.name != "_"])
        notes += pairs_note("Saved only in part", [one for one in report.remarks if one not in self._remarks])
        self._tell(*notes)
        self._remarks = set(report.remarks)

    def failed(self, error: OrchestratorError, saved_through: int | None) -> None:
        """It did not; it is tried again after a pause that grows."""
        now = self._clock.monotonic()
        if isinstance(error, _TOLD_ELSEWHERE):
            self.container = replace(self.container, not_before=now + _MOMENT)
            return
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self.container = replace(self.container, saved_at=now, not_before=now + pause)
        self._failures += 1
        logger.warning("not saved: %s", error, extra=about(self._key))
        held = "nothing of it is saved"
        if saved_through is not None:
            held = f"only what was there after execution {saved_through} is saved"
        self._tell(f"The session could not be saved ({error.message.rstrip('.')}): {held}. It is tried again.")

    def _tell(self, *notes: str) -> None:
        self.pending = [*capped((*self.pending, *notes))]
