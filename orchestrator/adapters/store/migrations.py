"""The records' tables, as numbered migrations: all of the schema stands here, and nowhere else.

A migration that has been released is never edited; a change is a new one at the end.
"""

from collections.abc import Sequence

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

_TENANTS = (
    """
    CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        disabled INTEGER NOT NULL DEFAULT 0,
        weight REAL NOT NULL DEFAULT 1,
        quotas TEXT NOT NULL DEFAULT '{}',              -- JSON: what differs from the defaults
        created_at INTEGER NOT NULL
    ) STRICT
    """,
    # Whose sessions those are that are there already.
    """
    INSERT INTO tenants (id, name, created_at)
    VALUES ('local', 'local', CAST(strftime('%s', 'now') AS INTEGER) * 1000000)
    """,
    # The secret stands nowhere. A key is never deleted, so that what the audit names can be looked up.
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,                            -- the prefix of its text
        tenant TEXT NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        digest BLOB NOT NULL,
        scopes TEXT NOT NULL,                           -- JSON
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        revoked_at INTEGER,
        used_at INTEGER
    ) STRICT
    """,
)

_AUDIT = (
    # Ids are never used again, so that a gap shows. No reference to anything: it outlives what it tells of.
    """
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        act TEXT NOT NULL,
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        session TEXT,
        incarnation INTEGER,
        execution INTEGER,
        begun INTEGER,
        code_hash TEXT,
        code TEXT,
        outcome TEXT,
        duration REAL,
        cpu REAL,
        memory_peak INTEGER,
        bytes_out INTEGER,
        limits TEXT NOT NULL,                           -- JSON
        detail TEXT NOT NULL                            -- JSON
    ) STRICT
    """,
    "CREATE INDEX audit_by_tenant ON audit (tenant, at)",
    "CREATE INDEX audit_by_time ON audit (at)",
    "CREATE TABLE audit_horizon (at INTEGER NOT NULL) STRICT",
    "INSERT INTO audit_horizon (at) VALUES (0)",
    # No statement of ours can change what stands there, be it by mistake; deleting needs the horizon to be raised.
    """
    CREATE TRIGGER audit_stays AFTER UPDATE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit is append-only');
    END
    """,
    """
    CREATE TRIGGER audit_gets_old BEFORE DELETE ON audit WHEN OLD.at >= (SELECT at FROM audit_horizon) BEGIN
        SELECT RAISE(ABORT, 'the audit is append-only');
    END
    """,
    """
    CREATE TRIGGER audit_horizon_rises BEFORE UPDATE ON audit_horizon WHEN NEW.at < OLD.at BEGIN
        SELECT RAISE(ABORT, 'the audit is append-only');
    END
    """,
    """
    CREATE TRIGGER audit_horizon_stays BEFORE DELETE ON audit_horizon BEGIN
        SELECT RAISE(ABORT, 'the audit is append-only');
    END
    """,
)

_REPEATS = (
    # Under the session's name: where it was deleted and begun anew, a call is still known for having been made.
    """
    CREATE TABLE repeats (
        tenant TEXT NOT NULL,
        session_id TEXT NOT NULL,
        key TEXT NOT NULL,
        request TEXT NOT NULL,
        session TEXT NOT NULL,
        execution INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (tenant, session_id, key)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX repeats_by_time ON repeats (at)",
    "CREATE INDEX repeats_by_session ON repeats (session, execution)",
    "ALTER TABLE heads ADD COLUMN files INTEGER NOT NULL DEFAULT 0",
)

_SEEDS_TOLD = (
    # An export tells the seed of what it holds: snapshots up to this sequence may have another than the session's.
    "ALTER TABLE snapshots ADD COLUMN renewed INTEGER NOT NULL DEFAULT 0",
)

MIGRATIONS: tuple[Sequence[str], ...] = (
    _FIRST,
    _SNAPSHOTS,
    _TEXT_APART,
    _UNTOLD_NOTES,
    _LOST_THROUGH,
    _AGEING,
    _TENANTS,
    _AUDIT,
    _REPEATS,
    _SEEDS_TOLD,
)
