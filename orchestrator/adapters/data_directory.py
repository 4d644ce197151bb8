"""One process owns a data directory: a lock that dies with the process, and a line that says who holds it."""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from orchestrator import places
from orchestrator.domain.errors import InvalidRequestError, OwnedError, StoreFullError

Kind = Literal["owner", "server", "library", "command"]

_DESCRIPTIONS: dict[str, str] = {
    "owner": "the owner process that serves `orchestrator mcp`",
    "server": "the server that `orchestrator serve` runs",
    "library": "a program that uses the library",
    "command": "a command that an operator runs",
}
_HINTS: dict[str, str] = {
    "owner": "Use another data directory, or end that process; it also ends by itself when its last client has left.",
    "server": "Use another data directory, or end that process.",
    "library": "Use another data directory, or wait until that program has ended.",
    "command": "Use another data directory, or wait until that command has ended.",
}
# A relay that looks whether somebody owns the directory holds the lock for some microseconds.
_ATTEMPTS = 5
_PAUSE = 0.02  # seconds
_MAX_RECORD = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Holder:
    """Who owns a data directory, in its own words; `socket` is where an owner listens."""

    pid: int
    kind: str
    version: str
    socket: str | None


class DataDirectory:
    """A data directory that this process owns until `release`, or until it dies."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def own(cls, path: Path, *, kind: Kind, version: str, socket: Path | None = None) -> Self:
        """Become the owner of `path`, which is made (mode 0700) where it is missing; `socket` is recorded for relays.

        Raises OwnedError naming pid and kind of the process that owns it (this one included), InvalidRequestError
        where the directory cannot be used, StoreFullError where the disk is full.
        """
        try:
            places.ensure_data_directory(str(path))
        except places.PlaceError as failure:
            raise InvalidRequestError(failure.message, hint=failure.hint) from failure
        try:
            descriptor = os.open(path / places.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as failure:
            raise InvalidRequestError(
                f"The data directory {path} cannot be locked: {failure.strerror}.", hint="Choose another."
            ) from failure
        try:
            _lock(descriptor, path)
            _write(descriptor, {"pid": os.getpid(), "kind": kind, "version": version, "socket": socket and str(socket)})
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def release(self) -> None:
        """Let go; the next owner may come. Idempotent."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # Emptied first: what stands there names the present owner. The file stays, because a lock on a removed file
        # guards nothing.
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """What the last owner wrote about itself; None where it left in order or nothing readable stands there.

    Tells nothing about whether that process still lives: only the lock does.
    """
    try:
        record = json.loads((path / places.LOCK_NAME).read_bytes()[:_MAX_RECORD])
        return Holder(int(record["pid"]), str(record["kind"]), str(record["version"]), record.get("socket"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_owned(path: Path) -> bool:
    """Whether some process owns the directory. Holds its lock for some microseconds, which starters outwait."""
    try:
        descriptor = os.open(path / places.LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, path: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE)
        except OSError as failure:
            raise InvalidRequestError(
                f"The data directory {path} lies on a file system without locks: {failure.strerror}.",
                hint="Choose a directory on a local disk.",
            ) from failure
        else:
            return
    found = holder(path)
    if found is None:
        raise OwnedError(f"Another process owns the data directory {path}.", hint=_HINTS["owner"])
    description = _DESCRIPTIONS.get(found.kind, found.kind)
    raise OwnedError(
        f"Process {found.pid} owns the data directory {path}: {description}.",
        hint=_HINTS.get(found.kind, _HINTS["owner"]),
    )


def _write(descriptor: int, record: dict[str, object]) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode() + b"\n", 0)
    except OSError as failure:
        raise StoreFullError(f"The data directory cannot be written to: {failure.strerror}.") from failure
