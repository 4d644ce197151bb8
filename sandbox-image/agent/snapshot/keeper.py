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
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent.snapshot.pieces import Emit
from agent.snapshot.saving import Order, Saved, save

_SILENCE = 10.0  # seconds that one variable may be silent
_STORING_SILENCE = 60.0  # seconds without a piece that the host takes
_MOST_CHILDREN = 16
_OOM_SCORE = "1000"
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
    silence: float = _SILENCE,
    storing_silence: float = _STORING_SILENCE,
) -> dict[str, str]:
    """Save in children; `emit` and `finish` run in the last of them. The labels that were refused on the way, and why.

    `storing_silence` is for a piece that nobody takes; give it where somebody else sees to that.

    To be called in a process of its own, which ends afterwards by `os._exit`; see `settle`. Raises SaveFailedError.
    """
    refused = dict(order.refused)
    for _ in range(_MOST_CHILDREN):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _save_and_exit(namespace, replace(order, refused=refused), emit, finish, writing)
        os.close(writing)
        label, why = _watch(pid, reading, silence, max(silence, storing_silence))
        os.close(reading)
        if why is None:
            return refused
        if label is None:
            raise SaveFailedError(why)
        if label in refused:
            raise SaveFailedError(f"{label} was to be left out, and {why}")
        refused[label] = why
    raise SaveFailedError(f"{_MOST_CHILDREN} processes were lost to values that hang or crash")


def settle() -> None:
    """What a forked copy of the worker does first: it must neither be heard, nor collected, nor outlive memory."""
    gc.disable()
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(_OOM_SCORE)
    except OSError:
        pass  # a kernel that refuses still kills something
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
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"pickling it ended the process by {name}"
    return f"pickling it ended the process with exit code {os.waitstatus_to_exitcode(status)}"
