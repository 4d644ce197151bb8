"""One SQLite connection, its thread, and the transactions that run in it."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from orchestrator.domain.errors import (
    BusyError,
    OrchestratorError,
    ShuttingDownError,
    StoreFullError,
    StoreUnreachableError,
    StoreUnusableError,
)
from orchestrator.domain.ports import Clock

Result = TypeVar("Result")
Parameters = Sequence[Any] | Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PRIMARY_CODE = 0xFF  # the low byte of an extended result code
_FULL_BELOW = 1024 * 1024  # bytes free: less is what makes an I/O error one of a full disk
_WRITER_WAIT_MS = 5_000  # an admin command may hold the write lock for a moment


def microseconds(moment: datetime) -> int:
    """Times are stored as whole microseconds since 1970: exact, compact, and compared by SQL as they are."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds_since_1970: int) -> datetime:
    """The time that was stored so."""
    return _EPOCH + timedelta(microseconds=microseconds_since_1970)


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, only ever used in the connection's thread. `now` is the same from its start to its end."""

    connection: sqlite3.Connection
    now: int

    def rows(self, statement: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """All rows; read to the end, because a half-read RETURNING would keep the transaction from committing."""
        return self.connection.execute(statement, parameters).fetchall()

    def row(self, statement: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row."""
        rows = self.rows(statement, parameters)
        return rows[0] if rows else None

    def change(self, statement: str, parameters: Parameters = ()) -> int:
        """How many rows the statement changed."""
        return self.connection.execute(statement, parameters).rowcount

    def change_each(self, statement: str, parameters: Iterable[Parameters]) -> None:
        """The statement once for each."""
        self.connection.executemany(statement, parameters)


def raw_connection(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made, 0600 in a directory 0700, where it is not there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its companions (-wal, -shm) the mode of this file. One that is there is never opened here:
        # closing any descriptor of it would drop the locks of all of this process's connections to it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        raw = sqlite3.connect(
            path,
            isolation_level=None,  # transactions begin and end where our statements say so
            check_same_thread=False,  # opened here, used in aiosqlite's thread
            timeout=_WRITER_WAIT_MS / 1_000,
        )
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, path) from error
    raw.row_factory = sqlite3.Row
    return raw


class RecordsConnection(aiosqlite.Connection):
    """Runs whole transactions in aiosqlite's thread, one at a time."""

    def __init__(self, raw: sqlite3.Connection, path: Path, clock: Clock) -> None:
        super().__init__(lambda: raw, iter_chunk_size=64)
        self._raw = raw
        self._path = path
        self._clock = clock
        self._is_closing = False
        self._under_way = 0  # calls that were begun and have not ended
        self._used_at = clock.monotonic()
        self._close_turn = asyncio.Lock()  # aiosqlite's close never returns where another one was faster

    async def begin(self) -> None:
        """Start the thread."""
        try:
            await self
        except BaseException:
            # Cancelled: aiosqlite never took the file over, and has told its thread to end, which is a matter of
            # microseconds. Waited for, because the thread reports to a loop that may be closed next.
            self._thread.join()
            self._raw.close()
            raise

    async def close(self) -> None:
        """Finish what was begun, close the file and end the thread. Idempotent."""
        self._is_closing = True
        async with self._close_turn:
            await super().close()

    async def write(self, work: Callable[[Transaction], Result]) -> Result:
        """What `work` returns, after its changes were committed; if it raises, none of them was made."""
        # The write lock is taken first, so that nothing read inside can have changed before it is written.
        return await self.run(lambda raw: self._transaction(raw, "BEGIN IMMEDIATE", work))

    async def read(self, work: Callable[[Transaction], Result]) -> Result:
        """What `work` returns, having seen one state of the records."""
        return await self.run(lambda raw: self._transaction(raw, "BEGIN", work))

    async def run(self, work: Callable[[sqlite3.Connection], Result], *, counts: bool = True) -> Result:
        """Call `work` in the thread.

        Cancelled or not, it runs as a whole: cancelling between two statements that are awaited apart would leave
        the shared connection inside a transaction. aiosqlite offers that only as `_execute`. With `counts` it is a use
        of the records, by which `quiet_for` begins anew.
        """
        if self._is_closing:
            raise ShuttingDownError("The records are closed.")
        self._under_way += counts
        try:
            result: Result = await self._execute(self._guarded, work)  # type: ignore[no-untyped-call]
        finally:
            if counts:
                self._under_way -= 1
                self._used_at = self._clock.monotonic()
        return result

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self._path

    @property
    def quiet_for(self) -> float:
        """Seconds since the last call ended; 0 while one is under way."""
        return 0.0 if self._under_way else self._clock.monotonic() - self._used_at

    def monotonic(self) -> float:
        """The clock that these seconds are of."""
        return self._clock.monotonic()

    def _guarded(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return work(self._raw)
        except sqlite3.Error as error:
            raise store_error(error, self._path) from error

    def _transaction(self, raw: sqlite3.Connection, begin: str, work: Callable[[Transaction], Result]) -> Result:
        raw.execute(begin)
        try:
            result = work(Transaction(raw, microseconds(self._clock.now())))
            raw.execute("COMMIT")
        except BaseException:
            # After some errors, such as a full disk, SQLite has rolled back by itself.
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise
        return result


def not_a_database(path: Path) -> StoreUnusableError:
    """What to say of a file that something else wrote."""
    return StoreUnusableError(
        f"{path} is not a database.", hint="Move that file away, or choose another data directory."
    )


def store_error(error: OSError | sqlite3.Error, path: Path) -> OrchestratorError:
    """What an error of SQLite, or of its file, is called in our tree."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code == sqlite3.SQLITE_FULL or _is_disk_full(code, error, path):
        return StoreFullError(
            f"The disk that holds {path} is full.", hint="Free some space there; nothing that was saved is lost."
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BusyError(f"Another process is writing to {path}.", hint="Try again in a moment.")
    if code == sqlite3.SQLITE_NOTADB:
        return not_a_database(path)
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreUnusableError(
            f"The records in {path} are damaged ({error}).", hint="Restore the data directory from a backup."
        )
    if isinstance(error, OSError) or code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}:
        reason = error.strerror if isinstance(error, OSError) else error
        return StoreUnreachableError(
            f"The records in {path} can't be used: {reason}.",
            hint="Check the directory's owner, its permissions and its disk, or choose another data directory.",
        )
    return OrchestratorError("The records failed.")  # a bug: the detail is in the chained cause, for the log


def _is_disk_full(code: int, error: OSError | sqlite3.Error, path: Path) -> bool:
    """SQLite reports a full disk as SQLITE_FULL where it writes, and as an I/O error where it maps or syncs."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    if code != sqlite3.SQLITE_IOERR:
        return False
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize < _FULL_BELOW
