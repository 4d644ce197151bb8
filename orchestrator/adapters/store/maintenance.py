"""Keeps the records' file small and quick, in steps that hold up no call.

What needs the records' own connection takes about a millisecond and is done while nobody uses it. Copying the log back
into the file waits for the disk (20 to 50 ms were measured), so it is done over a connection of its own: SQLite lets
calls go on beside it.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.store.connection import RecordsConnection
from orchestrator.domain.upkeep import Maintained

_STEP_PAGES: Final = 64  # of 4 KiB, given back to the disk in one step
_SPARE_PAGES: Final = 256  # that stay free for what comes next
_ANALYSED_ROWS: Final = 200  # of an index, at most
_OPTIMIZED_EVERY: Final = 3600.0  # seconds
_QUIET: Final = 0.5  # seconds without a call


class Maintenance:
    """One step after the other, for as long as the records are not in use."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection
        self._optimized_at: float | None = None

    async def step(self) -> Maintained:
        """Do one."""
        if self._db.quiet_for < _QUIET:
            return "in use"
        if await self._db.run(_give_back, counts=False):
            return "more"
        path = self._db.path
        if _log_size(path):
            await in_thread(lambda: _copy_log_back(path), "records-checkpoint")
        now = self._db.monotonic()
        if self._optimized_at is None or now - self._optimized_at >= _OPTIMIZED_EVERY:
            self._optimized_at = now
            await self._db.run(_optimize, counts=False)
        return "done"


def _give_back(raw: sqlite3.Connection) -> bool:
    excess = int(raw.execute("PRAGMA freelist_count").fetchone()[0]) - _SPARE_PAGES
    if excess <= 0:
        return False
    # Each step returns one page, and `execute` makes a single step of what has no columns.
    raw.executescript(f"PRAGMA incremental_vacuum({min(_STEP_PAGES, excess)})")
    left = int(raw.execute("PRAGMA freelist_count").fetchone()[0]) - _SPARE_PAGES
    return 0 < left < excess  # an older file gives nothing back


def _optimize(raw: sqlite3.Connection) -> None:
    raw.execute(f"PRAGMA analysis_limit = {_ANALYSED_ROWS}").fetchall()
    raw.execute("PRAGMA optimize").fetchall()


def _copy_log_back(path: Path) -> None:
    """All that no reader still needs; where that was all of it and nobody is at it, the log is emptied."""
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as raw:
            busy, in_log, copied = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not busy and in_log == copied:
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        return  # somebody was faster: SQLite does the same by itself at some commit


def _log_size(path: Path) -> int:
    try:
        return os.stat(f"{path}-wal").st_size  # noqa: PTH116 - the name is SQLite's
    except FileNotFoundError:
        return 0
