"""One save in the supervisor's hands: its order, its processes, its bounds, and what it has said so far."""

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from agent import piece_records as records
from agent import refused_rows
from agent.reactor import Reactor, Timer
from agent.save_pipe import SavePipe
from agent.savepoint_copy import MAX_PID
from agent.wire import MAX_BODY, Header
from agent.workers import Workers

_SILENCE = 90.0  # seconds without a record while the host has room
_START_BOUND = 20.0  # seconds to the word that there is a process
_MAX_CPU = 1e9  # seconds
_LAST_WORDS = 0.2  # seconds
_MAX_REHEARSALS = 200
_DIGEST_SIZE = 16  # bytes
_COUNTS = ("snapshot", "incarnation", "execution", "seed", "variable_limit", "session_limit")


def is_save(header: Header) -> bool:
    """Whether a `save` request has all that it needs."""
    counts = [header.get(name) for name in _COUNTS]
    head = header.get("head")
    return (
        all(type(count) is int and 0 <= count < 2**64 for count in counts)
        and (head is None or type(head) is int)
        and isinstance(header.get("environment"), str)
        and all(isinstance(header.get(name), bool) for name in ("compress", "final"))
        and all(isinstance(header.get(name), int | float) for name in ("hold", "bound"))
    )


class Save:
    """Its processes run from `start` to `end`; what they say comes through `took`, or `broke` where they end early."""

    def __init__(
        self,
        reactor: Reactor,
        workers: Workers,
        order: Header,
        *,
        send: Callable[[memoryview], None],
        took: Callable[[bytes], None],
        broke: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._took, self._broke = took, broke
        self.order = order
        self.request: int = order["id"]
        self.pipe = SavePipe(reactor, self.request, send, self._record, broke)
        # Only ever sent to: descriptors that user code passes over it are refused by the kernel.
        self._connection, self._its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.setblocking(False)
        self._connection.shutdown(socket.SHUT_RD)
        self.started = False
        self.keeper: int | None = None
        self.frozen = False  # the moment is past: the worker may go on
        self.files = False
        self.said: dict[bytes, bytes] = {}
        self._rehearsals: set[int] = set()
        self._rehearsed = 0
        self._spare = True  # there is memory for rehearsals
        self._timers: list[Timer] = []

    def start(self, known: bytes, rehearsed: bytes, refused: list[list[Any]]) -> None:
        """Have the worker fork what saves. Raises ValueError where the order does not fit into a frame."""
        self.started = True
        names = ("snapshot", "incarnation", "execution", "environment", "seed", "variable_limit", "session_limit")
        fields = {name: self.order[name] for name in (*names, "compress", "final")}
        frame = {"type": "save", "save": self.request, "ours": sorted(self._workers.ours()), **fields}
        rows = refused_rows.joined(refused)
        known = refused_rows.fitting(known, MAX_BODY - len(rehearsed) - len(rows), _DIGEST_SIZE)
        self._workers.send(frame, [known, rehearsed, rows], [self.pipe.writing, self._its.detach()])
        self.after(_START_BOUND, self._look_for_process)
        self.after(float(self.order["bound"]), lambda: self._broke("it took too long"))
        self._watch_silence()

    def _look_for_process(self) -> None:
        if self.keeper is None and not self.frozen:
            self._broke("no process that saves has begun")

    def begun(self, pid: object) -> bool:
        """The worker says which process saves; whether that is believed."""
        if self.keeper is None and isinstance(pid, int) and 1 < pid < MAX_PID and pid not in self._workers.ours():
            self.keeper = pid
            self._workers.expend(pid)
            return True
        if self.keeper is None:
            self._broke("no process could be started for it")
        return False

    def tell(self, word: bytes) -> None:
        """A word to what saves."""
        try:
            self._connection.send(word)
        except OSError:
            pass  # it has ended, or does not read: then it gets nowhere either

    def give_up_files(self) -> None:
        """Something waits: pieces of files are of no use any more."""
        self.tell(records.GIVE_UP)
        self.pipe.discarding = True
        self.pipe.resume()

    def rehearsing(self, pid: int) -> None:
        """The zygote has forked a rehearsal."""
        self._rehearsals.add(pid)

    def ended(self, pid: int, status: int) -> None:
        """A process was reaped."""
        self._rehearsals.discard(pid)
        if pid == self.keeper:
            self.keeper = None
            how = "its process was killed" if os.WIFSIGNALED(status) else "its process has ended"
            self._await_last_words(how)

    def _await_last_words(self, how: str) -> None:
        """What it has said may still lie in the pipe, which others may hold open without end."""
        progress = self.pipe.progress

        def look() -> None:
            if progress == self.pipe.progress and not self.pipe.waiting_for_host:
                self._broke(how)
            else:
                self._await_last_words(how)

        self.after(_LAST_WORDS, look)

    def end(self) -> None:
        """Nothing of it goes on. Idempotent."""
        for timer in self._timers:
            timer.cancel()
        self.pipe.close()
        self._connection.close()
        self._its.close()
        if not self.started:
            os.close(self.pipe.writing)
        if self.keeper is not None:
            _kill(self.keeper)
        self._end_rehearsals()

    def _record(self, kind: bytes, flag: int, data: bytes) -> None:
        if kind == records.REHEARSE:
            self._rehearse()
        elif kind == records.FROZEN and not self.frozen:
            self.frozen, self.files = True, bool(flag)
            self.pipe.discarding = False
            self._took(kind)
        elif kind == records.REFUSED:
            self.said[kind] = data
        elif kind == records.FAILED:
            self._broke(data.decode("utf-8", "replace")[:1000])
        elif kind == records.FROZEN or not self.frozen:
            self._broke("what saves broke the rules")
        else:
            self.said[kind] = data
            self._took(kind)

    def _rehearse(self) -> None:
        # The one before is done with, or hangs.
        self._end_rehearsals()
        self._rehearsed += 1
        if not self._spare:
            self.tell(records.NO_REHEARSAL)
            return
        if self._rehearsed > _MAX_REHEARSALS:
            self._broke("it asked for too many rehearsals")
            return
        ours, its = socket.socketpair()
        with ours, its:
            try:
                self._workers.rehearse(its.fileno())
                socket.send_fds(self._connection, [records.REHEARSAL], [ours.fileno()])
            except OSError:
                self.tell(records.NO_REHEARSAL)

    def give_up_rehearsals(self) -> bool:
        """Memory is short: what was not tried yet is saved without. Whether one was going on."""
        going_on = bool(self._rehearsals)
        if going_on:
            self._spare = False
            self.tell(records.NO_REHEARSAL)  # before its end: that is no fault of what it tried
            self._end_rehearsals()
        return going_on

    def _end_rehearsals(self) -> None:
        for pid in self._rehearsals:
            _kill(pid)
        self._rehearsals.clear()

    def _watch_silence(self) -> None:
        progress = self.pipe.progress

        def look() -> None:
            if progress == self.pipe.progress and not self.pipe.waiting_for_host:
                self._broke("it has been silent for too long")
            else:
                self._watch_silence()

        self.after(_SILENCE, look)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """As the reactor's, unless this save ends before."""
        self._timers = [timer for timer in self._timers if timer.live]
        self._timers.append(self._reactor.after(seconds, act))


def report_of(said: dict[bytes, bytes]) -> tuple[float, list[list[str]]]:
    """Processor seconds and remarks of what was said. Raises ValueError and its kin."""
    done = json.loads(said[records.DONE])
    cpu = float(done["cpu"])
    remarks = [[str(name), str(text)] for name, text in json.loads(said.get(records.REMARKS, b"[]"))]
    if not 0 <= cpu < _MAX_CPU:
        raise ValueError("a time that is none")
    return cpu, remarks


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
