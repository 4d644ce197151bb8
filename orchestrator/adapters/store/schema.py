"""The records' tables, as numbered migrations: all of the schema stands here, and nowhere else.

A migration that has been released is never edited; a change is a new one at the end.
"""

import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.store.connection import not_a_database
from orchestrator.domain.errors import StoreUnusableError

logger = logging.getLogger(__name__)

# In the file's header: tells our records from any other program's database.
APPLICATION_ID = 0x534F5231
_SMALLEST_PAGE = 512
_INCREMENTAL = 2
_SWITCH_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds

_FIRST = (
    """
    CREATE TABLE installation (id TEXT NOT NULL) STRICT
    """,
    """
    CREATE TABLE remembered (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID
    """,
    # States are checked by the guarded updates and not by the table: a new one then needs no table rebuilt.
    """
    CREATE TABLE sessions (
        key TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        session_id TEXT NOT NULL,
        state TEXT NOT NULL,
        incarnation INTEGER NOT NULL DEFAULT 0,
        activity INTEGER NOT NULL DEFAULT 0,
        executions INTEGER NOT NULL DEFAULT 0,
        namespace_since INTEGER NOT NULL DEFAULT 1,
        untold_loss TEXT,                               -- JSON
        variable_count INTEGER NOT NULL DEFAULT 0,
        environment TEXT NOT NULL,
        cell_bytes INTEGER NOT NULL DEFAULT 0,          -- sum of its cells, so that trimming need not add them up
        created_at INTEGER NOT NULL,
        used_at INTEGER NOT NULL
    ) STRICT
    """,
    # A name is free from the moment its session is being destroyed.
    """
    CREATE UNIQUE INDEX sessions_by_name ON sessions (tenant, session_id) WHERE state <> 'destroying'
    """,
    """
    CREATE TABLE executions (
        session TEXT NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        incarnation INTEGER NOT NULL,
        outcome TEXT,                                   -- null while it is open
        started_at INTEGER NOT NULL,
        finished_at INTEGER,
        bound TEXT NOT NULL DEFAULT '[]',               -- JSON
        removed TEXT NOT NULL DEFAULT '[]',             -- JSON
        PRIMARY KEY (session, number)
    ) STRICT, WITHOUT ROWID
    """,
    # Recovery finds what was running without reading the whole ledger.
    """
    CREATE INDEX open_executions ON executions (session, number) WHERE outcome IS NULL
    """,
    # Text apart from the ledger, whose rows stay small. Bytes, because text may hold NUL and lone surrogates.
    """
    CREATE TABLE cells (
        session TEXT NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        code BLOB NOT NULL,
        PRIMARY KEY (session, number)
    ) STRICT
    """,
    # What the present namespace holds by the answers' word, and which execution bound it last. The ledger could not
    # name a loss: it forgets an execution long before a session forgets its variable.
    """
    CREATE TABLE names (
        session TEXT NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
        name TEXT NOT NULL,
        execution INTEGER NOT NULL,
        PRIMARY KEY (session, name)
    ) STRICT, WITHOUT ROWID
    """,
    # `session` refers to no row: a session may be gone before its sandbox is proven absent.
    """
    CREATE TABLE sandboxes (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        uid INTEGER NOT NULL UNIQUE,
        secret TEXT NOT NULL,
        image TEXT NOT NULL,
        handle TEXT,
        session TEXT,
        incarnation INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
)

_SNAPSHOTS = (
    # One row for a session that ever intended one. `sequence` only rises: what was intended before never comes back.
    """
    CREATE TABLE snapshots (
        session TEXT PRIMARY KEY REFERENCES sessions (key) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        seed INTEGER NOT NULL,                          -- of the agent's digests: unkeyed ones collide on demand
        intended INTEGER,                               -- null where none is under way
        intended_incarnation INTEGER,
        intended_execution INTEGER,
        intended_activity INTEGER,
        intended_replaces INTEGER,                      -- a rollback, a clear or an import
        head INTEGER,
        head_execution INTEGER NOT NULL DEFAULT 0,
        head_activity INTEGER NOT NULL DEFAULT 0,
        since INTEGER NOT NULL DEFAULT 0                -- the last head that replaced what was before
    ) STRICT, WITHOUT ROWID
    """,
    # What the head holds, apart from the row that every snapshot changes three times.
    """
    CREATE TABLE heads (
        session TEXT PRIMARY KEY REFERENCES sessions (key) ON DELETE CASCADE,
        python TEXT NOT NULL,
        names TEXT NOT NULL,                            -- JSON
        unlisted INTEGER NOT NULL
    ) STRICT
    """,
)

# The text of cells lies in the sessions' own files, where a large one holds up no other session's call. What was kept
# here is dropped: no snapshot of that time could want an excerpt of it, and nothing else ever read it.
_TEXT_APART = (
    "DROP TABLE cells",
    "ALTER TABLE sessions DROP COLUMN cell_bytes",
)

# What a wake did not bring back, until a caller has been told.
_UNTOLD_NOTES = ("ALTER TABLE sessions ADD COLUMN untold_notes TEXT NOT NULL DEFAULT '[]'",)  # JSON

# The last execution that was lost when the session fell back: a savepoint may stand through several such losses.
_LOST_THROUGH = ("ALTER TABLE sessions ADD COLUMN lost_through INTEGER NOT NULL DEFAULT 0",)

# Age is counted time (domain/ticks.py), in microseconds, as dates are. What was there before begins to age now.
_AGEING = (
    """
    CREATE TABLE ageing (
        counted INTEGER NOT NULL,
        watched INTEGER NOT NULL,
        seen_at INTEGER                                 -- null before the first tick
    ) STRICT
    """,
    "INSERT INTO ageing (counted, watched) VALUES (0, 0)",
    "ALTER TABLE sessions ADD COLUMN used_count INTEGER NOT NULL DEFAULT 0",  # counted, at the last use
    "ALTER TABLE sessions ADD COLUMN expired_watch INTEGER",  # watched, when it expired
    # Triggers, so that no statement that raises `used_at` can forget the stamp. One above the count: of a use since the
    # last tick, which the next one stamps anew.
    """
    CREATE TRIGGER session_made AFTER INSERT ON sessions BEGIN
        UPDATE sessions SET used_count = (SELECT counted FROM ageing) + 1 WHERE key = NEW.key;
    END
    """,
    """
    CREATE TRIGGER session_used AFTER UPDATE OF used_at ON sessions BEGIN
        UPDATE sessions SET used_count = (SELECT counted FROM ageing) + 1 WHERE key = NEW.key;
    END
    """,
    # A round of ageing reads what is due, and not every session; the key makes pages of what has one stamp.
    "CREATE INDEX sessions_by_age ON sessions (state, used_count, key)",
    "CREATE INDEX sessions_by_expiry ON sessions (state, expired_watch, key) WHERE expired_watch IS NOT NULL",
)

MIGRATIONS: tuple[Sequence[str], ...] = (_FIRST, _SNAPSHOTS, _TEXT_APART, _UNTOLD_NOTES, _LOST_THROUGH, _AGEING)


def prepare(raw: sqlite3.Connection, path: Path) -> str:
    """Make the file ours and of the present schema: the installation's id. Runs in the connection's thread."""
    if sqlite3.sqlite_version_info < (3, 37):
        raise StoreUnusableError(
            f"Python was built with SQLite {sqlite3.sqlite_version}; the records need 3.37.",
            hint="Use a newer Python.",
        )
    # Looked at before anything is written: a file that is not ours stays as it is.
    _refuse_foreign(raw, path)
    version = schema_version(raw)
    if version > len(MIGRATIONS):
        raise StoreUnusableError(
            f"The records in {path} were written by a newer version (schema {version}; this one knows "
            f"{len(MIGRATIONS)}).",
            hint="Upgrade session-orchestrator, or choose another data directory.",
        )
    shrinks = _can_shrink(raw)
    _configure(raw)
    migrate(raw, MIGRATIONS)
    if not shrinks:
        _learn_to_shrink(raw)
    return _installation(raw)


def schema_version(raw: sqlite3.Connection) -> int:
    """The number of migrations that the file has seen."""
    return int(raw.execute("PRAGMA user_version").fetchone()[0])


def migrate(raw: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Bring the file to the last of `migrations`, each whole or not at all."""
    for number, statements in enumerate(migrations, start=1):
        raw.execute("BEGIN IMMEDIATE")
        try:
            # Asked inside: another process may have been faster.
            if schema_version(raw) < number:
                for statement in statements:
                    raw.execute(statement)
                raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                raw.execute(f"PRAGMA user_version = {number}")
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise


def _refuse_foreign(raw: sqlite3.Connection, path: Path) -> None:
    # SQLite takes a file shorter than any page for an empty database, and would write over it.
    if 0 < path.stat().st_size < _SMALLEST_PAGE:
        raise not_a_database(path)
    # In this order: another process that fills an empty file meanwhile sets both in one transaction.
    is_empty = raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    owner = raw.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID and not is_empty:
        raise StoreUnusableError(
            f"{path} is another program's database.", hint="Move that file away, or choose another data directory."
        )


def _can_shrink(raw: sqlite3.Connection) -> bool:
    """Whether free pages can be given back in small steps; an empty file is made so, which must come first of all."""
    raw.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    return int(raw.execute("PRAGMA auto_vacuum").fetchone()[0]) == _INCREMENTAL


def _learn_to_shrink(raw: sqlite3.Connection) -> None:
    """Write a file of an earlier version anew, once: only that changes the setting."""
    try:
        raw.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        raw.execute("VACUUM")
    except sqlite3.OperationalError as error:  # no room, or another process reads: the next start tries again
        logger.warning("the records cannot be made to shrink yet: %s", error)


def _configure(raw: sqlite3.Connection) -> None:
    _log_ahead(raw)
    # No fsync per commit: what was committed outlives every death of this process and is never torn. Only a crash of
    # the host can undo the last commits, and then every sandbox that they tell of is gone as well.
    raw.execute("PRAGMA synchronous = NORMAL")
    raw.execute("PRAGMA foreign_keys = ON")
    # Copying the log back costs milliseconds of fsync; every 16 MB (default 4) under 1 % of calls meet it.
    raw.execute("PRAGMA wal_autocheckpoint = 4000")
    raw.execute("PRAGMA journal_size_limit = 67108864")  # a log that a long transaction made long shrinks again


def _log_ahead(raw: sqlite3.Connection) -> None:
    """Keep a write-ahead log: a reader in another process, such as an admin command, then blocks no writer."""
    for wait in (*_SWITCH_WAITS, None):
        try:
            raw.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Where another process switches a new file at the same moment, SQLite refuses at once instead of waiting
            # its busy_timeout: both hold what the other wants.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or wait is None:
                raise
            time.sleep(wait)
        else:
            return


def _installation(raw: sqlite3.Connection) -> str:
    raw.execute(
        "INSERT INTO installation (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM installation)", (secrets.token_hex(16),)
    )
    return str(raw.execute("SELECT id FROM installation").fetchone()[0])
