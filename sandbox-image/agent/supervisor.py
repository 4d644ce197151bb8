"""PID 1 of a sandbox: owns the channel, answers the host's requests, and keeps its children in order.

One thread, no user code, and little imported. The worker can neither signal, trace nor read this process; what the
worker says is passed on with the supervisor's own verdict beside it.
"""

import os

from agent import landlock
from agent.cell import Cell, is_order
from agent.cgroup import MemoryGauge
from agent.channel import Channel
from agent.executions import Executions
from agent.init import Init, let_go_of_standard_streams
from agent.listings import Listings
from agent.memory_watch import MemoryWatch
from agent.own_faults import OwnFaults
from agent.pool_watch import watch_pools
from agent.processes import set_dumpable
from agent.reactor import Reactor
from agent.restores import Restores, is_restore
from agent.save import is_save
from agent.save_memory import SaveMemory
from agent.savepoint_copy import SavepointCopy, notes_of
from agent.savepoints import Savepoints
from agent.saves import Saves
from agent.standing import Standing
from agent.wire import Header
from agent.workers import Workers

_OCCUPIED = ("occupied", "something else is under way")


class Supervisor:
    """Answers the host's requests."""

    def __init__(self, reactor: Reactor, channel: Channel, threads: int) -> None:
        self._reactor = reactor
        self._channel = channel
        self._session: str | None = None
        self._incarnation = 0
        self._clearing: list[int] = []  # requests that wait for a fresh worker
        self._postponed: list[tuple[Header, list[bytes]]] = []  # until it is known what stands in a worker's place
        let_go_of_standard_streams()
        set_dumpable(dumpable=False)  # before there is any process that could look
        memory, gauge = SaveMemory(), MemoryGauge()
        self._workers = Workers(reactor, self, gauge, threads)
        reactor.failed = OwnFaults(self._workers).met
        self._init = Init(reactor, self._workers.reaped)
        self._savepoints = Savepoints(reactor, self._workers, gauge, free=self._free, released=self._start_cell)
        self._saves = Saves(
            reactor, channel, self._workers, memory=memory, released=self._released, over=self._save_over
        )
        self._memory = MemoryWatch(
            reactor,
            gauge,
            wanted=self._is_busy,
            taken=self._workers.taken,
            reliefs=(self._saves.give_up_rehearsal, self._saves.give_up, self._savepoints.give_up),
            full=self._workers.ask_for_lines,
        )
        self._executions = Executions(
            reactor, channel, self._workers, savepoints=self._savepoints, memory=self._memory, settled=self._replay
        )
        self._restores = Restores(reactor, channel, self._workers, self._executions, memory)
        # One that is taken up again is refused when it is known what was lost.
        self._listings = Listings(
            reactor, channel, self._workers, lost=lambda request: self.asked({"type": "list", "id": request}, [])
        )
        self._locks = watch_pools(reactor, self._workers.kill, self._workers.zygotes)
        self._workers.begin()

    def progress(self) -> tuple[int, int, int | None]:
        """Incarnation, the last execution that was ordered, and the one that runs."""
        cell = self._executions.cell
        return self._incarnation, self._executions.last, cell.number if cell else None

    def asked(self, header: Header, parts: list[bytes]) -> None:
        """Do what the host wants, or say why not."""
        kind, request = header["type"], header.get("id")
        if not isinstance(request, int):
            self._told(kind, header, parts)
        elif kind in ("list", "save", "restore") and self._executions.replacing:
            self._postponed.append((header, parts))
        elif kind == "claim":
            self._claim(request, header)
        elif kind == "execute":
            self._execute(request, header, parts)
        elif kind == "result":
            self._executions.result(request, header.get("execution"))
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
            if self._session is not None:
                self._executions.standing.asked_by_another()
            self._session, self._incarnation = session, incarnation
            self._channel.reply(request, {"ok": True, "landlock": landlock.abi()})

    def _execute(self, request: int, header: Header, parts: list[bytes]) -> None:
        refusal = self._refusal(header, parts)
        if refusal is not None:
            self._channel.refuse(request, *refusal)
        elif not self._refused_as_lost(request, "execute"):
            self._saves.needed()
            self._executions.begin(Cell(request, header, parts[0]))
            self._start_cell()

    def _start_cell(self) -> None:
        """The worker may be free: start what waits for it, if anything does."""
        if self._workers.ready and not (self._saves.holding or self._savepoints.forking or self._clearing):
            self._executions.start()

    def _refusal(self, header: Header, parts: list[bytes]) -> tuple[str, str] | None:
        if not is_order(header, parts):
            return "malformed", "an order has a number, limits and one part"
        if self._session is None:
            return "unclaimed", "nobody has claimed this sandbox"
        if self._occupied():
            return _OCCUPIED
        if header["execution"] <= self._executions.last:
            return "repeated", f"execution {header['execution']} was begun before"
        return None

    def _refused_as_lost(self, request: int, kind: str) -> bool:
        loss = self._executions.standing.loss(kind)
        if loss is not None:
            self._channel.refuse(request, "lost", loss[0], loss[1])
        return loss is not None

    def _occupied(self) -> bool:
        """Whether something uses the worker; a save does so only for a moment, which is waited for."""
        lists, restores = self._listings.under_way, self._restores.under_way
        return self._executions.cell is not None or lists or restores or bool(self._clearing)

    def _free(self) -> Standing | None:
        """What a savepoint would hold, where nothing uses the worker."""
        used = self._occupied() or self._saves.holding or self._workers.held or self._executions.replacing
        return self._executions.standing if self._workers.ready and not used else None

    def _is_busy(self) -> bool:
        """Whether memory may be taken fast."""
        cell = self._executions.cell
        return self._saves.under_way or (cell is not None and cell.started is not None)

    def _save(self, request: int, header: Header) -> None:
        malformed = None if is_save(header) else "a save names what it saves, limits and bounds"
        if not self._refused(request, malformed) and not self._refused_as_lost(request, "save"):
            self._saves.needed()
            self._saves.begin(header)
            self._memory.watch()

    def _refused(self, request: int, malformed: str | None) -> bool:
        """Whether a save or a restore cannot be taken up now, for which it is refused then."""
        if malformed is not None:
            self._channel.refuse(request, "malformed", malformed)
        elif self._session is None:
            self._channel.refuse(request, "unclaimed", "nobody has claimed this sandbox")
        elif self._occupied() or self._saves.under_way:
            self._channel.refuse(request, *_OCCUPIED)
        else:
            return False
        return True

    def _save_over(self) -> None:
        self._executions.forgive_memory()
        self._savepoints.consider()

    def _restore(self, request: int, header: Header, parts: list[bytes]) -> None:
        malformed = None if is_restore(header, parts) else "a restore names what it restores, and has one part"
        if self._refused(request, malformed):
            return
        if self._executions.standing.ran:
            self._channel.refuse(request, "occupied", "a cell has run in this worker")
        else:
            self._saves.needed()
            self._savepoints.drop()  # what it holds is to be replaced
            self._restores.begin(header, parts[0])

    def _list(self, request: int) -> None:
        if self._occupied():
            self._channel.refuse(request, *_OCCUPIED)
        elif not self._refused_as_lost(request, "list"):
            self._saves.needed()
            (self._listings.wait if self._saves.holding else self._listings.begin)(request)

    def _released(self) -> None:
        """The worker may be used again after a save has begun."""
        request = self._listings.waited()
        if request is not None:
            self.asked({"type": "list", "id": request}, [])  # which may be refused by now
        self._start_cell()
        self._savepoints.consider()

    def _replay(self) -> None:
        """It is known what stands in the place of a worker that ended."""
        postponed, self._postponed = self._postponed, []
        for header, parts in postponed:
            self.asked(header, parts)

    def _clear(self, request: int) -> None:
        self._clearing.append(request)  # first: what is let go of by the following is not begun any more
        self._saves.interrupt("the session was cleared")
        self._restores.interrupt("the session was cleared")
        self._listings.abandon()
        self._executions.forget_namespace()

    def worker_ready(self) -> None:
        """A fresh one: what waits for it gets it."""
        self._locks.look_into(self._workers.pid)
        for request in self._clearing:
            self._channel.reply(request, {"ok": True})
        self._clearing.clear()
        self._restores.worker_ready()
        self._saves.start()
        self._start_cell()

    def worker_resumed(self, copy: SavepointCopy, header: Header) -> None:
        """A savepoint has taken over: what waits for a worker gets this one."""
        self._executions.resumed(copy.standing, notes_of(header))
        self._start_cell()
        self._savepoints.consider()

    def worker_unfit(self, why: str) -> None:
        """It could not."""
        self._executions.not_resumed(f"The savepoint could not take over: {why}.")

    def savepoints(self) -> set[int]:
        """The processes that stand by."""
        return self._savepoints.pids()

    def worker_says(self, header: Header, parts: list[bytes]) -> None:
        """Believed by nobody: what does not fit is dropped."""
        kind, cell = header["type"], self._executions.cell
        if kind == "inspecting":
            self._listings.child(header.get("pid"))
        elif kind == "done" and cell is not None and header.get("execution") == cell.number:
            self._executions.finish(header, parts)
            self._savepoints.consider()
        elif kind == "forked":
            self._savepoints.worker_says(header)
        elif kind == "saving":
            self._saves.worker_says(header)
        elif kind in ("restoring", "restored"):
            self._restores.worker_says(header, parts)
            self._savepoints.consider()

    def worker_replaced(self) -> None:
        """All that it started ends with it."""
        self._saves.interrupt("the worker was ended")

    def worker_died(self, how: str) -> None:
        """Whatever was asked of it is answered without it."""
        how = self._executions.worker_died(how)
        self._listings.abandon(lost=True)
        self._restores.worker_died(how)

    def rehearsing(self, pid: int) -> None:
        """The zygote has begun a rehearsal."""
        self._saves.rehearsing(pid)

    def process_ended(self, pid: int, status: int) -> None:
        """Something else was reaped."""
        self._saves.process_ended(pid, status)
        self._savepoints.process_ended(pid)
