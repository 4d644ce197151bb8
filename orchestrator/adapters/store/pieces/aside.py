"""Files that no session knows, moved where nothing else finds them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.adapters.store.connection import store_error
from orchestrator.adapters.store.pieces.file import SUFFIX, Place, opened, path_of
from orchestrator.domain.errors import OrchestratorError

DIRECTORY_NAME: Final = "orphaned"  # beside the sessions' files
# A directory for each time that something was set aside; a file keeps its name, to which its digests are bound.
_STAMP: Final = "%Y-%m-%dT%H%M%S.%fZ"


def set_aside(directory: Path, keys: Iterable[str], now: datetime) -> None:
    """Move the files of those sessions."""
    try:
        for key in keys:
            _move(path_of(directory, key), directory / DIRECTORY_NAME / now.strftime(_STAMP))
    except OSError as error:
        raise store_error(error, directory) from error


def listed(directory: Path) -> Sequence[str]:
    """The paths of what lies there, below the directory, oldest first."""
    try:
        return [
            str(path.relative_to(directory))
            for stamped in sorted(_stamped(directory))
            for path in sorted(stamped.glob(f"*{SUFFIX}"))
        ]
    except OSError as error:
        raise store_error(error, directory) from error


def drop(directory: Path, name: str) -> None:
    """Delete a file that `listed` has named, and the directory of its time with the last one."""
    try:
        if name in listed(directory):
            path = directory / name
            for doomed in (path.with_name(f"{path.name}-journal"), path):
                doomed.unlink(missing_ok=True)
            with suppress(OSError):  # others lie there
                path.parent.rmdir()
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


def _stamped(directory: Path) -> Iterator[Path]:
    for path in (directory / DIRECTORY_NAME).glob("*"):
        with suppress(ValueError):
            datetime.strptime(f"{path.name}+0000", f"{_STAMP}%z")
            yield path
