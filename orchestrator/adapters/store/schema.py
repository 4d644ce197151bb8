"""Makes a file the records' own, and brings it to the present tables, which migrations.py has."""

import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.store.connection import not_a_database
from orchestrator.adapters.store.migrations import MIGRATIONS as MIGRATIONS  # noqa: PLC0414 - tests put others in its place
from orchestrator.domain.errors import StoreUnusableError

logger = logging.getLogger(__name__)

# In the file's header: tells our records from any other program's database.
APPLICATION_ID = 0x534F5231
_SMALLEST_PAGE = 512
_INCREMENTAL = 2
_SWITCH_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds


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
