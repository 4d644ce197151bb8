"""Copies one session's file for a backup, cut back to what the records of that backup know."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from orchestrator.adapters.store.connection import store_error
from orchestrator.adapters.store.pieces.file import Place, opened
from orchestrator.domain.errors import StoreUnreachableError

_STEP_PAGES: Final = 64  # of 64 KiB, so 4 MiB are in memory
LONGEST_SECONDS: Final = 60.0  # half of what others who wait for a turn of this session put up with


@dataclass(frozen=True, slots=True)
class Known:
    """What the records say of a session: its last intended snapshot, its last execution."""

    sequence: int
    executions: int


def copy(place: Place, target: Path, known: Known) -> None:
    """Raises StoreUnreachableError where the target's disk is too slow, StoreFullError where it is full."""
    with opened(place) as file:
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(target, isolation_level=None)) as copied:
                file.raw.backup(copied, pages=_STEP_PAGES, progress=_bounded(target))
                copied.execute("BEGIN")
                copied.execute("DELETE FROM manifests WHERE sequence > ?", (known.sequence,))
                copied.execute("DELETE FROM cells WHERE number > ?", (known.executions,))
                copied.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise store_error(error, target) from error


def _bounded(target: Path) -> Callable[[int, int, int], None]:
    deadline = monotonic() + LONGEST_SECONDS

    def look(_status: int, _left: int, _total: int) -> None:
        if monotonic() > deadline:
            raise StoreUnreachableError(
                f"The disk that holds {target.parent} takes more than {LONGEST_SECONDS:.0f} s for one session.",
                hint="Back up to a quicker disk, and copy the backup from there.",
            )

    return look
