"""Sees a save through: in a child of the worker that is a frozen copy of the session, and in children of that.

The worker forks the *keeper* between two cells and goes on. The keeper never runs user code: it forks a child that
saves, which says through a pipe whose turn it is each time user code may run. A child that hangs, crashes or ends
itself costs the variable that was announced last; the keeper forks another one, from the same frozen moment, which
goes on without that variable. So a snapshot is of one moment, whatever it meets.
"""

import ctypes
import gc
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent import pristine
from agent.cgroup import OomCounter
from agent.snapshot.nodes import is_telling
from agent.snapshot.pieces import Emit
from agent.snapshot.saving import Order, Saved, save

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_SILENCE = 10.0  # seconds that one variable may be silent
_STORING_SILENCE = 60.0  # seconds without a piece that the host takes
_LOST_TIME = 120.0  # seconds that children may take which are lost in the end
_LOSSES_OF_A_TYPE = 3  # then the others of that type are not tried
_MAX_WORDS = 500
_NICENESS = 10
_DIE_WITH_PARENT = 1  # prctl PR_SET_PDEATHSIG
_BEAT_INTERVAL = 0.5  # seconds


class SaveFailedError(Exception):
    """Nothing was saved: the head stays what it was."""


def keep(
    namespace: dict[str, Any],
    order: Order,
    emit: Emit,
    finish: Callable[[Saved], None],
    *,
    lost: Callable[[Mapping[str, str]], None] = lambda _refused: None,
    silence: float = _SILENCE,
    storing_silence: float = _STORING_SILENCE,
) -> dict[str, str]:
    """Save in children; `emit` and `finish` run in the last of them. The labels that the next save had better not try,
    and why; `lost` is told of them each time there is another.

    `storing_silence` is for a piece that nobody takes; give it where somebody else sees to that.

    To be called in a process of its own, which ends afterwards by `os._exit`; see `settle`. Raises SaveFailedError.
    """
    losses = _Losses(namespace, order.refused)
    spent = 0.0
    while spent <= _LOST_TIME:
        began = time.monotonic()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _save_and_exit(namespace, replace(order, refused=losses.refused), emit, finish, writing)
        os.close(writing)
        label, why = _watch(pid, reading, silence, max(silence, storing_silence))
        os.close(reading)
        if why is None:
            return losses.remembered
        if label is None:
            raise SaveFailedError(why)
        if label in losses.refused:
            raise SaveFailedError(f"{label} was to be left out, and {why}"[:_MAX_WORDS])
        losses.add(label, why)
        lost(losses.remembered)
        spent += time.monotonic() - began
    raise SaveFailedError("too much time went to values that hang or crash; the next save goes on without these")


class _Losses:
    """What is left out because it cost a child, and what resembles it too much."""

    def __init__(self, namespace: dict[str, Any], refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)
        self.remembered = dict(refused)  # without what only lacked memory
        self._values = {f"name {name}": value for name, value in namespace.items() if type(name) is str}
        self._counts: dict[type, int] = {}
        self._oom = OomCounter()

    def add(self, label: str, why: str) -> None:
        """One more."""
        if self._oom.new() and why == _killed_by(signal.SIGKILL):
            self.refused[label] = "there was not enough memory to save it"
            return
        self.refused[label] = self.remembered[label] = why
        kind = type(self._values[label]) if label in self._values else None
        if kind is not None and is_telling(kind):
            self._counts[kind] = self._counts.get(kind, 0) + 1
            if self._counts[kind] >= _LOSSES_OF_A_TYPE:
                self._refuse_following(label, kind, why)

    def _refuse_following(self, label: str, kind: type, why: str) -> None:
        labels = list(self._values)
        for other in labels[labels.index(label) + 1 :]:
            if type(self._values[other]) is kind and other not in self.refused:
                text = f"not tried, after {self._counts[kind]} values of its type; of the last one: {why}"
                self.refused[other] = self.remembered[other] = text


def settle() -> None:
    """What a forked copy of the worker does first: it must neither be heard nor collected, and waits for its turn."""
    gc.disable()
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody can be waited for
    os.nice(_NICENESS)


def _save_and_exit(
    namespace: dict[str, Any], order: Order, emit: Emit, finish: Callable[[Saved], None], pipe: int
) -> None:
    code = 70
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        gc.disable()
        reporter = _Reporter(pipe)
        finish(save(namespace, order, emit, reporter.announce, reporter.beat))
        reporter.say(b"done")
        code = 0
    except BaseException as error:
        os.write(pipe, _line(b"failed", f"{type(error).__name__}: {error}"[:300].encode("utf-8", "replace")))
    finally:
        os._exit(code)


class _Reporter:
    """The child's side of the pipe. A line is a word and the hexadecimal digits of a label."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._last = 0.0

    def announce(self, label: str) -> None:
        self.say(b"at", label.encode("utf-8", "surrogatepass"))

    def beat(self) -> None:
        now = time.monotonic()
        if now - self._last > _BEAT_INTERVAL:
            self._last = now
            self.say(b"beat")

    def say(self, word: bytes, text: bytes = b"") -> None:
        os.write(self._pipe, _line(word, text))


def _line(word: bytes, text: bytes) -> bytes:
    return word + b" " + text.hex().encode() + b"\n"


def _watch(pid: int, pipe: int, silence: float, storing_silence: float) -> tuple[str | None, str | None]:
    """Whose turn it was when the child went wrong, and how; None and None where it did not."""
    label: str | None = None
    word = b""
    buffered = b""
    while True:
        if not select.select([pipe], [], [], silence if label else storing_silence)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return label, "timed out"
        data = os.read(pipe, 65_536)
        if not data:
            break
        *lines, buffered = (buffered + data).split(b"\n")
        for one in lines:
            word, _, text = one.partition(b" ")
            if word == b"at":
                label = bytes.fromhex(text.decode()).decode("utf-8", "surrogatepass") or None
            elif word == b"failed":
                label = None
                failure = bytes.fromhex(text.decode()).decode("utf-8", "replace")
    status = os.waitpid(pid, 0)[1]
    if word == b"done":
        return None, None
    if word == b"failed":
        return None, failure
    return label, _how(status)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return _killed_by(os.WTERMSIG(status))
    return f"pickling it ended the process with exit code {os.waitstatus_to_exitcode(status)}"


def _killed_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"pickling it ended the process by {name}"
