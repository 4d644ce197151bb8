"""Looks at the records beside whoever owns them: reads only, waits for nobody for long, and changes nothing."""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.adapters.store.connection import moment
from orchestrator.adapters.store.migrations import MIGRATIONS
from orchestrator.domain.checkup import KeyExpiry, RecordsHealth
from orchestrator.domain.errors import StoreUnusableError

_WAIT_SECONDS: Final = 5.0
_STEPS: Final = 100_000  # of SQLite's machine between two looks at the time
_COUNTED: Final = ("tenants", "keys", "sessions", "sandboxes", "executions", "snapshots", "audit")
_WORDS: Final = "SELECT session_id FROM sessions UNION SELECT name FROM tenants UNION SELECT name FROM keys"
_TIMES: Final = (("sessions", "used_at"), ("executions", "started_at"), ("audit", "at"), ("keys", "created_at"))


def look_at_records(path: Path, *, seconds: float = 20.0) -> RecordsHealth:
    """What stands there, after a quick check that takes at most that long.

    For a process that does not own them: closing the file would drop the locks of one that does. Raises
    StoreUnusableError where it cannot be read at all.
    """
    try:
        raw = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS, isolation_level=None)
        with closing(raw):
            raw.execute("BEGIN")
            schema = int(raw.execute("PRAGMA user_version").fetchone()[0])
            tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            return RecordsHealth(
                schema=schema,
                known_schema=len(MIGRATIONS),
                faults=_faults(raw, seconds),
                size=path.stat().st_size,
                wal=_size(path.with_name(path.name + "-wal")),
                counts=tuple((table, _number(raw, table)) for table in _COUNTED if table in tables),
                newest=_newest(raw, tables),
                keys=_keys(raw) if "keys" in tables else (),
                sessions=frozenset(key for (key,) in raw.execute("SELECT key FROM sessions")),
                sandboxes=frozenset(name for (name,) in raw.execute("SELECT id FROM sandboxes")),
                installation=str(raw.execute("SELECT id FROM installation").fetchone()[0]),
            )
    except (sqlite3.Error, OSError, TypeError) as error:
        raise StoreUnusableError(f"The records in {path} cannot be read: {error}.", hint="Restore a backup.") from error


def schema_of(path: Path) -> str:
    """The statements that make the tables, for somebody who helps. Raises StoreUnusableError."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)) as raw:
            rows = raw.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    except sqlite3.Error as error:
        raise StoreUnusableError(f"The records in {path} cannot be read: {error}.", hint="Restore a backup.") from error
    return "".join(f"{statement};\n" for (statement,) in rows)


def words_of_tenants(path: Path) -> frozenset[str]:
    """What tenants have chosen: their names, and the ids of their sessions. Raises StoreUnusableError."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)) as raw:
            rows = raw.execute(_WORDS)
            return frozenset(str(word) for (word,) in rows)
    except sqlite3.Error as error:
        raise StoreUnusableError(f"The records in {path} cannot be read: {error}.", hint="Restore a backup.") from error


def _faults(raw: sqlite3.Connection, seconds: float) -> tuple[str, ...]:
    """None where the check found none, or took too long to find any."""
    left = [max(1, int(seconds * 200))]  # a look every some milliseconds

    def enough() -> int:
        left[0] -= 1
        return int(left[0] <= 0)

    raw.set_progress_handler(enough, _STEPS)
    try:
        told = [str(line) for (line,) in raw.execute("PRAGMA quick_check(10)")]
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return ()
        raise
    finally:
        raw.set_progress_handler(None, _STEPS)
    return () if told == ["ok"] else tuple(told)


def _number(raw: sqlite3.Connection, table: str) -> int:
    return int(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a name of ours


def _newest(raw: sqlite3.Connection, tables: set[str]) -> datetime | None:
    found = [
        raw.execute(f"SELECT max({column}) FROM {table}").fetchone()[0]  # noqa: S608 - names of ours
        for table, column in _TIMES
        if table in tables
    ]
    return max((moment(at) for at in found if at is not None), default=None)


def _keys(raw: sqlite3.Connection) -> tuple[KeyExpiry, ...]:
    rows = raw.execute(
        "SELECT tenants.name, keys.name, keys.id, expires_at FROM keys JOIN tenants ON tenants.id = keys.tenant "
        "WHERE expires_at IS NOT NULL AND revoked_at IS NULL"
    )
    return tuple(KeyExpiry(tenant, name, prefix, moment(at)) for tenant, name, prefix, at in rows)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
