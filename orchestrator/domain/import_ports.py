"""What the records do for sessions that leave and come. The port's docstrings are its contract; rules as for `Records`.

A session is imported in two steps, of which only the second makes it one: its snapshot is committed in a file of its
own, under a key that no session has; then one transaction makes the session, with its past and with that head. What a
crash leaves between the two is a file of no session, which recovery sets aside as it does any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.model import ExecutionRecord, Session
from orchestrator.domain.snapshots import SnapshotIntent, StoredSnapshot


@dataclass(frozen=True, slots=True)
class Arrival:
    """A session that is to begin with a past."""

    tenant: str
    session_id: str
    intent: SnapshotIntent  # as `plan_import` made it
    stored: StoredSnapshot  # committed for that intent
    executions: Sequence[ExecutionRecord]  # that have ended, oldest first


class ImportRecords(Protocol):
    """The records' side of exports and imports."""

    async def plan_import(self, executions: int, seed: int) -> SnapshotIntent:
        """The first snapshot of a session that has had so many executions, under a key that nobody has; `seed` is that
        of its raw digests. Changes nothing.
        """

    async def import_session(self, arrival: Arrival, *, most: int | None) -> Session | None:
        """Make that session, asleep, its snapshot the head, with a seed of its own for the snapshots to come.

        One transaction. None where the name is taken. Raises QuotaError where the tenant has `most` sessions already.
        """

    async def seed_told(self, seed: int) -> None:
        """That seed is secret no more: every session that would make its next digests under it gets another one."""
