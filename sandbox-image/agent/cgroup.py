"""What the kernel counts of this container (cgroup v1 and v2). Files are opened once: most are read with every cell."""

import builtins
import os
import time

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

_ROOT = "/sys/fs/cgroup"
_OOM_FILES = (f"{_ROOT}/memory/memory.oom_control", f"{_ROOT}/memory.events")
_LIMIT_FILES = (f"{_ROOT}/memory/memory.limit_in_bytes", f"{_ROOT}/memory.max")
_USAGE_FILES = (f"{_ROOT}/memory/memory.usage_in_bytes", f"{_ROOT}/memory.current")
_PEAK_FILES = (f"{_ROOT}/memory/memory.max_usage_in_bytes", f"{_ROOT}/memory.peak")
_STATISTICS_FILES = (f"{_ROOT}/memory/memory.stat", f"{_ROOT}/memory.stat")
_PIDS_FILES = (f"{_ROOT}/pids/pids.current", f"{_ROOT}/pids.current")
_CPU_FILES = (f"{_ROOT}/cpuacct/cpuacct.usage", f"{_ROOT}/cpu,cpuacct/cpuacct.usage")
_CPU_STATISTICS = f"{_ROOT}/cpu.stat"
_PAGES_OF_FILES = (b"inactive_file", b"active_file")
_NO_LIMIT = 2**60  # bytes; what v1 says where there is none is more
_MAX_FILE = 8192
_GIVEN_BACK = 1.0  # seconds
_LEAST_FREE = 16  # part of the limit


class Counter:
    """One number of the kernel's."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._fd = open_first(paths)

    def read(self) -> int | None:
        """None where the kernel does not tell, or says that there is no bound."""
        if self._fd is None:
            return None
        try:
            return int(os.pread(self._fd, _MAX_FILE, 0))
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Nobody asks any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class CpuCounter:
    """How much of the processor this container takes, in seconds: all of its processes, also those that have ended."""

    def __init__(self) -> None:
        self._v1, self._v2 = open_first(_CPU_FILES), open_first((_CPU_STATISTICS,))
        self._seen = self._read()

    def new(self) -> float:
        """Since this was asked last."""
        before, self._seen = self._seen, self._read()
        return max(0.0, self._seen - before)

    def _read(self) -> float:
        if self._v1 is not None:
            try:
                return int(os.pread(self._v1, _MAX_FILE, 0)) / 1e9
            except (OSError, ValueError):
                return 0.0
        return 0.0 if self._v2 is None else _fields(self._v2, (b"usage_usec",)) / 1e6


class TaskCounter(Counter):
    """How many processes and threads live in this container."""

    def __init__(self) -> None:
        super().__init__(_PIDS_FILES)


class OomCounter:
    """How many processes the memory limit has killed in this container."""

    def __init__(self) -> None:
        self._fd = open_first(_OOM_FILES)
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
        return 0 if self._fd is None else _fields(self._fd, (b"oom_kill",))


class MemoryGauge:
    """How full this container's memory is. Pages of files that the kernel can take back do not count as used."""

    def __init__(self) -> None:
        self._limit, self._usage, self._peak = map(Counter, (_LIMIT_FILES, _USAGE_FILES, _PEAK_FILES))
        self._statistics = open_first(_STATISTICS_FILES)
        self._files = 0  # bytes of such pages
        self._peak_before = 0
        self._most_seen = 0
        self._looked = 0.0
        self.limit = 0  # bytes; 0 where there is none, or the kernel does not tell
        self.look()

    def look(self, *, older_than: float = 0.0) -> None:
        """Ask anew for what changes seldom, if so many seconds ago: the limit, and what the kernel could take back."""
        now = time.monotonic()
        if now - self._looked < older_than:
            return
        self._looked = now
        limit = self._limit.read()
        self.limit = limit if limit is not None and 0 < limit < _NO_LIMIT else 0
        if self._statistics is not None:
            self._files = _fields(self._statistics, _PAGES_OF_FILES)

    def used(self) -> int:
        """Bytes; 0 where the kernel does not tell."""
        used = max(0, (self._usage.read() or 0) - self._files)
        self._most_seen = max(self._most_seen, used)
        return used

    def left(self) -> int:
        """How many bytes may still be taken; 0 where the kernel does not tell."""
        self.look()
        return max(0, self.limit - self.used())

    def has_room(self) -> bool:
        """Whether a sixteenth of it is free, which is waited for: what the dead held is given back bit by bit."""
        ends = time.monotonic() + _GIVEN_BACK
        while self.limit and self.left() < self.limit // _LEAST_FREE:
            if time.monotonic() > ends:
                return False
            time.sleep(0.005)
        return True

    def begin(self) -> None:
        """From here on the most that was used is of interest."""
        self._most_seen = 0
        self._peak_before = self._peak.read() or 0

    def most(self) -> int:
        """The most that was used since: as far as it was seen, and exactly where it was more than ever."""
        used, peak = self.used(), self._peak.read() or 0
        exact = peak - self._files if peak > self._peak_before else 0
        return max(used, self._most_seen, exact)


def open_first(paths: tuple[str, ...]) -> int | None:
    """The first of these files that is there."""
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def _fields(fd: int, names: tuple[bytes, ...]) -> int:
    """The sum of what lines of these names say."""
    try:
        lines = os.pread(fd, _MAX_FILE, 0).splitlines()
    except OSError:
        return 0
    return sum(int(value) for name, _, value in (line.partition(b" ") for line in lines) if name in names)
