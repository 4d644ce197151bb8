"""How a relay comes by an owner where none listens: start one, detached, and wait for it.

Of several relays that come at once, one holds the start lock and starts the owner; the others wait for its socket.
The data directory's own lock decides in the end who owns it.
"""

import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time

from orchestrator import places
from orchestrator.faces.relay_greeting import RelayError, greet

START_SECONDS = 30.0
REPORT_DESCRIPTOR = 3  # where a started owner writes one line: `ready`, `owned`, or `failed` and its sentence
MAX_REPORT_BYTES = 8192
# -P: the client's working directory may hold anything, even a package of our name.
OWNER_COMMAND = (sys.executable, "-P", "-m", "orchestrator", "owner")

_POLL_SECONDS = 0.05
_LAST_INHERITED_DESCRIPTOR = 1024


def connect_or_start(data_dir: str, path: str) -> socket.socket:
    """A connection to the owner of `data_dir`, which listens at `path`; started if need be, within 30 s.

    Raises RelayError with the owner's own sentence where it fails, PlaceError where the directory can't be used.
    """
    places.ensure_data_directory(data_dir)
    deadline = time.monotonic() + START_SECONDS
    start_lock = os.open(f"{data_dir}/{places.START_LOCK_NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while time.monotonic() < deadline:
            if (link := greet(path)) is not None:
                return link
            if _try_lock(start_lock) and (link := _start_unless_owned(data_dir, path, deadline)) is not None:
                return link
            # Whoever has the lock keeps it through this pause, so that nobody starts a second owner meanwhile.
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(start_lock)
    raise RelayError(
        f"No owner of {data_dir} answered within {START_SECONDS:.0f} seconds; its log is {data_dir}/{places.LOG_NAME}."
    )


def _start_unless_owned(data_dir: str, path: str, deadline: float) -> socket.socket | None:
    """One step of the relay that holds the start lock: a connection, or None for another round."""
    # Looked for again: the owner may have come up while this relay waited for the lock.
    if (link := greet(path)) is not None:
        return link
    if not _owned(data_dir):
        _start(data_dir, deadline)
        return greet(path)
    record = _record(data_dir)
    if record.get("kind") == "library":
        raise RelayError(
            f"Process {record.get('pid')} owns the data directory {data_dir}: a program that uses the library. "
            "Use another data directory, or wait until that program has ended."
        )
    # An owner that is coming up or going down, or one that was started with another runtime directory.
    other = record.get("socket")
    return greet(other) if isinstance(other, str) and other != path else None


def _start(data_dir: str, deadline: float) -> None:
    """Start an owner and wait for its report. Raises RelayError with its sentence where it failed."""
    reader, writer = os.pipe()
    try:
        _spawn(data_dir, writer)
    finally:
        os.close(writer)
    try:
        report = _read_report(reader, deadline)
    finally:
        os.close(reader)
    verdict, _, sentence = report.partition(" ")
    if verdict == "failed":
        raise RelayError(sentence)
    if verdict not in ("ready", "owned", "late"):
        raise RelayError(f"The owner process ended before it could serve; its log is {data_dir}/{places.LOG_NAME}.")


def _spawn(data_dir: str, writer: int) -> None:
    """Start the owner in a session of its own, as a child of nobody.

    Two forks, so that a client that kills the relay's descendants does not take the sessions of others along.
    """
    log = os.open(
        f"{data_dir}/{places.LOG_NAME}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    command = [*OWNER_COMMAND, "--data-dir", data_dir, "--report-descriptor", str(REPORT_DESCRIPTOR)]
    first = os.fork()
    if first == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.umask(0o077)
                os.chdir("/")
                for source, target in ((nothing, 0), (log, 1), (log, 2), (writer, REPORT_DESCRIPTOR)):
                    _place(source, target)
                # What the client left open here would stay open as long as the owner lives.
                os.closerange(REPORT_DESCRIPTOR + 1, _LAST_INHERITED_DESCRIPTOR)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                os.execv(command[0], command)  # noqa: S606 - this very interpreter
        finally:
            os._exit(0)
    os.close(log)
    os.close(nothing)
    os.waitpid(first, 0)


def _place(source: int, target: int) -> None:
    if source == target:
        os.set_inheritable(source, True)
    else:
        os.dup2(source, target, inheritable=True)


def _read_report(reader: int, deadline: float) -> str:
    """The owner's line, whole; empty where it ended without one, `late` where time ran out."""
    report = b""
    while not report.endswith(b"\n") and len(report) < MAX_REPORT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return "late"
        if not (data := os.read(reader, MAX_REPORT_BYTES)):
            return ""
        report += data
    return report.decode(errors="replace").strip()


def _owned(data_dir: str) -> bool:
    """Whether some process holds the data directory's lock. Asked only under the start lock: it disturbs starters."""
    try:
        lock = os.open(f"{data_dir}/{places.LOCK_NAME}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(lock)
    finally:
        os.close(lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _record(data_dir: str) -> dict[str, object]:
    try:
        with open(f"{data_dir}/{places.LOCK_NAME}", encoding="utf-8") as file:  # noqa: PTH123 - no pathlib in a relay
            record = json.load(file)
    except (OSError, ValueError):
        return {}  # being written just now
    return record if isinstance(record, dict) else {}
