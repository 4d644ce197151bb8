"""Steps that the tests of snapshots in the records share."""

from datetime import UTC, datetime

from orchestrator.adapters.store.connection import Transaction
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.model import Session
from orchestrator.domain.snapshots import (
    Manifest,
    NameStatus,
    SavedName,
    SnapshotIntent,
    SnapshotSummary,
    StoredSnapshot,
)


def named(name: str, status: NameStatus = "saved") -> SavedName:
    return SavedName(name, "value", "int", 28, status, "why" if status == "refused" else None, None, "0" * 32)


def written(intent: SnapshotIntent, *names: SavedName) -> StoredSnapshot:
    """What the pieces would answer to a commit of that snapshot."""
    manifest = Manifest(intent.sequence, intent.incarnation, intent.execution, "environment", "3.11", names=names)
    summary = SnapshotSummary(
        sequence=intent.sequence,
        incarnation=intent.incarnation,
        execution=intent.execution,
        environment="environment",
        python="3.11",
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        names=len(names),
        refused=0,
        raw_bytes=0,
        stored_bytes=0,
        new_bytes=0,
        seed=intent.seed,
    )
    return StoredSnapshot(summary, manifest, ())


async def intended(records: SqliteRecords, session: Session) -> SnapshotIntent:
    intent = await records.intend_snapshot(session.key, session.incarnation)
    assert intent is not None
    return intent


async def replacing(records: SqliteRecords, session: Session) -> SnapshotIntent:
    intent = await records.intend_replacement(session.key, session.incarnation)
    assert intent is not None
    return intent


async def saved(records: SqliteRecords, session: Session, *names: SavedName) -> SnapshotIntent:
    """A snapshot from its intent to its becoming head."""
    intent = await intended(records, session)
    assert await records.snapshot_committed(session.key, written(intent, *names))
    return intent


async def head_of(records: SqliteRecords, session: Session) -> int | None:
    record = await records.snapshot_record(session.key)
    return None if record is None else record.head


async def in_state(records: SqliteRecords, session: Session, state: str) -> None:
    """Put the row there, in whatever way: some states are made by services only."""
    await records._db.write(lambda tx: tx.change("UPDATE sessions SET state = ? WHERE key = ?", (state, session.key)))


async def state_of(records: SqliteRecords, session: Session) -> str:
    def read(tx: Transaction) -> str:
        return str(tx.rows("SELECT state FROM sessions WHERE key = ?", (session.key,))[0]["state"])

    return await records._db.read(read)
