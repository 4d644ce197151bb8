"""What the supervisor does to processes: hide itself, count OOM kills, end everything but the spared."""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Collection

_PR_SET_DUMPABLE = 4
LOST_CHANNEL = 113  # exit code of a worker that has lost its socket to the supervisor
_KILL_BOUND = 5.0  # seconds
_OOM_FILES = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")


_libc = ctypes.CDLL(None, use_errno=True)


def set_dumpable(*, dumpable: bool) -> None:
    """Whether processes of the same uid may trace this one and read its memory, environment and descriptors."""
    if _libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def flush_c_streams() -> None:
    """Write out what C code printed through stdio and is still in its own buffers."""
    _libc.fflush(None)


def limit_descriptors(reserved: int) -> None:
    """Leave so many descriptors below the hard limit unused."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - reserved, hard))


def set_oom_score(score: int) -> None:
    """Ask the kernel to prefer (1000) or spare (0) this process when memory runs out. Only ever raised."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError:
        pass  # a kernel that refuses still kills something; the verdict reads the counter


def oom_kills() -> int:
    """How many processes the memory limit has killed in this container so far (cgroup v1 and v2)."""
    for path in _OOM_FILES:
        try:
            with open(path, encoding="ascii") as file:
                for line in file:
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except (OSError, ValueError):
            continue
    return 0


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
    living = []
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state = file.read().rpartition(b") ")[2][:1]
            except OSError:
                continue
            if state not in (b"Z", b"X"):
                living.append(int(name))
    return living
