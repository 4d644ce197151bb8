"""The audit in SQLite. Each function runs inside one transaction, in the connection's thread."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from orchestrator.adapters.store.connection import RecordsConnection, Transaction, microseconds, moment
from orchestrator.domain.audit import AuditEntry, AuditQuery, AuditRecord, AuditRecords, Consumption


class SqliteAudit(AuditRecords):
    """`AuditRecords` over the records' connection."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection

    async def append_audit(self, entries: Sequence[AuditEntry]) -> Sequence[int]:
        """Write them."""
        written = tuple(entries)
        return await self._db.write(lambda tx: [append(tx, entry) for entry in written])

    async def audit(self, query: AuditQuery, *, after: int = 0, limit: int = 500) -> Sequence[AuditRecord]:
        """A page of them."""
        return await self._db.read(lambda tx: _page(tx, query, after, limit))

    async def consumption(self, tenant: str, since: datetime) -> Sequence[Consumption]:
        """What executions have taken since then."""
        return await self._db.read(lambda tx: _consumption(tx, tenant, microseconds(since)))

    async def newest_audit(self, query: AuditQuery, *, limit: int) -> Sequence[AuditRecord]:
        """The newest of them, oldest first."""
        return await self._db.read(lambda tx: _page(tx, query, 0, limit, newest=True))

    async def trim_audit(self, before: datetime, *, limit: int = 1000) -> bool:
        """Delete old ones."""
        return await self._db.write(lambda tx: _trim(tx, microseconds(before), limit))


def append(tx: Transaction, entry: AuditEntry) -> int:
    """Write it together with what it tells of: its id."""
    (row,) = tx.rows(
        """
        INSERT INTO audit (at, act, tenant, key, session, incarnation, execution, begun, code_hash, code, outcome,
                           duration, cpu, memory_peak, bytes_out, limits, detail)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
        """,
        (
            tx.now,
            entry.act,
            entry.tenant,
            entry.key,
            entry.session,
            entry.incarnation,
            entry.execution,
            entry.begun,
            entry.code_hash,
            entry.code,
            entry.outcome,
            entry.duration,
            entry.cpu,
            entry.memory_peak,
            entry.bytes_out,
            json.dumps(list(entry.limits)),
            json.dumps(dict(entry.detail), sort_keys=True),
        ),
    )
    return int(row["id"])


def _page(tx: Transaction, query: AuditQuery, after: int, limit: int, *, newest: bool = False) -> Sequence[AuditRecord]:
    wanted = {"tenant": query.tenant, "key": query.key, "session": query.session, "act": query.act}
    given = {name: value for name, value in wanted.items() if value is not None}
    conditions = ["id > :after", *(f"{name} = :{name}" for name in given)]
    parameters: dict[str, object] = {**given, "after": after, "limit": limit}
    if query.since is not None:
        conditions.append("at >= :since")
        parameters["since"] = microseconds(query.since)
    if query.until is not None:
        conditions.append("at < :until")
        parameters["until"] = microseconds(query.until)
    order = f"id {'DESC' if newest else 'ASC'}"
    statement = f"SELECT * FROM audit WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit"  # noqa: S608 - names of ours
    found = [_record(row) for row in tx.rows(statement, parameters)]
    return found[::-1] if newest else found


def _consumption(tx: Transaction, tenant: str, since: int) -> Sequence[Consumption]:
    rows = tx.rows(
        "SELECT at, act, coalesce(cpu, 0) AS cpu FROM audit "
        "WHERE tenant = ? AND at >= ? AND act IN ('execute', 'between') ORDER BY id",
        (tenant, since),
    )
    return [Consumption(moment(row["at"]), row["cpu"], row["act"] == "execute") for row in rows]


def _trim(tx: Transaction, before: int, limit: int) -> bool:
    # A trigger refuses to delete what is not older than this, and lets it only rise.
    tx.change("UPDATE audit_horizon SET at = ? WHERE at < ?", (before, before))
    deleted = tx.change(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY at LIMIT ?)", (before, limit)
    )
    return deleted == limit


def _record(row: sqlite3.Row) -> AuditRecord:
    return AuditRecord(
        row["id"],
        moment(row["at"]),
        AuditEntry(
            act=row["act"],
            tenant=row["tenant"],
            key=row["key"],
            session=row["session"],
            incarnation=row["incarnation"],
            execution=row["execution"],
            begun=row["begun"],
            code_hash=row["code_hash"],
            code=row["code"],
            outcome=row["outcome"],
            duration=row["duration"],
            cpu=row["cpu"],
            memory_peak=row["memory_peak"],
            bytes_out=row["bytes_out"],
            limits=tuple(json.loads(row["limits"])),
            detail=json.loads(row["detail"]),
        ),
    )
