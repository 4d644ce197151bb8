"""The supervisor's side of a listing: asks children of the worker, one after another, and outlives what they meet."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from agent.reactor import Reactor, Timer

_SILENCE = 0.5  # seconds that one object may take
_BOUND = 3.0  # seconds for all
_MAX_BYTES = 64 * 1024 * 1024  # from all children together
_MAX_TABLE = 6 * 1024 * 1024  # of the answer, which travels in one frame
_READ_SIZE = 256 * 1024
_MAX_CHILDREN = 32
_MAX_SILENT_CHILDREN = 3  # that end without a word
_MAX_PID = 2**22
_ROW = 4  # name, type, size, whether it is a module
_MAX_SIZE = 2**53  # what every JSON reader holds exactly, and the most that the host takes


def is_row(row: Any) -> bool:
    """Whether it is one of ours, by its form: what an object has written among them ends neither us nor the host."""
    if type(row) is not list or len(row) != _ROW:
        return False
    name, kind, size, _module = row
    return type(name) is str and type(kind) is str and (size is None or is_size(size))


def is_size(size: Any) -> bool:
    """Whether it could be one."""
    return type(size) is int and 0 <= size < _MAX_SIZE


class Listing:
    """One `list` request on its way."""

    def __init__(
        self,
        reactor: Reactor,
        ask: Callable[[int, int], None],
        done: Callable[[dict[str, Any]], None],
        lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._ask = ask  # (how many to skip, the pipe to write to): starts a child
        self._done, self._lost = done, lost
        self._names: list[list[Any]] = []
        self._room = _MAX_TABLE
        self._count: int | None = None
        self._sizes: dict[int, int] = {}
        self._ordinal = -1  # of the object that was asked last
        self._child: int | None = None
        self._fd = -1
        self._buffer = b""
        self._taken = 0
        self._silence: Timer | None = None
        self._over = False
        self._children = 0
        self._bound = reactor.after(_BOUND, self._finish)
        self._begin()

    def child(self, pid: int) -> None:
        """The worker says which process it asks."""
        if 1 < pid < _MAX_PID:
            self._child = pid

    def _begin(self) -> None:
        self._children += 1
        if self._children > (_MAX_CHILDREN if self._count is not None else _MAX_SILENT_CHILDREN):
            self._finish()
            return
        self._buffer = b""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        self._fd = reading
        self._reactor.watch(reading, self._ready)
        self._ask(self._ordinal + 1, writing)
        self._restart_silence()

    def _restart_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self._reactor.after(_SILENCE, self._next_child)

    def _ready(self, _events: int) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        self._taken += len(data)
        if self._taken > _MAX_BYTES:
            self._finish()
            return
        if not data:
            # It ended before it said so: what it met last ended it, and the next one goes on behind that.
            self._next_child()
            return
        self._restart_silence()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if not self._over:
                self._line(line)

    def _line(self, line: bytes) -> None:
        # Whatever is in these lines came from user code's reach; the host checks what is passed on.
        try:
            fields = json.loads(line)
            if "count" in fields:
                self._count = int(fields["count"])
            elif "names" in fields and fields["start"] == len(self._names):
                self._add_rows(fields["names"])
            elif "asking" in fields:
                self._ordinal = max(self._ordinal, int(fields["ordinal"]))
            elif "size" in fields and is_size(fields["size"]):
                self._sizes[int(fields["position"])] = fields["size"]
            elif "end" in fields:
                self._finish()
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return

    def _next_child(self) -> None:
        self._drop_child()
        if not self._over:
            self._begin()

    def _drop_child(self) -> None:
        if self._child is not None:
            try:
                os.kill(self._child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._child = None
        if self._fd >= 0:
            self._reactor.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._bound.cancel()
        if self._silence is not None:
            self._silence.cancel()
        self._drop_child()
        self._done(self._table())

    def abandon(self, *, lost: bool = False) -> None:
        """The worker is gone: answer with what there is, or that the namespace is lost with it."""
        if lost and not self._over:
            self._done = lambda _table: self._lost()
        self._finish()

    def _add_rows(self, rows: list[list[Any]]) -> None:
        for row in rows:
            self._room -= len(json.dumps(row)) + 2
            if is_row(row) and self._room > 0:
                self._names.append(row)

    def _table(self) -> dict[str, Any]:
        described = [
            (bool(row[3]), [row[0], row[1], self._sizes.get(position, row[2])])
            for position, row in enumerate(self._names)
        ]
        notes = []
        if self._count is None:
            notes.append("The namespace could not be described: no process could be started for it, or it ended.")
        elif self._count > len(self._names):
            notes.append(f"{self._count - len(self._names)} more names are not listed.")
        return {
            "variables": [row for module, row in described if not module],
            "imports": [row for module, row in described if module],
            "notes": notes,
        }
