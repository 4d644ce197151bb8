"""Backups of a data directory that is in use: one directory with the records, the sessions' files and a manifest.

The order makes them agree. First no snapshot is trimmed any more, then the records are copied as of one moment, then
each session's file. A head that those records name is therefore still in its file, which may hold newer snapshots:
they are cut off in the copy. A session that was deleted meanwhile is left out of both; one that began later is in none.
The copied records hold no sandbox, and so no sandbox's secret, and intend no snapshot: a backup is of the heads. The
installation's signing key comes along, so that what it signs after a restore is trusted where it was before.
"""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from orchestrator import __version__
from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.store.connection import store_error
from orchestrator.adapters.store.pieces.copying import Known
from orchestrator.adapters.store.pieces.file import path_of
from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME, SqlitePieces
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.signing import KEY_NAME
from orchestrator.domain.snapshots import SnapshotNotFoundError
from orchestrator.domain.store_care import Told

FORMAT: Final = 1
MANIFEST_NAME: Final = "manifest.json"
_READ_BYTES: Final = 1024 * 1024
_PATIENCE: Final = 60.0  # seconds
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    head: int | None
    known: Known


async def back_up(records: Path, pieces: SqlitePieces, target: Path, now: datetime, told: Told) -> None:
    """Make the directory `target`, which appears whole or not at all; a kill leaves one that ends in `.partial`.

    Raises InvalidRequestError where there is one already, StoreFullError and StoreUnreachableError.
    """
    partial_path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with pieces.untrimmed():
            rows = await _whole(partial(_copy_records, records, partial_path, target), "backup-records")
            gone = await _copy_files(rows, pieces, partial_path, told)
        key = records.with_name(KEY_NAME)
        await _whole(partial(_finish, partial_path, target, key, gone, now), "backup-manifest")
    except BaseException:
        shutil.rmtree(partial_path, ignore_errors=True)
        raise


async def _whole(work: Callable[[], T], name: str) -> T:
    """Cancelled, it is waited for: what it writes would else come after the clearing up."""
    working = in_thread(work, name)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working], timeout=_PATIENCE)
        raise


async def _copy_files(rows: list[_Row], pieces: SqlitePieces, into: Path, told: Told) -> list[str]:
    gone = []
    for number, row in enumerate(rows):
        told(number, len(rows))
        try:
            await pieces.copy(row.key, path_of(into / DIRECTORY_NAME, row.key), row.known)
        except SnapshotNotFoundError:
            if row.head is not None:
                gone.append(row.key)
    told(len(rows), len(rows))
    return gone


def _copy_records(path: Path, into: Path, target: Path) -> list[_Row]:
    if target.exists():
        raise InvalidRequestError(f"{target} is there already.", hint="Choose a name that is not taken.")
    copy = into / RECORDS_NAME
    try:
        (into / DIRECTORY_NAME).mkdir(mode=0o700, parents=True)
        into.chmod(0o700)
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy, isolation_level=None)) as raw:
            source.backup(raw)  # in one step, and so of one moment; writers go on beside it
            raw.execute("PRAGMA journal_mode = DELETE")
            raw.execute("DELETE FROM sandboxes")
            raw.execute("UPDATE snapshots SET intended = NULL")
            raw.execute("PRAGMA foreign_keys = ON")
            raw.execute("DELETE FROM sessions WHERE state = 'destroying'")
            raw.execute("VACUUM")  # what was deleted, the secrets of sandboxes, is not in the file any more
            found = raw.execute(
                "SELECT key, head, coalesce(sequence, 0), executions FROM sessions "
                "LEFT JOIN snapshots ON session = key ORDER BY key"
            )
            return [_Row(key, head, Known(sequence, executions)) for key, head, sequence, executions in found]
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, copy) from error


def _finish(made: Path, target: Path, key: Path, gone: list[str], now: datetime) -> None:
    try:
        with closing(sqlite3.connect(made / RECORDS_NAME, isolation_level=None)) as raw:
            raw.execute("PRAGMA foreign_keys = ON")
            raw.executemany("DELETE FROM sessions WHERE key = ?", [(key,) for key in gone])
            installation = raw.execute("SELECT id FROM installation").fetchone()[0]
            schema = raw.execute("PRAGMA user_version").fetchone()[0]
        _copy_key(key, made)
        manifest = {
            "format": FORMAT,
            "version": __version__,
            "schema": schema,
            "installation": installation,
            "created_at": now.isoformat(),
            "deleted_meanwhile": gone,
            "files": {
                str(path.relative_to(made)): described(path) for path in sorted(made.rglob("*")) if path.is_file()
            },
        }
        descriptor = os.open(made / MANIFEST_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        made.rename(target)
        sync_directory(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, made / MANIFEST_NAME) from error


def _copy_key(key: Path, made: Path) -> None:
    with suppress(FileNotFoundError):  # none was needed yet
        stored = key.read_bytes()
        descriptor = os.open(made / KEY_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(stored)


def described(path: Path) -> dict[str, int | str]:
    """Size and digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def sync_directory(path: Path) -> None:
    """Let a rename in it outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
