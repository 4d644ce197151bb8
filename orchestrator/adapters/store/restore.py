"""Puts a backup in the place of a data directory: checked, fenced, and switched in one step.

Everything is made beside the target and then changes places with it (RENAME_EXCHANGE), so that a kill leaves the old
directory or the new one. The old one is set aside whole and never deleted.

The fence: the restored records name no sandbox, so no container of the old life is adopted; those of the same
installation are removed by its next owner. Execution numbers and incarnations begin far beyond any that were given out.
"""

import ctypes
import json
import os
import re
import secrets
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from orchestrator import __version__, places
from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.adapters.store import recovery, schema
from orchestrator.adapters.store.backup import FORMAT, MANIFEST_NAME, described, sync_directory
from orchestrator.adapters.store.connection import Transaction, microseconds, store_error
from orchestrator.adapters.store.pieces.file import path_of
from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.domain.errors import InvalidRequestError, StoreUnusableError
from orchestrator.domain.signing import KEY_NAME

FENCE: Final = 1_000_000  # executions and incarnations that are skipped: more than a session has between two backups
_NAME: Final = re.compile(rf"{re.escape(RECORDS_NAME)}|{re.escape(KEY_NAME)}|{DIRECTORY_NAME}/[0-9a-f]{{32}}\.pieces")
_MOST_MANIFEST: Final = 64 * 1024 * 1024  # bytes: some 400 000 sessions
_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done: where the old directory lies now (None: there was none), and whose containers it will remove."""

    set_aside: Path | None
    installation: str
    is_same_installation: bool


def restore(backup: Path, target: Path, now: datetime, *, force: bool = False, take_over: bool = False) -> Restored:
    """Let `target` hold that backup. Blocking.

    Over the directory it was made of, or with `take_over`, the installation stays the same with its signing key, and
    its next owner removes the old life's containers; elsewhere it becomes a new one, since the old one may be at work.
    Raises OwnedError, InvalidRequestError (something is there, and no `force`), StoreUnusableError (the backup is not
    as it was made, or of a newer version), StoreFullError.
    """
    manifest = verified(backup)
    held = DataDirectory.own(target, kind="library", version=__version__)
    staged = target.with_name(f"{target.name}.restoring-{secrets.token_hex(4)}")
    made: int | None = None
    try:
        is_empty = all(path.name in {places.LOCK_NAME, places.START_LOCK_NAME} for path in target.iterdir())
        if not is_empty and not force:
            raise InvalidRequestError(
                f"{target} is not empty.",
                hint="With force it is set aside, and what it holds beyond the backup with it.",
            )
        is_its_own = _installation_of(target / RECORDS_NAME) == manifest["installation"]
        is_same = take_over or is_its_own
        fresh = DataDirectory.own(staged, kind="library", version=__version__)
        made = staged.stat().st_ino
        try:
            _copy(backup, staged, manifest)
            _settle_key(staged, target if is_its_own else None, keep=is_same)
            installation = _fence(staged, str(manifest["created_at"]), now, is_same=is_same)
            _agree(staged)
            _sync(staged)
            _exchange(staged, target)
        finally:
            fresh.release()
        return Restored(_put_aside(staged, target, now, is_empty=is_empty), installation, is_same)
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, staged / RECORDS_NAME) from error
    finally:
        held.release()
        _clear(staged, made)


def verified(backup: Path) -> dict[str, Any]:
    """The manifest, after every file was found as it says. Raises StoreUnusableError."""
    path = backup / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            manifest = json.loads(file.read(_MOST_MANIFEST))
        known, files = int(manifest["schema"]), dict(manifest["files"])
        if manifest["format"] != FORMAT or known > len(schema.MIGRATIONS):
            raise StoreUnusableError(f"{backup} was made by a newer version.", hint="Upgrade session-orchestrator.")
        _ = manifest["created_at"], manifest["installation"]
        if RECORDS_NAME not in files or not all(map(_NAME.fullmatch, files)):
            raise _altered(backup, MANIFEST_NAME)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreUnusableError(f"{backup} is no whole backup: {error}.", hint="Choose another one.") from error
    for name, told in files.items():
        _require(backup / name, told, backup)
    return dict(manifest)


def _require(path: Path, told: object, backup: Path) -> None:
    try:
        found = None if path.is_symlink() else described(path)
    except OSError:
        found = None
    if found != told:
        raise _altered(backup, path.name)


def _altered(backup: Path, name: str) -> StoreUnusableError:
    return StoreUnusableError(f"{name} in {backup} is not as it was when the backup was made.", hint="Choose another.")


def _copy(backup: Path, staged: Path, manifest: dict[str, Any]) -> None:
    (staged / DIRECTORY_NAME).mkdir(mode=0o700)
    for name, told in manifest["files"].items():
        shutil.copyfile(backup / name, staged / name)
        (staged / name).chmod(0o600)
        _require(staged / name, told, backup)  # the copy, since that is what will count


def _settle_key(staged: Path, present: Path | None, *, keep: bool) -> None:
    """Another installation signs with a key of its own; the same one with that which it has at `present`, if any: a
    backup may be older than it.
    """
    path = staged / KEY_NAME
    if not keep:
        path.unlink(missing_ok=True)
    elif present is not None and (present / KEY_NAME).exists():
        stored = (present / KEY_NAME).read_bytes()
        path.touch(mode=0o600)
        path.write_bytes(stored)


def _fence(staged: Path, made_at: str, now: datetime, *, is_same: bool) -> str:
    path = staged / RECORDS_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.row_factory = sqlite3.Row
        installation = schema.prepare(raw, path)
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("DELETE FROM sandboxes")
        if not is_same:
            installation = secrets.token_hex(16)
            raw.execute("UPDATE installation SET id = ?", (installation,))
        recovery.recover(Transaction(raw, microseconds(now)), f"it was restored from a backup of {made_at}")
        raw.execute(
            "UPDATE sessions SET executions = executions + :n, namespace_since = executions + :n + 1, "
            "incarnation = incarnation + :n",
            {"n": FENCE},
        )
        raw.execute("COMMIT")
        raw.execute("PRAGMA journal_mode = DELETE")  # one file; its owner keeps a log again
        return installation


def _agree(staged: Path) -> None:
    """Every head that the records name is in its file, and both are whole. Raises StoreUnusableError."""
    with closing(sqlite3.connect(staged / RECORDS_NAME)) as raw:
        said = [text for (text,) in raw.execute("PRAGMA integrity_check(1)")]
        if said != ["ok"] or raw.execute("PRAGMA foreign_key_check").fetchone():
            raise StoreUnusableError("The records in the backup are damaged.", hint="Choose another backup.")
        for key, head in raw.execute("SELECT session, head FROM snapshots WHERE head IS NOT NULL"):
            path = path_of(staged / DIRECTORY_NAME, key)
            if not path.exists() or not _holds(path, head):
                raise StoreUnusableError(f"The backup lacks the head of session {key}.", hint="Choose another backup.")


def _holds(path: Path, head: int) -> bool:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute("SELECT 1 FROM manifests WHERE sequence = ?", (head,)).fetchone() is not None


def _installation_of(records: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro", uri=True)) as raw:
            return str(raw.execute("SELECT id FROM installation").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return None


def _sync(staged: Path) -> None:
    for path in (*staged.rglob("*"), staged):
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _exchange(staged: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(staged), _AT_FDCWD, os.fsencode(target), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
    sync_directory(target.parent)


def _put_aside(old: Path, target: Path, now: datetime, *, is_empty: bool) -> Path | None:
    if is_empty:
        for path in old.iterdir():  # locks
            path.unlink()
        old.rmdir()
        return None
    aside = target.with_name(f"{target.name}.before-{now.strftime('%Y-%m-%dT%H%M%SZ')}-{secrets.token_hex(2)}")
    old.rename(aside)
    return aside


def _clear(staged: Path, made: int | None) -> None:
    """Remove what a restore has made that failed. After the switch the old directory lies there: that is another
    inode, and stays, whatever fails then.
    """
    if made is not None and staged.exists() and staged.stat().st_ino == made:
        shutil.rmtree(staged, ignore_errors=True)
