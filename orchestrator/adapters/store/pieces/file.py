"""One session's file: how it is made, opened for one turn, and what its errors are called."""

import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash

from orchestrator.adapters.store.connection import store_error
from orchestrator.domain.errors import OrchestratorError, StoreFullError, StoreUnreachableError, StoreUnusableError
from orchestrator.domain.snapshots import SnapshotNotFoundError, SnapshotVoidedError

APPLICATION_ID: Final = 0x534F5032
SCHEMA_VERSION: Final = 2
SUFFIX: Final = ".pieces"
# Measured by tests/bench/bench_pieces.py, as shares of a plain file's write and fsync, in batches of 16 MiB:
#   rows of 1 MiB in pages of 64 KiB 0.48, of 16 KiB 0.43, of 4 KiB 0.27;
#   pages of 64 KiB with rows of 256 KiB 0.47, of 64 KiB 0.42, of 4 MiB 0.35; a write-ahead log instead 0.19 to 0.21.
# A journal that is deleted reaches 0.48 to 0.53, but can come back after a power cut and undo the last snapshot, which
# the records already call head; truncating one is synced.
PAGE_BYTES: Final = 65_536
SEED_BYTES: Final = 8
_MOST_PAGES: Final = 2**30 - 1  # what every SQLite allows: 70 TB

_KEY = re.compile(r"[0-9a-f]{32}")
_OTHERS_WAIT_SECONDS = 5.0  # turns keep us apart; another process may look at the file for a moment

# Few tables, because each has a page of its own. What is known of a piece stands in the manifests, under their digest.
_SCHEMA = (
    "CREATE TABLE about (seed BLOB NOT NULL) STRICT",
    "CREATE TABLE pieces (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
    """
    CREATE TABLE manifests (
        sequence INTEGER PRIMARY KEY,
        digest BLOB NOT NULL,                  -- the host's, of all that follows
        summary BLOB NOT NULL,                 -- JSON
        listing BLOB NOT NULL,                 -- JSON
        namespace_body BLOB NOT NULL,
        workspace_body BLOB NOT NULL,
        namespace_references BLOB NOT NULL,    -- packed by manifest_rows.py
        workspace_references BLOB NOT NULL
    ) STRICT
    """,
    # For people and excerpts; no snapshot needs it.
    """
    CREATE TABLE cells (
        number INTEGER PRIMARY KEY,            -- of the execution
        digest BLOB NOT NULL,                  -- the host's, of all the others
        code BLOB NOT NULL,
        output BLOB NOT NULL,
        output_bytes INTEGER NOT NULL,
        rest BLOB                              -- JSON; null in rows of an earlier version
    ) STRICT
    """,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session's file lies, and how far it may go."""

    path: Path
    floor_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class PieceFile:
    """A session's file, open for one turn in one thread."""

    raw: sqlite3.Connection
    place: Place
    seed: int
    identity: tuple[int, int]

    def digest(self, *parts: bytes) -> bytes:
        """The host's digest: keyed, because two different runs of bytes with the same plain xxh3 are easily made."""
        if len(parts) == 1:
            return xxhash.xxh3_128_digest(parts[0], seed=self.seed)
        hashed = xxhash.xxh3_128(seed=self.seed)
        for part in parts:
            hashed.update(len(part).to_bytes(8, "big"))
            hashed.update(part)
        return hashed.digest()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside, durable at the end, or nothing."""
        self.raw.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.raw.execute("COMMIT")
        except BaseException:
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK")
            raise
        # A commit into an unlinked file succeeds without a word. Ours are unlinked in turns; somebody else's rm is not.
        if _identity(self.place.path) != self.identity:
            raise SnapshotVoidedError("The session's snapshots were deleted while one was being written.")


def path_of(directory: Path, key: str) -> Path:
    """The file of that session. ValueError for what is no key: it becomes part of a path."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a session's key")
    return directory / f"{key}{SUFFIX}"


def keys_in(directory: Path) -> frozenset[str]:
    """The sessions that have a file there."""
    try:
        return frozenset(
            path.name.removesuffix(SUFFIX)
            for path in directory.glob(f"*{SUFFIX}")
            if _KEY.fullmatch(path.name.removesuffix(SUFFIX))
        )
    except OSError as error:
        raise _error(error, directory) from error


def bytes_of(paths: Iterable[Path]) -> int:
    """How much those files take on the disk; what is not there takes nothing."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def unlink(path: Path) -> None:
    """The file is gone, whether it was there or not. Its journal first: alone it would be taken for a later file's."""
    try:
        for doomed in (path.with_name(f"{path.name}-journal"), path):
            doomed.unlink(missing_ok=True)
    except OSError as error:
        raise _error(error, path) from error


def require_room(place: Place, wanted: int) -> None:
    """Raises StoreFullError where writing that much would bring the disk below its floor."""
    if not has_room(place, wanted):
        raise StoreFullError(
            f"The disk that holds {place.path.parent} has less than {place.floor_bytes + wanted} bytes free.",
            hint="Free some space there; what was saved before stays.",
        )


def has_room(place: Place, wanted: int = 0) -> bool:
    """Whether the disk stays above its floor with that much more."""
    try:
        disk = os.statvfs(place.path.parent)
    except FileNotFoundError:
        return True  # nothing was ever written there; making the directory tells the rest
    return disk.f_bavail * disk.f_frsize - wanted >= place.floor_bytes


@contextmanager
def opened(place: Place, *, create: bool = False) -> Iterator[PieceFile]:
    """The file for one turn. Raises SnapshotNotFoundError where there is none and it is not to be made."""
    try:
        if create:
            _touch(place.path)
        with closing(_connect(place)) as raw:
            yield _prepared(raw, place, create=create)
    except (OSError, sqlite3.Error) as error:
        raise _error(error, place.path) from error


def _touch(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _connect(place: Place) -> sqlite3.Connection:
    if not place.path.exists():
        raise SnapshotNotFoundError("This session has no snapshots.")
    # Never made here: a file that was unlinked meanwhile stays gone.
    raw = sqlite3.connect(
        f"{place.path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_OTHERS_WAIT_SECONDS
    )
    try:
        for pragma in (
            "journal_mode = TRUNCATE",
            "synchronous = FULL",
            # Some builds overwrite what is deleted with zeros, which writes everything twice.
            "secure_delete = OFF",
            "trusted_schema = OFF",
            "cell_size_check = ON",
        ):
            raw.execute(f"PRAGMA {pragma}").fetchall()
        if place.limit_bytes is not None:
            pages = min(max(1, place.limit_bytes // PAGE_BYTES), _MOST_PAGES)
            raw.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    except BaseException:
        raw.close()
        raise
    return raw


def _prepared(raw: sqlite3.Connection, place: Place, *, create: bool) -> PieceFile:
    identity = _identity(place.path)
    version = raw.execute("PRAGMA user_version").fetchone()[0]
    is_empty = version == 0 and raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if is_empty and not create:
        raise SnapshotNotFoundError("This session has no snapshots.")  # killed between making the file and filling it
    if is_empty:
        _fill(raw)
    elif raw.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or version != SCHEMA_VERSION:
        raise StoreUnusableError(
            f"{place.path} was not written by this version.",
            hint="Upgrade session-orchestrator, or delete the session.",
        )
    seed = raw.execute("SELECT seed FROM about").fetchone()
    if identity is None or seed is None or not isinstance(seed[0], bytes) or len(seed[0]) != SEED_BYTES:
        raise StoreUnusableError(f"{place.path} is damaged.", hint="Restore it from a backup, or delete the session.")
    # Bound to the session by its file's name: in a file that came to lie in another one's place no digest fits.
    own = xxhash.xxh3_64_intdigest(place.path.stem.encode(), seed=int.from_bytes(seed[0], "big"))
    return PieceFile(raw, place, own, identity)


def _fill(raw: sqlite3.Connection) -> None:
    # Only here: on a file that has both, setting the second is a write of its own.
    raw.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
    raw.execute("BEGIN IMMEDIATE")
    try:
        for statement in _SCHEMA:
            raw.execute(statement)
        raw.execute("INSERT INTO about (seed) VALUES (?)", (secrets.token_bytes(SEED_BYTES),))
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _error(error: OSError | sqlite3.Error, path: Path) -> OrchestratorError:
    mapped = store_error(error, path)
    if isinstance(mapped, StoreUnreachableError) and not path.is_dir():
        return StoreUnreachableError(
            f"The snapshots in {path} can't be reached: {error}.",
            hint="Check that file, its permissions and its disk, then try again.",
        )
    if isinstance(mapped, StoreUnusableError):
        return StoreUnusableError(
            f"The snapshots in {path} can't be used: {error}.", hint="Restore the file from a backup."
        )
    return mapped
