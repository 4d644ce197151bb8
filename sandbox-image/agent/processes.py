"""What the supervisor does to processes: hide itself, end everything but the spared."""

import builtins
import ctypes
import os
import signal
import time
from collections.abc import Collection

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
SAVEPOINT_NAME = "savepoint "  # and the execution that it is of
LOST_CHANNEL = 113  # exit code of a worker that has lost its socket to the supervisor
CHANNEL_LOST = "it closed or misused the descriptor that the agent works through"
KILLED = "its process was ended by SIGKILL"
_KILL_BOUND = 5.0  # seconds
_ENDED = (b"Z", b"X")  # states in /proc
_STILL = (*_ENDED, b"T", b"t")


_libc = ctypes.CDLL(None, use_errno=True)


def set_dumpable(*, dumpable: bool) -> None:
    """Whether processes of the same uid may trace this one and read its memory, environment and descriptors."""
    if _libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def show_as(name: str) -> None:
    """In lists of processes; Landlock leaves this way to do so."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def flush_c_streams() -> None:
    """Write out what C code printed through stdio and is still in its own buffers."""
    _libc.fflush(None)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for that signal: one that has none would be ended by it."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    caught = [int(line.split()[1], 16) for line in lines if line.startswith(b"SigCgt:")]
    return any(mask >> (number - 1) & 1 for mask in caught)


def memory_taken(pid: int) -> int:
    """Bytes, roughly: pages by their faults, and huge ones, which have few faults, by what is there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        faults, resident = int(fields[7]), int(fields[21])
    except (OSError, LookupError, ValueError):
        return 0
    return max(faults, resident) * os.sysconf("SC_PAGE_SIZE")


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


def how_ended(status: int) -> str:
    """Of a process that was waited for, in a clause."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"its process was ended by {name}"
    code = os.waitstatus_to_exitcode(status)
    if code == LOST_CHANNEL:
        return CHANNEL_LOST
    return f"its process ended itself with exit code {code}"


def signal_one(pid: int, number: int) -> None:
    """Where it still lives."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_all_but(spared: Collection[int]) -> list[tuple[int, int]]:
    """Kill every process of the sandbox but PID 1 and `spared`; what was reaped on the way.

    All are stopped first, since a fork bomb outruns any walk over /proc otherwise; the spared, too, and they are seen
    to have stopped before anybody is looked for: a child that one of them is just forking begins stopped and is in no
    list yet, and would be waited for by its parent for ever. What lives on for long is in the kernel's hands: it runs
    no code of its own any more, and is not waited for.
    """
    deadline = time.monotonic() + _KILL_BOUND
    ended: list[tuple[int, int]] = []
    while True:
        _signal_all(signal.SIGSTOP)
        still = all(_is_still(pid) for pid in spared)
        living = [pid for pid in _living() if pid not in spared]
        for pid in living:
            signal_one(pid, signal.SIGKILL)
        ended += reap()
        if (still and not living) or time.monotonic() > deadline:
            break
        time.sleep(0.0005)
    for pid in spared:
        signal_one(pid, signal.SIGCONT)
    return ended


def stop_all_but(spared: Collection[int]) -> None:
    """Stop every process of the sandbox but PID 1 and `spared`; one call, so that none is forked past it."""
    _signal_all(signal.SIGSTOP)
    for pid in spared:
        signal_one(pid, signal.SIGCONT)


def stopped_all_but(spared: Collection[int]) -> bool:
    """Whether all of them have stopped, each with all its threads."""
    return all(pid in spared or _is_still(pid) for pid in _numbers("/proc") if pid != 1)


def continue_all() -> None:
    """Let everything go on, also what the session itself had stopped."""
    _signal_all(signal.SIGCONT)


def living_beside(ours: Collection[int]) -> set[int]:
    """The processes that live and are neither PID 1, nor in `ours`, nor hidden as the zygote is, nor called savepoints:
    one that is just coming or going is not in `ours`.
    """
    return {pid for pid in _living() if pid not in ours and _is_visible(pid) and not _is_savepoint(pid)}


def _is_savepoint(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().startswith(SAVEPOINT_NAME.encode())
    except OSError:
        return False  # it has ended


def _is_visible(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/stat").st_uid == os.getuid()
    except OSError:
        return False  # it has ended


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


def _living() -> list[int]:
    return [pid for pid in _numbers("/proc") if pid != 1 and not _has_ended(pid)]


def _has_ended(pid: int) -> bool:
    """With all its threads: where the first has ended, the process looks like a zombie, and the others go on."""
    if _state(f"/proc/{pid}/stat") not in _ENDED:
        return False
    try:
        threads = _numbers(f"/proc/{pid}/task")
    except OSError:
        return True
    return all(_state(f"/proc/{pid}/task/{thread}/stat") in _ENDED for thread in threads)


def _numbers(folder: str) -> list[int]:
    return [int(name) for name in os.listdir(folder) if name.isdigit()]


def _state(path: str) -> bytes:
    """One letter; as of an ended process where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().rpartition(b") ")[2][:1]
    except OSError:
        return b"X"
