"""What a cell sees as sys.stdin, sys.stdout and sys.stderr.

Both outputs are one stream in its exact order, so nothing is buffered: each write goes to the cell's pipe at once, also
when the next instruction crashes the process.
"""

import io
from threading import Thread

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_LINKS_OF_ONE_THREAD = 3  # the directory has two links and one for each thread
HIGH = 512  # our own descriptors live up here, out of reach of a loop that closes the low ones


class CellRaw(io.RawIOBase):
    """Bytes to the pipe of the cell to which the writing thread belongs."""

    def __init__(self, attribution: "Attribution", fd: int) -> None:
        super().__init__()
        self._attribution = attribution
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        target = self._attribution.target(self._fd)
        with memoryview(data) as view:
            remaining = view.cast("B")
            size = len(remaining)
            while len(remaining):
                remaining = remaining[pristine.write(target, remaining) :]
        return size

    def close(self) -> None:
        """Nothing: the next cell writes here again."""


class CellWriter(io.TextIOBase):
    """Text to the cell's output, at once."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, raw: CellRaw, name: str) -> None:
        self.buffer = raw
        self.name = name
        self.mode = "w"

    def write(self, text: str) -> int:
        """Raises TypeError for what is not a string, as files do."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.buffer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.buffer.fileno()

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing: the next cell writes here again."""


class NoInput(io.TextIOBase):
    """Standard input where nobody types."""

    encoding = "utf-8"
    name = "<stdin>"

    def _refuse(self, *_: object) -> str:
        raise EOFError("nobody can type into a session: pass the value in the code instead of reading it from input()")

    read = readline = __next__ = _refuse  # type: ignore[assignment]

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing: `quit()` closes it on its way out."""


class Attribution:
    """Which cell a thread's prints belong to: the one that started it, also after that has ended."""

    def __init__(self) -> None:
        self._main = pristine.get_ident()
        self._main_thread = pristine.current_thread()
        self._left_over: dict[int, tuple[Thread, int]] = {}  # by id: the thread, its own cell's pipe

    def target(self, fd: int) -> int:
        """The descriptor that the calling thread writes to when it means `fd`."""
        if not self._left_over or pristine.get_ident() == self._main:
            return fd
        own = self._left_over.get(id(pristine.current_thread()))
        return own[1] if own else fd

    def forked(self) -> set[int]:
        """In a copy of the process, which has none of these threads: their pipes, which nobody needs here."""
        pipes = {pipe for _, pipe in self._left_over.values()}
        self._left_over.clear()
        return pipes

    def cell_ended(self) -> int:
        """Threads that still run belong to the ended cell from now on; how many there are."""
        living = {id(thread): thread for thread in pristine.threads() if thread is not self._main_thread}
        ended = {key: own for key, own in self._left_over.items() if key not in living}
        for key in ended:
            del self._left_over[key]
        new = living.keys() - self._left_over.keys()
        if new:
            pipe = pristine.fcntl(1, pristine.F_DUPFD_CLOEXEC, HIGH)
            self._left_over.update({key: (living[key], pipe) for key in new})
        in_use = {pipe for _, pipe in self._left_over.values()}
        for pipe in {pipe for _, pipe in ended.values()} - in_use:
            pristine.close(pipe)
        # Threads that no Python module started count too.
        return pristine.stat("/proc/self/task").st_nlink - _LINKS_OF_ONE_THREAD
