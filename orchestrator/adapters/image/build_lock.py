"""One image build at a time for a user: two at once would do the work twice and remove each other's build stages."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.adapters.host_packages import Report
from orchestrator.domain.errors import BusyError

_WAIT_SECONDS = 1800.0
_POLL_SECONDS = 0.2


def lock_path() -> Path:
    """The lock's file, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "session-orchestrator" / "image-build.lock"


@contextmanager
def build_lock(path: Path, report: Report, *, wait_seconds: float = _WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock, which dies with this process; waits for another build and raises `BusyError` when that is long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("a") as file:
        waiting = False
        while not _taken(file.fileno()):
            if not waiting:
                report("waiting for another build to end")
                waiting = True
            if time.monotonic() > deadline:
                raise BusyError("Another image build holds the lock.", hint=f"See who holds {path}: `fuser {path}`.")
            time.sleep(_POLL_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
