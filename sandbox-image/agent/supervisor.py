"""PID 1 of a sandbox: owns the channel, has cells run by a worker, and decides what became of them.

One thread, no user code, and little imported. The worker can neither signal, trace nor read this process; what the
worker says is passed on with the supervisor's own verdict beside it.
"""

import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from agent.cell import Cell
from agent.channel import AttachConnector, Channel, UnixConnector
from agent.listing import Listing
from agent.processes import oom_kills, reap, set_dumpable
from agent.reactor import Reactor
from agent.wire import Header
from agent.workers import Workers

_MAX_LEFT_OVER = 16  # pipes of ended cells that something still writes to
_DESCRIBED = 3  # parts of the worker before its displays
_MAX_OUTPUT = 1024 * 1024  # bytes that an order may ask to keep


def main() -> NoReturn:
    """Read what the container was given, then serve until the lease is over or the host says so."""
    environment = dict(os.environ)
    for name in ("SO_SECRET", "SO_SANDBOX", "SO_CHANNEL", "SO_LEASE"):
        os.environ.pop(name, None)
    Supervisor(environment).run()
    raise AssertionError("the reactor never returns")


class Supervisor:
    """Answers the host's requests."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._reactor = Reactor()
        self._sandbox = environment["SO_SANDBOX"]
        self._digest = _own_digest()
        self._session: str | None = None
        self._incarnation = 0
        self._last_execution = 0
        self._cell: Cell | None = None
        self._listing: Listing | None = None
        self._left_over: list[Cell] = []
        self._lost: str | None = None  # why the namespace is gone, until a result has told it
        self._used = False  # whether any cell has run in the present worker
        self._clearing: list[int] = []
        self._oom_kills = oom_kills()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._watch_children()
        self._workers = Workers(self._reactor, self._worker_ready, self._worker_says, self._worker_died)
        secret = environment["SO_SECRET"]
        self._lease = float(environment.get("SO_LEASE", "1800"))
        self._channel = Channel(self._reactor, secret, self._lease, self._identity, self._asked)
        connector = AttachConnector if environment.get("SO_CHANNEL") == "attach" else UnixConnector
        self._connector = connector(self._reactor, self._channel, secret)
        self._reactor.after(0.0, self._prepare)

    def run(self) -> None:
        """For ever."""
        self._reactor.run()

    def _prepare(self) -> None:
        # After the first try to connect: the host waits for the hello, nobody waits for the rest.
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        set_dumpable(dumpable=False)
        self._workers.begin()

    def _watch_children(self) -> None:
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reading, writing)
        self._reactor.watch(reading.fileno(), self._child_ended)

    def _child_ended(self, _events: int) -> None:
        try:
            self._wakeup[0].recv(4096)
        except BlockingIOError:
            return
        self._workers.reaped(reap())

    def _identity(self) -> Header:
        return {
            "sandbox": self._sandbox,
            "agent": self._digest,
            "python": ".".join(map(str, sys.version_info[:3])),
            "incarnation": self._incarnation,
            "last_execution": self._last_execution,
            "running": self._cell.number if self._cell else None,
            "lease": self._lease,
        }

    # requests

    def _asked(self, header: Header, parts: list[bytes]) -> None:
        kind, request = header["type"], header.get("id")
        if kind == "end":
            os._exit(0)
        elif kind == "interrupt":
            self._interrupt(header)
        elif not isinstance(request, int):
            return
        elif kind == "claim":
            self._claim(request, header)
        elif kind == "execute":
            self._execute(request, header, parts)
        elif kind == "list":
            self._list(request)
        elif kind == "clear":
            self._clear(request)
        else:
            self._channel.refuse(request, "unknown", f"no request is called {kind}")

    def _claim(self, request: int, header: Header) -> None:
        session, incarnation = header.get("session"), header.get("incarnation")
        if not isinstance(session, str) or not isinstance(incarnation, int) or incarnation < 1:
            self._channel.refuse(request, "malformed", "a claim names session and incarnation")
        elif self._session not in (None, session) or incarnation < self._incarnation:
            self._channel.refuse(request, "stale", "another session or a later incarnation has claimed this sandbox")
        else:
            self._session, self._incarnation = session, incarnation
            self._channel.reply(request, {"ok": True})

    def _execute(self, request: int, header: Header, parts: list[bytes]) -> None:
        refusal = self._refusal(header, parts)
        if refusal is not None:
            self._channel.refuse(request, *refusal)
            return
        self._last_execution = header["execution"]
        self._cell = Cell(
            request=request,
            number=header["execution"],
            code=parts[0],
            limit=float(header["limit"]),
            grace=float(header["grace"]),
            head=min(header["head"], _MAX_OUTPUT),
            tail=min(header["tail"], _MAX_OUTPUT),
        )
        if self._workers.ready:
            self._start()

    def _refusal(self, header: Header, parts: list[bytes]) -> tuple[str, str] | None:
        numbers = [header.get(name) for name in ("execution", "limit", "grace", "head", "tail")]
        if len(parts) != 1 or not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            return "malformed", "an order has a number, limits and one part"
        if self._session is None:
            return "unclaimed", "nobody has claimed this sandbox"
        if self._cell is not None or self._listing is not None or self._clearing:
            return "occupied", "something else is under way"
        if header["execution"] <= self._last_execution:
            return "repeated", f"execution {header['execution']} was begun before"
        return None

    def _interrupt(self, header: Header) -> None:
        cell = self._cell
        if cell is None or cell.number != header.get("execution") or cell.verdict is not None:
            return
        if cell.started is None:
            cell.verdict = "interrupted"
            self._finish({"status": "interrupted"}, None)
        else:
            self._stop(cell, "interrupted")

    def _list(self, request: int) -> None:
        if self._cell is not None or self._listing is not None or self._clearing:
            self._channel.refuse(request, "occupied", "something else is under way")
            return

        def ask(skip: int, pipe: int) -> None:
            self._workers.send({"type": "inspect", "skip": skip}, descriptor=pipe)

        def done(table: dict[str, Any]) -> None:
            self._listing = None
            self._channel.reply(request, {"ok": True}, [json.dumps(table).encode()])

        self._listing = Listing(self._reactor, ask, done)

    def _clear(self, request: int) -> None:
        if self._listing is not None:
            self._listing.abandon()
        if self._cell is not None:
            self._cell.verdict = "interrupted"
            self._died_in_cell(self._cell, "the session was cleared")
        self._clearing.append(request)
        self._lost = None
        self._fresh_worker()

    # the worker

    def _worker_ready(self) -> None:
        for request in self._clearing:
            self._channel.reply(request, {"ok": True})
        self._clearing.clear()
        if self._cell is not None:
            self._start()

    def _start(self) -> None:
        cell = self._cell
        if cell is None:
            return
        self._oom_kills = oom_kills()
        capture = cell.start()
        self._reactor.watch(capture.fileno(), lambda _events: self._output(cell))
        self._workers.send({"type": "run", "execution": cell.number}, [cell.code], descriptor=capture.writing)
        self._used = True
        cell.timer = self._reactor.after(cell.limit, lambda: self._stop(cell, "timeout"))

    def _stop(self, cell: Cell, verdict: str) -> None:
        """Ask the cell to stop; after the grace, end its process."""
        if cell is not self._cell or cell.verdict is not None:
            return
        cell.verdict = verdict
        if cell.timer is not None:
            cell.timer.cancel()
        self._workers.interrupt()
        cell.timer = self._reactor.after(cell.grace, lambda: self._kill(cell))

    def _kill(self, cell: Cell) -> None:
        if cell is self._cell:
            self._died_in_cell(cell, "it did not react to SIGINT")
            self._fresh_worker()

    def _worker_says(self, header: Header, parts: list[bytes]) -> None:
        kind = header["type"]
        if kind == "inspecting" and self._listing is not None and isinstance(header.get("pid"), int):
            self._listing.child(header["pid"])
        elif kind == "done" and self._cell is not None and header.get("execution") == self._cell.number:
            self._finish(header, parts)

    def _worker_died(self, how: str) -> None:
        if oom_kills() > self._oom_kills:
            how = "the memory limit was reached and its process was killed"
        if self._listing is not None:
            self._listing.abandon()
        if self._cell is not None and self._cell.started is not None:
            self._died_in_cell(self._cell, how)
        elif self._used:
            self._lost = f"between two cells {how}"
        self._fresh_worker()

    def _fresh_worker(self) -> None:
        self._used = False
        for cell in self._left_over:
            self._drop(cell)
        self._left_over.clear()
        self._workers.begin()

    # results

    def _died_in_cell(self, cell: Cell, cause: str) -> None:
        oom = oom_kills() > self._oom_kills
        outcome = cell.verdict or ("oom" if oom else "crashed")
        verdict = {"outcome": outcome, "namespace_kept": False, "cause": cause, "variables": 0}
        self._answer(cell, verdict, [b"", b"", self._workers.crash_traceback()])
        self._drop(cell)

    def _finish(self, header: Header, parts: list[bytes] | None) -> None:
        cell = self._cell
        if cell is None:
            return
        status = header.get("status")
        outcome = status if status in ("ok", "exception", "disk_full") else "exception"
        notes = []
        if status == "interrupted":
            outcome = cell.verdict or "exception"
        elif cell.verdict is not None:
            notes.append(f"the cell was asked to stop ({cell.verdict}) and ended by itself all the same")
        if oom_kills() > self._oom_kills:
            notes.append("the memory limit was reached: a process that the cell had started was killed")
        variables = header.get("variables")
        verdict = {
            "outcome": outcome,
            "namespace_kept": True,
            "cause": None,
            "variables": variables if isinstance(variables, int) else 0,
        }
        self._answer(cell, verdict, parts, notes)
        if cell.capture is not None and not cell.capture.closed:
            self._left_over.append(cell)
            while len(self._left_over) > _MAX_LEFT_OVER:
                self._drop(self._left_over.pop(0))

    def _answer(
        self, cell: Cell, verdict: dict[str, Any], parts: list[bytes] | None, notes: list[str] | None = None
    ) -> None:
        if cell.timer is not None:
            cell.timer.cancel()
        self._cell = None
        cell.drain()
        head, tail, written = cell.output()
        header = {
            "ok": True,
            "execution": cell.number,
            "duration": cell.duration(),
            "output_bytes": written,
            "lost_before": self._lost,
            "notes": [*(notes or []), *(note for old in self._left_over if (note := old.late_note()))],
            **verdict,
        }
        self._lost = None
        # The worker sends detail, value, traceback and displays; output goes in between.
        detail, value, trace, *displays = parts if parts and len(parts) >= _DESCRIBED else (b"", b"", b"")
        try:
            self._channel.reply(cell.request, header, [detail, head, tail, value, trace, *displays])
        except ValueError:
            header["notes"].append("what the cell left to describe was too large to be sent")
            self._channel.reply(cell.request, header, [b"", head, tail, b"", b""])

    def _output(self, cell: Cell) -> None:
        if cell.capture is not None:
            cell.capture.read()
            if cell.capture.ended:
                self._drop(cell)
                if cell in self._left_over:
                    self._left_over.remove(cell)

    def _drop(self, cell: Cell) -> None:
        if cell.capture is not None and not cell.capture.closed:
            self._reactor.forget(cell.capture.fileno())
            cell.capture.close()


def _own_digest() -> str:
    # Written by the image build; absent where the agent runs from a checkout.
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "DIGEST"), encoding="ascii") as file:
            return file.read(128).strip()
    except OSError:
        return ""
