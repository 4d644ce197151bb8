"""Processes by what they say of themselves: found, watched, ended by pid."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

GONE_SECONDS = 10.0
_POLL_SECONDS = 0.02


def pids_naming(path: Path, *words: str) -> list[int]:
    """Of the processes that have the path, and each of those words, in their command lines."""
    wanted = os.fsencode(path)
    arguments = [word.encode() for word in words]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if wanted in line and all(word in line.split(b"\0") for word in arguments):
                found.append(int(entry.name))
    return found


def runs(pid: int) -> bool:
    """Whether it lives; one that has ended and that nobody has asked after is dead."""
    return status_of(pid, "State") not in ("", "Z", "X")


def status_of(pid: int, field: str) -> str:
    """The first word of that field of its status; empty where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return value.split()[0]
    return ""


def kill_and_wait(pids: Iterable[int]) -> None:
    """End them, and wait within bounds until they are gone."""
    left = list(pids)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GONE_SECONDS
    while any(map(runs, left)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
