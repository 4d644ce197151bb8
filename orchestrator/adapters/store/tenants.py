"""Tenants and their keys in SQLite. Each function runs inside one transaction, in the connection's thread."""

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.adapters.store.audit import append
from orchestrator.adapters.store.connection import RecordsConnection, Transaction, microseconds, moment
from orchestrator.domain.access import Scope
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.keys import PREFIX_BYTES, SECRET_BYTES, digest_of, token_of
from orchestrator.domain.tenants import ApiKey, Holdings, IssuedKey, Tenant, TenantRecords


class SqliteTenants(TenantRecords):
    """`TenantRecords` over the records' connection."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection

    async def tenants(self) -> Sequence[Tenant]:
        """All of them."""
        return await self._db.read(_tenants)

    async def add_tenant(
        self, name: str, weight: float, quotas: Mapping[str, float | None], *, noted: AuditEntry
    ) -> Tenant | None:
        """A new one."""
        given = json.dumps(dict(quotas))
        return await self._db.write(lambda tx: _add_tenant(tx, (name, weight, given), noted))

    async def change_tenant(
        self,
        tenant: str,
        *,
        disabled: bool | None = None,
        weight: float | None = None,
        quotas: Mapping[str, float | None] | None = None,
        noted: AuditEntry,
    ) -> Tenant | None:
        """Change what is given."""
        overrides = None if quotas is None else json.dumps(dict(quotas))
        given = {"disabled": disabled, "weight": weight, "quotas": overrides}
        return await self._db.write(lambda tx: _change_tenant(tx, tenant, given, noted))

    async def remove_tenant(self, tenant: str, *, noted: AuditEntry) -> bool:
        """Delete it with its keys."""
        return await self._db.write(lambda tx: _remove_tenant(tx, tenant, noted))

    async def keys(self) -> Sequence[ApiKey]:
        """All of them."""
        return await self._db.read(_keys)

    async def issue_key(
        self, tenant: str, name: str, scopes: frozenset[Scope], expires_at: datetime | None, *, noted: AuditEntry
    ) -> IssuedKey | None:
        """A new key."""
        order = _Order(tenant, name, scopes, expires_at)
        return await self._db.write(lambda tx: _issue(tx, order, noted))

    async def rotate_key(
        self, key: str, expires_at: datetime | None, *, old_until: datetime, noted: AuditEntry
    ) -> IssuedKey | None:
        """A new key in place of that one."""
        return await self._db.write(lambda tx: _rotate(tx, key, (expires_at, microseconds(old_until)), noted))

    async def revoke_key(self, key: str, *, noted: AuditEntry) -> bool:
        """It opens nothing any more."""
        return await self._db.write(lambda tx: _revoke(tx, key, noted))

    async def holdings(self, tenant: str) -> Holdings:
        """What the tenant has."""
        return await self._db.read(lambda tx: _holdings(tx, tenant))

    async def keys_used(self, used: Mapping[str, datetime]) -> None:
        """Note it."""
        rows = [(microseconds(at), key) for key, at in used.items()]
        statement = "UPDATE keys SET used_at = max(coalesce(used_at, 0), ?) WHERE id = ?"
        await self._db.write(lambda tx: tx.change_each(statement, rows))


@dataclass(frozen=True, slots=True)
class _Order:
    tenant: str
    name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None


def _tenants(tx: Transaction) -> Sequence[Tenant]:
    return [_tenant(row) for row in tx.rows("SELECT * FROM tenants ORDER BY created_at, rowid")]


def _add_tenant(tx: Transaction, given: tuple[str, float, str], noted: AuditEntry) -> Tenant | None:
    row = tx.row(
        """
        INSERT INTO tenants (id, name, weight, quotas, created_at) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (name) DO NOTHING RETURNING *
        """,
        (secrets.token_hex(16), *given, tx.now),
    )
    return None if row is None else _noted(tx, _tenant(row), noted)


def _change_tenant(tx: Transaction, tenant: str, given: Mapping[str, object], noted: AuditEntry) -> Tenant | None:
    row = tx.row(
        """
        UPDATE tenants SET disabled = coalesce(:disabled, disabled), weight = coalesce(:weight, weight),
                           quotas = coalesce(:quotas, quotas)
        WHERE id = :tenant RETURNING *
        """,
        {**given, "tenant": tenant},
    )
    return None if row is None else _noted(tx, _tenant(row), noted)


def _noted(tx: Transaction, tenant: Tenant, noted: AuditEntry) -> Tenant:
    append(tx, replace(noted, tenant=tenant.id))
    return tenant


def _remove_tenant(tx: Transaction, tenant: str, noted: AuditEntry) -> bool:
    if tx.row("SELECT 1 FROM sessions WHERE tenant = ? AND state <> 'destroying' LIMIT 1", (tenant,)) is not None:
        return False
    tx.change("DELETE FROM keys WHERE tenant = ?", (tenant,))
    if tx.change("DELETE FROM tenants WHERE id = ?", (tenant,)) == 0:
        return False
    append(tx, replace(noted, tenant=tenant))
    return True


def _keys(tx: Transaction) -> Sequence[ApiKey]:
    return [_key(row) for row in tx.rows("SELECT * FROM keys ORDER BY created_at, rowid")]


def _issue(tx: Transaction, order: _Order, noted: AuditEntry) -> IssuedKey | None:
    if tx.row("SELECT 1 FROM tenants WHERE id = ?", (order.tenant,)) is None:
        return None
    secret = secrets.token_hex(SECRET_BYTES)
    (row,) = tx.rows(
        """
        INSERT INTO keys (id, tenant, name, digest, scopes, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)
        RETURNING *
        """,
        (
            _unused_prefix(tx),
            order.tenant,
            order.name,
            digest_of(secret),
            json.dumps(sorted(order.scopes)),
            tx.now,
            None if order.expires_at is None else microseconds(order.expires_at),
        ),
    )
    key = _key(row)
    expires = None if key.expires_at is None else key.expires_at.isoformat()
    about = {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "expires_at": expires}
    append(tx, replace(noted, tenant=key.tenant, detail={**noted.detail, **about}))
    return IssuedKey(key, token_of(key.id, secret))


def _unused_prefix(tx: Transaction) -> str:
    while True:
        prefix = secrets.token_hex(PREFIX_BYTES)
        if tx.row("SELECT 1 FROM keys WHERE id = ?", (prefix,)) is None:
            return prefix


def _rotate(tx: Transaction, key: str, times: tuple[datetime | None, int], noted: AuditEntry) -> IssuedKey | None:
    expires_at, old_until = times
    row = tx.row(
        """
        UPDATE keys SET expires_at = min(coalesce(expires_at, :until), :until)
        WHERE id = :key AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now) RETURNING *
        """,
        {"key": key, "until": old_until, "now": tx.now},
    )
    if row is None:
        return None
    old = _key(row)
    return _issue(tx, _Order(old.tenant, old.name, old.scopes, expires_at), noted)


def _revoke(tx: Transaction, key: str, noted: AuditEntry) -> bool:
    row = tx.row("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING tenant", (tx.now, key))
    if row is not None:
        append(tx, replace(noted, tenant=row["tenant"]))
    return row is not None


def _holdings(tx: Transaction, tenant: str) -> Holdings:
    rows = tx.rows(
        """
        SELECT key, coalesce(files, 0) AS files FROM sessions LEFT JOIN heads ON heads.session = sessions.key
        WHERE tenant = ?
        """,
        (tenant,),
    )
    return Holdings(tuple(row["key"] for row in rows), sum(row["files"] for row in rows))


def _tenant(row: sqlite3.Row) -> Tenant:
    return Tenant(
        id=row["id"],
        name=row["name"],
        disabled=bool(row["disabled"]),
        weight=row["weight"],
        quotas=json.loads(row["quotas"]),
        created_at=moment(row["created_at"]),
    )


def _key(row: sqlite3.Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        digest=row["digest"],
        scopes=frozenset(json.loads(row["scopes"])),
        created_at=moment(row["created_at"]),
        expires_at=_moment(row["expires_at"]),
        revoked_at=_moment(row["revoked_at"]),
        used_at=_moment(row["used_at"]),
    )


def _moment(stored: int | None) -> datetime | None:
    return None if stored is None else moment(stored)
