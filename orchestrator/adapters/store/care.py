"""Looks at all that is stored: faults of the records, and what takes how much. Each call has a connection of its own,
so that no other call waits.
"""

import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Final

from orchestrator.adapters.store.connection import store_error
from orchestrator.adapters.store.pieces.file import keys_in, path_of
from orchestrator.domain.store_care import StoreSizes, TableSize

_MOST_FAULTS: Final = 100
_WAIT_SECONDS: Final = 5.0


def faults_of(records: Path) -> tuple[str, ...]:
    """Blocking. Raises StoreUnreachableError, StoreUnusableError."""
    try:
        with closing(_opened(records)) as raw:
            told = [str(line) for (line,) in raw.execute(f"PRAGMA integrity_check({_MOST_FAULTS})")]
            broken = raw.execute("PRAGMA foreign_key_check").fetchmany(_MOST_FAULTS)
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, records) from error
    references = [f"row {row} of {table} refers to a row of {to} that is not there" for table, row, to, _ in broken]
    return (*(() if told == ["ok"] else told), *references)


def sizes_of(records: Path, files: Path) -> StoreSizes:
    """Of the records, and of the sessions' files in that directory. Blocking. Raises StoreUnreachableError."""
    try:
        with closing(_opened(records)) as raw:
            names = [str(name) for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            sizes = _bytes_of_tables(raw)
            page, free, schema = (_number(raw, pragma) for pragma in ("page_size", "freelist_count", "user_version"))
            tables = [TableSize(name, _rows(raw, name), sizes.get(name)) for name in names if not _is_sqlites(name)]
        return StoreSizes(
            schema=schema,
            records=records.stat().st_size,
            log=_size(records.with_name(f"{records.name}-wal")),
            free=page * free,
            tables=tuple(sorted(tables, key=lambda table: table.name)),
            files={key: _size(path_of(files, key)) for key in sorted(keys_in(files))} if files.exists() else {},
        )
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, records) from error


def _opened(records: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)


def _bytes_of_tables(raw: sqlite3.Connection) -> dict[str, int]:
    """Each with its indexes; nothing where SQLite has no dbstat (https://www.sqlite.org/dbstat.html)."""
    found: dict[str, int] = defaultdict(int)
    try:
        rows = raw.execute(
            "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema ON sqlite_schema.name = dbstat.name "
            "WHERE aggregate = TRUE GROUP BY tbl_name"
        )
        for table, size in rows:
            found[table] += size
    except sqlite3.OperationalError:
        return {}
    return found


def _is_sqlites(table: str) -> bool:
    return table.startswith("sqlite_")


def _rows(raw: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(raw.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - a name of the schema's


def _number(raw: sqlite3.Connection, pragma: str) -> int:
    return int(raw.execute(f"PRAGMA {pragma}").fetchone()[0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
