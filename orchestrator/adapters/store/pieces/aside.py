"""Files that no session knows, moved where nothing else finds them, and deleted when they have lain long enough."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from orchestrator.adapters.store.connection import store_error
from orchestrator.adapters.store.pieces.file import SUFFIX, Place, opened, path_of
from orchestrator.domain.errors import OrchestratorError

DIRECTORY_NAME: Final = "orphaned"  # beside the sessions' files
KEPT: Final = timedelta(days=30)
# A directory for each time that something was set aside; a file keeps its name, to which its digests are bound.
_STAMP: Final = "%Y-%m-%dT%H%M%S.%fZ"


def set_aside(directory: Path, keys: Iterable[str], now: datetime) -> None:
    """Move the files of those sessions, and delete what has lain there for longer than is kept."""
    try:
        for key in keys:
            _move(path_of(directory, key), directory / DIRECTORY_NAME / now.strftime(_STAMP))
        for stamped, since in _stamped(directory):
            if now - since > KEPT:
                shutil.rmtree(stamped)
    except OSError as error:
        raise store_error(error, directory) from error


def listed(directory: Path) -> Sequence[str]:
    """The paths of what lies there, below the directory, oldest first."""
    try:
        return [
            str(path.relative_to(directory))
            for stamped, _ in sorted(_stamped(directory))
            for path in sorted(stamped.glob(f"*{SUFFIX}"))
        ]
    except OSError as error:
        raise store_error(error, directory) from error


def _move(path: Path, target: Path) -> None:
    # A transaction that a kill cut short is undone while its journal still lies beside the file.
    with suppress(OrchestratorError), opened(Place(path, floor_bytes=0, limit_bytes=None)):
        pass
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (f"{path.name}-journal", path.name):
        with suppress(FileNotFoundError):
            path.with_name(name).rename(target / name)


def _stamped(directory: Path) -> Iterator[tuple[Path, datetime]]:
    for path in (directory / DIRECTORY_NAME).glob("*"):
        with suppress(ValueError):
            yield path, datetime.strptime(f"{path.name}+0000", f"{_STAMP}%z")
