"""PID 1 of a sandbox: owns the channel, answers the host's requests, and keeps its children in order.

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
from agent.executions import Executions
from agent.listing import Listing
from agent.processes import reap, set_dumpable
from agent.reactor import Reactor
from agent.wire import Header
from agent.workers import Workers

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
        self._listing: Listing | None = None
        self._clearing: list[int] = []  # requests that wait for a fresh worker
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._watch_children()
        self._workers = Workers(self._reactor, self._worker_ready, self._worker_says, self._worker_died)
        secret = environment["SO_SECRET"]
        self._lease = float(environment.get("SO_LEASE", "1800"))
        self._channel = Channel(self._reactor, secret, self._lease, self._identity, self._asked)
        self._executions = Executions(self._reactor, self._channel, self._workers)
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
            "running": self._executions.cell.number if self._executions.cell else None,
            "lease": self._lease,
        }

    # requests

    def _asked(self, header: Header, parts: list[bytes]) -> None:
        kind, request = header["type"], header.get("id")
        if kind == "end":
            os._exit(0)
        elif kind == "interrupt":
            self._executions.interrupt(header.get("execution"))
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
        cell = Cell(
            request=request,
            number=header["execution"],
            code=parts[0],
            limit=float(header["limit"]),
            grace=float(header["grace"]),
            head=min(header["head"], _MAX_OUTPUT),
            tail=min(header["tail"], _MAX_OUTPUT),
        )
        self._executions.begin(cell)

    def _refusal(self, header: Header, parts: list[bytes]) -> tuple[str, str] | None:
        numbers = [header.get(name) for name in ("execution", "limit", "grace", "head", "tail")]
        if len(parts) != 1 or not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            return "malformed", "an order has a number, limits and one part"
        if self._session is None:
            return "unclaimed", "nobody has claimed this sandbox"
        if self._occupied():
            return "occupied", "something else is under way"
        if header["execution"] <= self._last_execution:
            return "repeated", f"execution {header['execution']} was begun before"
        return None

    def _occupied(self) -> bool:
        return self._executions.cell is not None or self._listing is not None or bool(self._clearing)

    def _list(self, request: int) -> None:
        if self._occupied():
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
        self._clearing.append(request)
        self._executions.forget_namespace()

    # the worker

    def _worker_ready(self) -> None:
        for request in self._clearing:
            self._channel.reply(request, {"ok": True})
        self._clearing.clear()
        self._executions.start()

    def _worker_says(self, header: Header, parts: list[bytes]) -> None:
        kind, cell = header["type"], self._executions.cell
        if kind == "inspecting" and self._listing is not None and isinstance(header.get("pid"), int):
            self._listing.child(header["pid"])
        elif kind == "done" and cell is not None and header.get("execution") == cell.number:
            self._executions.finish(header, parts)

    def _worker_died(self, how: str) -> None:
        if self._listing is not None:
            self._listing.abandon()
        self._executions.worker_died(how)


def _own_digest() -> str:
    # Written by the image build; absent where the agent runs from a checkout.
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "DIGEST"), encoding="ascii") as file:
            return file.read(128).strip()
    except OSError:
        return ""
