"""What the supervisor does to processes: hide itself, count OOM kills, end everything but the spared."""

import ctypes
import os
import signal
import time
from collections.abc import Collection

_PR_SET_DUMPABLE = 4
LOST_CHANNEL = 113  # exit code of a worker that has lost its socket to the supervisor
_KILL_BOUND = 5.0  # seconds
_OOM_FILES = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")
_MEMORY_FILES = (  # the limit, and what is used of it
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
)
_PIDS_FILES = ("/sys/fs/cgroup/pids/pids.current", "/sys/fs/cgroup/pids.current")
_MAX_FILE = 4096
_ENDED = (b"Z", b"X")  # states in /proc
_STILL = (*_ENDED, b"T", b"t")


_libc = ctypes.CDLL(None, use_errno=True)


def set_dumpable(*, dumpable: bool) -> None:
    """Whether processes of the same uid may trace this one and read its memory, environment and descriptors."""
    if _libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def flush_c_streams() -> None:
    """Write out what C code printed through stdio and is still in its own buffers."""
    _libc.fflush(None)


def set_oom_score(score: int, process: int | str = "self") -> None:
    """Ask the kernel to prefer (1000) or spare (0) a process when memory runs out.

    PID 1 does so for what is forked from a worker: Landlock lets nothing there write to /proc.
    """
    try:
        with open(f"/proc/{process}/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError:
        pass  # a kernel that refuses still kills something; the verdict reads the counter


class OomCounter:
    """How many processes the memory limit has killed in this container (cgroup v1 and v2).

    The file is opened once: it is read at the end of every cell.
    """

    def __init__(self) -> None:
        self._fd = _open_first(_OOM_FILES)
        self._seen = self._read()

    def new(self) -> bool:
        """Whether one has been killed since this was asked last."""
        before, self._seen = self._seen, self._read()
        return self._seen > before

    def close(self) -> None:
        """Nobody asks any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read(self) -> int:
        if self._fd is None:
            return 0
        for line in os.pread(self._fd, _MAX_FILE, 0).splitlines():
            name, _, value = line.partition(b" ")
            if name == b"oom_kill":
                return int(value)
        return 0


class TaskCounter:
    """How many processes and threads live in this container, by the kernel's own count (cgroup v1 and v2)."""

    def __init__(self) -> None:
        self._fd = _open_first(_PIDS_FILES)

    def count(self) -> int | None:
        """None where the kernel does not tell."""
        if self._fd is None:
            return None
        try:
            return int(os.pread(self._fd, _MAX_FILE, 0))
        except (OSError, ValueError):
            return None


def memory_left() -> int:
    """How many bytes this container may still take; 0 where the kernel does not tell (cgroup v1 and v2)."""
    for files in _MEMORY_FILES:
        try:
            limit, used = (_number_in(path) for path in files)
        except (OSError, ValueError):
            continue
        return max(0, limit - used)
    return 0


def _number_in(path: str) -> int:
    with open(path, "rb") as file:
        return int(file.read(_MAX_FILE))


def _open_first(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended: (pid, wait status)."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def kill_all_but(spared: Collection[int]) -> list[tuple[int, int]]:
    """Kill every process of the sandbox but PID 1 and `spared`; what was reaped on the way.

    All are stopped first, since a fork bomb outruns any walk over /proc otherwise. Raises TimeoutError where something
    lives on, which only ends with the container.
    """
    deadline = time.monotonic() + _KILL_BOUND
    ended: list[tuple[int, int]] = []
    while True:
        _signal_all(signal.SIGSTOP)
        living = [pid for pid in _living() if pid not in spared]
        for pid in living:
            _signal_one(pid, signal.SIGKILL)
        ended += reap()
        if not living:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(living)} processes outlived SIGKILL")
        time.sleep(0.0005)
    for pid in spared:
        _signal_one(pid, signal.SIGCONT)
    return ended


def stop_all_but(spared: Collection[int]) -> None:
    """Stop every process of the sandbox but PID 1 and `spared`; one call, so that none is forked past it."""
    _signal_all(signal.SIGSTOP)
    for pid in spared:
        _signal_one(pid, signal.SIGCONT)


def stopped_all_but(spared: Collection[int]) -> bool:
    """Whether all of them have stopped, each with all its threads."""
    return all(pid in spared or _is_still(pid) for pid in _numbers("/proc") if pid != 1)


def continue_all() -> None:
    """Let everything go on, also what the session itself had stopped."""
    _signal_all(signal.SIGCONT)


def _is_still(pid: int) -> bool:
    try:
        threads = _numbers(f"/proc/{pid}/task")
    except OSError:
        return True  # it has ended
    return all(_state(f"/proc/{pid}/task/{thread}/stat") in _STILL for thread in threads)


def _signal_all(number: int) -> None:
    # From PID 1 this reaches every process in its namespace but itself.
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass


def _signal_one(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _living() -> list[int]:
    return [pid for pid in _numbers("/proc") if pid != 1 and _state(f"/proc/{pid}/stat") not in _ENDED]


def _numbers(folder: str) -> list[int]:
    return [int(name) for name in os.listdir(folder) if name.isdigit()]


def _state(path: str) -> bytes:
    """One letter; as of an ended process where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().rpartition(b") ")[2][:1]
    except OSError:
        return b"X"
