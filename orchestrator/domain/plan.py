"""What is due of sessions in use, decided from what is known. Pure: the same rows give the same actions.

A session that has been quiet is saved, one that has been idle is hibernated. Each action is checked
again in the queue of its session, where nothing else happens meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SavingPolicy:
    """When sessions are saved and hibernated; times in seconds."""

    snapshot_after: float = 2.0  # of quiet
    snapshot_max_age: float = 60.0  # of the oldest unsaved execution, counted from its end
    hibernate_after: float = 600.0  # without a call
    cpu_share: float = 0.1  # of one CPU, for the snapshots that quiet begins

    def max_age(self, last_duration: float) -> float:
        """The age that the oldest unsaved execution may reach, for a session whose last snapshot took that long."""
        return 2 * last_duration if last_duration > self.snapshot_max_age / 2 else self.snapshot_max_age


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session in use. Times are readings of the monotonic clock, in seconds."""

    key: str
    busy: bool  # a call runs or waits
    active_at: float  # the last moment at which a call was there
    unsaved_since: float | None  # the end of the oldest execution that no snapshot holds; None: there is none


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """The live container of a session, and what saving it has cost."""

    saving: bool  # a snapshot is on its way
    saved_at: float  # the end of the last try to save, or the container's beginning
    duration: float  # of the last snapshot, in seconds
    cpu_seconds: float  # that it took
    not_before: float  # after failures: when to try again


@dataclass(frozen=True, slots=True)
class Save:
    """Save that session."""

    key: str
    why: Literal["quiet", "age"]  # for age it goes before the calls that wait


@dataclass(frozen=True, slots=True)
class Hibernate:
    """Save that session and remove its container."""

    key: str


Action = Save | Hibernate


def plan(
    now: float, rows: Sequence[SessionRow], containers: Mapping[str, ContainerRow], policy: SavingPolicy
) -> list[Action]:
    """What is due; `containers` by the key of their session. A session without a container needs nothing."""
    actions = []
    for row in rows:
        container = containers.get(row.key)
        if container is not None and not container.saving and now >= container.not_before:
            action = _due(now, row, container, policy)
            if action is not None:
                actions.append(action)
    return actions


def _due(now: float, row: SessionRow, container: ContainerRow, policy: SavingPolicy) -> Action | None:
    if not row.busy and now - row.active_at >= policy.hibernate_after:
        return Hibernate(row.key)
    if row.unsaved_since is None:
        return None
    if now - row.unsaved_since >= policy.max_age(container.duration):
        return Save(row.key, "age")
    if not row.busy and now - row.active_at >= policy.snapshot_after and now >= _affordable_at(container, policy):
        return Save(row.key, "quiet")
    return None


def _affordable_at(container: ContainerRow, policy: SavingPolicy) -> float:
    """When the last snapshot has been paid for: it and the rest after it make up the share."""
    return container.saved_at + container.cpu_seconds * (1 / policy.cpu_share - 1)
