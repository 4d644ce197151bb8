"""PID 1 of a sandbox: owns the channel, answers the host's requests, and keeps its children in order.

One thread, no user code, and little imported. The worker can neither signal, trace nor read this process; what the
worker says is passed on with the supervisor's own verdict beside it.
"""

import json
import os
import signal
import socket
from typing import Any

from agent import landlock
from agent.cell import Cell
from agent.channel import Channel
from agent.executions import Executions
from agent.listing import Listing
from agent.processes import reap, set_dumpable
from agent.reactor import Reactor
from agent.restores import Restores, is_restore
from agent.save import is_save
from agent.save_memory import SaveMemory
from agent.saves import Saves
from agent.wire import Header
from agent.workers import Workers

_OCCUPIED = ("occupied", "something else is under way")


class Supervisor:
    """Answers the host's requests."""

    def __init__(self, reactor: Reactor, channel: Channel) -> None:
        self._reactor = reactor
        self._channel = channel
        self._session: str | None = None
        self._incarnation = 0
        self._listing: Listing | None = None
        self._clearing: list[int] = []  # requests that wait for a fresh worker
        self._waits_to_list: int | None = None  # a request that waits for a save to let go of the worker
        _let_go_of_standard_streams()
        set_dumpable(dumpable=False)  # before there is any process that could look
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._watch_children()
        memory = SaveMemory()
        self._workers = Workers(reactor, self)
        self._executions = Executions(reactor, channel, self._workers)
        self._saves = Saves(
            reactor,
            channel,
            self._workers,
            memory=memory,
            released=self._released,
            over=self._executions.forgive_memory,
        )
        self._restores = Restores(reactor, channel, self._workers, self._executions, memory)
        self._workers.begin()

    def progress(self) -> tuple[int, int, int | None]:
        """Incarnation, the last execution that was ordered, and the one that runs."""
        cell = self._executions.cell
        return self._incarnation, self._executions.last, cell.number if cell else None

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

    def asked(self, header: Header, parts: list[bytes]) -> None:
        """Do what the host wants, or say why not."""
        kind, request = header["type"], header.get("id")
        if not isinstance(request, int):
            self._told(kind, header, parts)
        elif kind == "claim":
            self._claim(request, header)
        elif kind == "execute":
            self._execute(request, header, parts)
        elif kind == "list":
            self._list(request)
        elif kind == "clear":
            self._clear(request)
        elif kind == "save":
            self._save(request, header)
        elif kind == "restore":
            self._restore(request, header, parts)
        else:
            self._channel.refuse(request, "unknown", f"no request is called {kind}")

    def _told(self, kind: str, header: Header, parts: list[bytes]) -> None:
        """What needs no answer."""
        if kind == "end":
            os._exit(0)
        elif kind == "interrupt":
            self._executions.interrupt(header.get("execution"))
        elif kind == "taken":
            self._saves.taken(header)
        elif kind == "abandon":
            self._saves.abandon(header)
        elif kind in ("piece", "damaged"):
            self._restores.piece(header, parts)

    def disconnected(self) -> None:
        """Nobody takes or sends pieces any more."""
        self._saves.interrupt("the connection was lost")
        self._restores.interrupt("the connection was lost")

    # requests

    def _claim(self, request: int, header: Header) -> None:
        session, incarnation = header.get("session"), header.get("incarnation")
        if not isinstance(session, str) or not isinstance(incarnation, int) or incarnation < 1:
            self._channel.refuse(request, "malformed", "a claim names session and incarnation")
        elif self._session not in (None, session) or incarnation < self._incarnation:
            self._channel.refuse(request, "stale", "another session or a later incarnation has claimed this sandbox")
        else:
            self._session, self._incarnation = session, incarnation
            self._channel.reply(request, {"ok": True, "landlock": landlock.abi()})

    def _execute(self, request: int, header: Header, parts: list[bytes]) -> None:
        refusal = self._refusal(header, parts)
        if refusal is not None:
            self._channel.refuse(request, *refusal)
            return
        self._saves.needed()
        self._executions.begin(Cell(request, header, parts[0]), held=self._saves.holding)

    def _refusal(self, header: Header, parts: list[bytes]) -> tuple[str, str] | None:
        numbers = [header.get(name) for name in ("execution", "limit", "grace", "head", "tail")]
        if len(parts) != 1 or not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            return "malformed", "an order has a number, limits and one part"
        if self._session is None:
            return "unclaimed", "nobody has claimed this sandbox"
        if self._occupied():
            return _OCCUPIED
        if header["execution"] <= self._executions.last:
            return "repeated", f"execution {header['execution']} was begun before"
        lost = self._executions.untold_loss()
        return None if lost is None else ("lost", lost)

    def _occupied(self) -> bool:
        """Whether something uses the worker; a save does so only for a moment, which is waited for."""
        lists = self._listing is not None or self._waits_to_list is not None
        return self._executions.cell is not None or lists or bool(self._clearing) or self._restores.under_way

    def _save(self, request: int, header: Header) -> None:
        if not is_save(header):
            self._channel.refuse(request, "malformed", "a save names what it saves, limits and bounds")
        elif self._session is None:
            self._channel.refuse(request, "unclaimed", "nobody has claimed this sandbox")
        elif self._occupied() or self._saves.under_way:
            self._channel.refuse(request, *_OCCUPIED)
        elif self._executions.hollow is not None:
            self._channel.refuse(request, "lost", self._executions.hollow)
        else:
            self._saves.needed()
            self._saves.begin(header)

    def _restore(self, request: int, header: Header, parts: list[bytes]) -> None:
        if not is_restore(header, parts):
            self._channel.refuse(request, "malformed", "a restore names what it restores, and has one part")
        elif self._session is None:
            self._channel.refuse(request, "unclaimed", "nobody has claimed this sandbox")
        elif self._occupied() or self._saves.under_way:
            self._channel.refuse(request, *_OCCUPIED)
        elif self._executions.ran:
            self._channel.refuse(request, "occupied", "a cell has run in this worker")
        else:
            self._saves.needed()
            self._restores.begin(header, parts[0])

    def _list(self, request: int) -> None:
        if self._occupied():
            self._channel.refuse(request, *_OCCUPIED)
            return
        if self._executions.hollow is not None:
            self._channel.refuse(request, "lost", self._executions.hollow)
            return
        self._saves.needed()
        if self._saves.holding:
            self._waits_to_list = request
        else:
            self._begin_listing(request)

    def _released(self) -> None:
        """The worker may be used again after a save has begun."""
        request, self._waits_to_list = self._waits_to_list, None
        if request is not None:
            self._list(request)  # which may be refused by now
        if self._workers.ready and not self._clearing:
            self._executions.start()

    def _begin_listing(self, request: int) -> None:
        def ask(skip: int, pipe: int) -> None:
            self._workers.send({"type": "inspect", "skip": skip}, descriptors=[pipe])

        def done(table: dict[str, Any]) -> None:
            self._listing = None
            self._channel.reply(request, {"ok": True}, [json.dumps(table).encode()])

        def lost() -> None:
            self._listing = None
            self._channel.refuse(request, "lost", self._executions.hollow or "the worker has ended")

        self._listing = Listing(self._reactor, ask, done, lost)

    def _clear(self, request: int) -> None:
        self._clearing.append(request)  # first: what is let go of by the following is not begun any more
        self._saves.interrupt("the session was cleared")
        self._restores.interrupt("the session was cleared")
        if self._listing is not None:
            self._listing.abandon()
        self._executions.forget_namespace()

    # the worker

    def worker_ready(self) -> None:
        """A fresh one: what waits for it gets it."""
        for request in self._clearing:
            self._channel.reply(request, {"ok": True})
        self._clearing.clear()
        self._restores.worker_ready()
        self._saves.start()
        self._executions.start()

    def worker_says(self, header: Header, parts: list[bytes]) -> None:
        """Believed by nobody: what does not fit is dropped."""
        kind, cell = header["type"], self._executions.cell
        if kind == "inspecting" and self._listing is not None and isinstance(header.get("pid"), int):
            self._listing.child(header["pid"])
        elif kind == "done" and cell is not None and header.get("execution") == cell.number:
            self._executions.finish(header, parts)
        elif kind == "saving":
            self._saves.worker_says(header)
        elif kind in ("restoring", "restored"):
            self._restores.worker_says(header, parts)

    def worker_replaced(self) -> None:
        """All that it started ends with it."""
        self._saves.interrupt("the worker was ended")

    def worker_died(self, how: str) -> None:
        """Whatever was asked of it is answered without it."""
        how = self._executions.worker_died(how)
        if self._listing is not None:
            self._listing.abandon(lost=self._executions.hollow is not None)
        self._restores.worker_died(how)

    def rehearsing(self, pid: int) -> None:
        """The zygote has begun a rehearsal."""
        self._saves.rehearsing(pid)

    def process_ended(self, pid: int, status: int) -> None:
        """Something else was reaped."""
        self._saves.process_ended(pid, status)


def _let_go_of_standard_streams() -> None:
    # The attach connector has copies of its own.
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
