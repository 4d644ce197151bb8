"""Sessions that leave and come, in SQLite. Each function runs inside one transaction."""

import json
import secrets

from orchestrator.adapters.store import sessions, snapshots
from orchestrator.adapters.store.connection import RecordsConnection, Transaction, microseconds
from orchestrator.domain.import_ports import Arrival, ImportRecords
from orchestrator.domain.model import Session
from orchestrator.domain.snapshots import SnapshotIntent


class SqliteImports(ImportRecords):
    """`ImportRecords` over the records' connection."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection

    async def plan_import(self, executions: int, seed: int) -> SnapshotIntent:
        """An intent that the records do not have yet."""
        key = secrets.token_hex(16)
        return SnapshotIntent(key, 1, 0, executions, activity=1, head=None, replaces=True, seed=seed)

    async def import_session(self, arrival: Arrival, *, most: int | None) -> Session | None:
        """Make it, whole or not at all."""
        return await self._db.write(lambda tx: _import(tx, arrival, most))

    async def seed_told(self, seed: int) -> None:
        """Another one for each that has it."""
        await self._db.write(lambda tx: _renew(tx, seed))


def _import(tx: Transaction, arrival: Arrival, most: int | None) -> Session | None:
    if sessions.find(tx, arrival.tenant, arrival.session_id) is not None:
        return None
    intent, manifest = arrival.intent, arrival.stored.manifest
    sessions.ensure(tx, arrival.tenant, arrival.session_id, manifest.environment, most, key=intent.key)
    tx.change(
        "UPDATE sessions SET executions = ?, activity = ? WHERE key = ?",
        (intent.execution, intent.activity, intent.key),
    )
    _past(tx, arrival)
    tx.change(
        """
        INSERT INTO snapshots (session, sequence, seed, intended, intended_incarnation, intended_execution,
                               intended_activity, intended_replaces)
        VALUES (:key, :sequence, :seed, :sequence, :incarnation, :execution, :activity, 1)
        """,
        {
            "key": intent.key,
            "sequence": intent.sequence,
            "seed": snapshots.fresh_seed(),
            "incarnation": intent.incarnation,
            "execution": intent.execution,
            "activity": intent.activity,
        },
    )
    snapshots.committed(tx, intent.key, arrival.stored)
    return sessions.find(tx, arrival.tenant, arrival.session_id)


def _past(tx: Transaction, arrival: Arrival) -> None:
    intent = arrival.intent
    tx.change_each(
        """
        INSERT INTO executions (session, number, incarnation, outcome, started_at, finished_at, bound, removed)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            (
                intent.key,
                row.number,
                intent.incarnation,
                row.outcome,
                microseconds(row.started_at),
                None if row.finished_at is None else microseconds(row.finished_at),
                json.dumps(row.bound),
                json.dumps(row.removed),
            )
            for row in arrival.executions
        ],
    )


def _renew(tx: Transaction, seed: int) -> None:
    told = tx.rows("SELECT session FROM snapshots WHERE seed = ?", (seed,))
    tx.change_each(
        "UPDATE snapshots SET seed = ?, renewed = sequence WHERE session = ?",
        [(snapshots.fresh_seed(), row["session"]) for row in told],
    )
