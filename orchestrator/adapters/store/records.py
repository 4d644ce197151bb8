"""The records in one SQLite file: each method of the port is one function in the connection's thread."""

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from orchestrator.adapters.store import executions, recovery, sandboxes, schema, sessions, snapshots
from orchestrator.adapters.store.audit import SqliteAudit
from orchestrator.adapters.store.connection import RecordsConnection, Transaction, raw_connection
from orchestrator.adapters.store.imports import SqliteImports
from orchestrator.adapters.store.names import bindings
from orchestrator.adapters.store.repeats import SqliteRepeats
from orchestrator.adapters.store.session_lists import SqliteSessionLists
from orchestrator.adapters.store.tenants import SqliteTenants
from orchestrator.adapters.store.upkeep import SqliteUpkeep
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.model import (
    Ending,
    ExecutionRecord,
    Loss,
    SandboxRecord,
    SandboxState,
    Session,
    SessionState,
)
from orchestrator.domain.ports import Clock, Records
from orchestrator.domain.repeats import Repeat
from orchestrator.domain.snapshot_ports import SnapshotRecords
from orchestrator.domain.snapshots import SavedListing, SavedName, SnapshotIntent, SnapshotRecord, StoredSnapshot

RECORDS_NAME: Final = "records.sqlite3"  # in the data directory


@asynccontextmanager
async def open_records(
    path: Path, clock: Clock, *, uids: range = sandboxes.DEFAULT_UIDS
) -> AsyncIterator["SqliteRecords"]:
    """The records in that file, made or migrated where needed, and closed at the end.

    `uids` are the user ids that sandboxes may run under. Raises StoreUnusableError where the file is damaged, not
    ours or of a newer version, and StoreFullError where the disk is full.
    """
    # Opening is a few system calls, before there is anybody to serve; all that may take long is done in the thread.
    raw = raw_connection(path)
    connection = RecordsConnection(raw, path, clock)
    await connection.begin()
    try:
        installation = await connection.run(functools.partial(schema.prepare, path=path))
        yield SqliteRecords(connection, installation, uids)
    finally:
        await connection.close()


class SqliteRecords(Records, SnapshotRecords):
    """`Records` and `SnapshotRecords` over one connection; made by `open_records`."""

    def __init__(self, connection: RecordsConnection, installation: str, uids: range) -> None:
        self._db = connection
        self._installation = installation
        self._uids = uids
        self.upkeep = SqliteUpkeep(connection)
        self.tenants = SqliteTenants(connection)
        self.audit = SqliteAudit(connection)
        self.repeats = SqliteRepeats(connection)
        self.lists = SqliteSessionLists(connection)
        self.imports = SqliteImports(connection)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self._db.path

    @property
    def installation(self) -> str:
        """This data directory's own id."""
        return self._installation

    async def remembered(self, key: str) -> str | None:
        """What was last noted under `key`."""
        return await self._db.read(lambda tx: _remembered(tx, key))

    async def remember(self, key: str, value: str) -> None:
        """Note it."""
        await self._db.write(lambda tx: _remember(tx, key, value))

    async def find_session(self, tenant: str, session_id: str) -> Session | None:
        """The session of that name, unless it is being destroyed."""
        return await self._db.read(lambda tx: sessions.find(tx, tenant, session_id))

    async def ensure_session(
        self, tenant: str, session_id: str, environment: str, *, most: int | None = None
    ) -> Session:
        """That session, made where there is none."""
        return await self._db.write(lambda tx: sessions.ensure(tx, tenant, session_id, environment, most))

    async def sessions(self, tenant: str) -> Sequence[Session]:
        """All sessions of a tenant that are neither expired nor being destroyed, oldest first."""
        return await self._db.read(lambda tx: sessions.of_tenant(tx, tenant))

    async def all_sessions(self) -> Sequence[Session]:
        """All sessions of all tenants in every state, oldest first."""
        return await self._db.read(sessions.every)

    async def begin_creating(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `creating`, of the next incarnation."""
        return await self._db.write(lambda tx: sessions.change_state(tx, key, incarnation, SessionState.CREATING))

    async def session_ready(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `ready`."""
        return await self._db.write(lambda tx: sessions.change_state(tx, key, incarnation, SessionState.READY))

    async def session_snapshotting(self, key: str, incarnation: int, activity: int) -> bool:
        """Guarded change to `snapshotting`."""
        return await self._db.write(lambda tx: snapshots.begin_hibernating(tx, key, incarnation, activity))

    async def session_hibernated(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `hibernated`."""
        return await self._db.write(lambda tx: sessions.change_state(tx, key, incarnation, SessionState.HIBERNATED))

    async def session_destroying(self, key: str) -> bool:
        """Guarded change to `destroying`."""
        return await self._db.write(lambda tx: sessions.begin_destroying(tx, key))

    async def delete_session(self, key: str) -> None:
        """Close the row of a session in `destroying`, with its ledger."""
        await self._db.write(lambda tx: sessions.delete(tx, key))

    async def namespace_lost(
        self, key: str, incarnation: int, cause: str, *, before: int | None = None, stands_at: int | None = None
    ) -> Loss | None:
        """Record that the namespace of this incarnation is gone: what is untold now."""
        fall = sessions.Fall(cause, before, stands_at)
        return await self._db.write(lambda tx: sessions.lose_namespace(tx, key, incarnation, fall))

    async def loss_told(self, key: str) -> None:
        """Forget the untold loss and notes."""
        await self._db.write(lambda tx: sessions.forget_loss(tx, key))

    async def leave_notes(self, key: str, incarnation: int, notes: Sequence[str]) -> None:
        """Keep them for the next caller."""
        left = tuple(notes)
        await self._db.write(lambda tx: sessions.leave_notes(tx, key, incarnation, left))

    async def session_cleared(self, key: str, incarnation: int) -> bool:
        """Begin a new namespace on request."""
        return await self._db.write(lambda tx: sessions.clear(tx, key, incarnation))

    async def open_execution(
        self, key: str, incarnation: int, *, repeat: Repeat | None = None, entry: AuditEntry | None = None
    ) -> int | None:
        """Commit an open row before the cell is sent: its number."""
        return await self._db.write(lambda tx: executions.begin(tx, key, incarnation, repeat, entry))

    async def close_execution(
        self,
        key: str,
        number: int,
        outcome: Ending,
        *,
        bound: Sequence[str],
        removed: Sequence[str],
        variable_count: int | None,
        entry: AuditEntry | None = None,
    ) -> None:
        """Close the row before the answer leaves, and trim."""
        answer = executions.Answer(outcome, tuple(bound), tuple(removed), variable_count, entry)
        await self._db.write(lambda tx: executions.end(tx, key, number, answer))

    async def executions(self, tenant: str, session_id: str, *, limit: int = 200) -> Sequence[ExecutionRecord]:
        """The newest executions of a session, newest first."""
        return await self._db.read(lambda tx: executions.newest(tx, tenant, session_id, limit))

    async def binding_executions(self, key: str, names: Sequence[str] | None = None) -> Mapping[str, int]:
        """Which execution last bound each of those names."""
        wanted = None if names is None else tuple(names)
        return await self._db.read(lambda tx: bindings(tx, key, wanted))

    async def open_sandbox(self, image: str) -> SandboxRecord:
        """A new row in `creating`."""
        return await self._db.write(lambda tx: sandboxes.begin(tx, image, self._uids))

    async def sandbox_created(self, sandbox_id: str, handle: str) -> bool:
        """Guarded change to `unclaimed`."""
        return await self._db.write(lambda tx: sandboxes.created(tx, sandbox_id, handle))

    async def sandbox_claimed(self, sandbox_id: str, session: str | None, incarnation: int) -> bool:
        """Guarded change to `claimed`."""
        return await self._db.write(lambda tx: sandboxes.claimed(tx, sandbox_id, session, incarnation))

    async def sandbox_ending(self, sandbox_id: str, state: SandboxState) -> bool:
        """Guarded change to `failed` or `destroying`."""
        return await self._db.write(lambda tx: sandboxes.ending(tx, sandbox_id, state))

    async def close_sandbox(self, sandbox_id: str) -> None:
        """Delete the row of a sandbox in `destroying`."""
        await self._db.write(lambda tx: sandboxes.close(tx, sandbox_id))

    async def sandboxes(self) -> Sequence[SandboxRecord]:
        """All rows."""
        return await self._db.read(sandboxes.every)

    async def snapshot_record(self, key: str) -> SnapshotRecord | None:
        """What is known of a session's snapshots."""
        return await self._db.read(lambda tx: snapshots.record_of(tx, key))

    async def snapshot_records(self) -> Sequence[SnapshotRecord]:
        """All of them."""
        return await self._db.read(snapshots.every)

    async def saved_listing(self, tenant: str, session_id: str) -> SavedListing | None:
        """What the head of that session holds."""
        return await self._db.read(lambda tx: snapshots.listing_of(tx, tenant, session_id))

    async def saved_listing_of(self, key: str) -> SavedListing | None:
        """The same, by the session's key."""
        return await self._db.read(lambda tx: snapshots.listing(tx, key))

    async def head_refused(self, key: str) -> Sequence[SavedName]:
        """The names that the head could not hold, and why."""
        return await self._db.read(lambda tx: snapshots.refused(tx, key))

    async def intend_snapshot(self, key: str, incarnation: int) -> SnapshotIntent | None:
        """Intend a snapshot of what the session holds now."""
        return await self._db.write(lambda tx: snapshots.intend(tx, key, incarnation))

    async def intend_replacement(self, key: str, incarnation: int) -> SnapshotIntent | None:
        """Intend what shall stand instead."""
        return await self._db.write(lambda tx: snapshots.intend_replacement(tx, key, incarnation))

    async def snapshot_committed(self, key: str, stored: StoredSnapshot) -> bool:
        """Make the intended snapshot head."""
        return await self._db.write(lambda tx: snapshots.committed(tx, key, stored))

    async def adopt_snapshot(self, key: str, stored: StoredSnapshot) -> bool:
        """Make head what recovery found."""
        return await self._db.write(lambda tx: snapshots.adopt(tx, key, stored))

    async def void_snapshots(self, key: str, incarnation: int) -> bool:
        """Nothing in flight becomes head."""
        return await self._db.write(lambda tx: snapshots.void(tx, key, incarnation))

    async def hibernate_saved(self, key: str, incarnation: int, activity: int) -> bool:
        """Guarded change to `hibernated` of what is saved."""
        return await self._db.write(lambda tx: snapshots.hibernate_saved(tx, key, incarnation, activity))

    async def recover(self, cause: str) -> Sequence[SandboxRecord]:
        """Take over from an owner that is gone: the sandboxes that may have outlived it."""
        return await self._db.write(lambda tx: recovery.recover(tx, cause))

    async def close(self) -> None:
        """Finish what was begun and close the file."""
        await self._db.close()


def _remembered(tx: Transaction, key: str) -> str | None:
    row = tx.row("SELECT value FROM remembered WHERE key = ?", (key,))
    return None if row is None else row["value"]


def _remember(tx: Transaction, key: str, value: str) -> None:
    tx.change(
        "INSERT INTO remembered (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
