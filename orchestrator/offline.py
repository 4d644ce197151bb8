"""What is done to a data directory that nobody owns: a backup put in its place, its records brought up to date."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator import __version__
from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.adapters.store import schema
from orchestrator.adapters.store.connection import store_error
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.adapters.store.restore import Restored, restore, verified
from orchestrator.adapters.store.setback import Setback, setback
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import InvalidRequestError

_COPY: Final = "{name}.schema-{number}"


@dataclass(frozen=True, slots=True)
class BackupSeen:
    """A backup that was read to its end and is as it was made. `setback` is None where nobody can tell."""

    created_at: datetime
    sessions: int  # files of sessions in it
    setback: Setback | None


def look_at_backup(backup: Path, data_directory: Path) -> BackupSeen:
    """What it is, and what would be taken back there. Blocking. Raises StoreUnusableError."""
    manifest = verified(backup)
    try:
        lost: Setback | None = setback(data_directory / RECORDS_NAME, backup / RECORDS_NAME)
    except sqlite3.Error:
        lost = None  # of records that are damaged, perhaps: a reason to restore
    sessions = sum(name.endswith(".pieces") for name in manifest["files"])
    return BackupSeen(datetime.fromisoformat(str(manifest["created_at"])), sessions, lost)


def put_back(backup: Path, data_directory: Path, *, force: bool, take_over: bool) -> Restored:
    """See adapters/store/restore.py, also for what this raises."""
    return restore(backup, data_directory, SystemClock().now(), force=force, take_over=take_over)


@dataclass(frozen=True, slots=True)
class Migrated:
    """Where the records stood and stand now, and where their copy of before lies (None: nothing was to be done)."""

    before: int
    after: int
    copy: Path | None


def migrate(data_directory: Path) -> Migrated:
    """Bring the records to the present schema, with a copy of them made before. Blocking. Raises OwnedError,
    InvalidRequestError where there are none, StoreUnusableError where they are of a newer version or no records of
    ours, StoreFullError.
    """
    path = data_directory / RECORDS_NAME
    if not path.exists():
        raise InvalidRequestError(f"There are no records in {data_directory}.", hint="Name another --data-dir.")
    directory = DataDirectory.own(data_directory, kind="command", version=__version__)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            before = schema.schema_version(raw)
            copy = _copied(raw, path, before) if before < len(schema.MIGRATIONS) else None
            raw.row_factory = sqlite3.Row
            schema.prepare(raw, path)
            return Migrated(before, schema.schema_version(raw), copy)
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, path) from error
    finally:
        directory.release()


def _copied(raw: sqlite3.Connection, path: Path, number: int) -> Path:
    copy = path.with_name(_COPY.format(name=path.name, number=number))
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(copy)) as other:
        raw.backup(other)
    return copy
