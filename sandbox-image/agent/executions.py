"""Cells in the supervisor's hands: started, stopped, and judged. One at a time."""

from collections.abc import Callable, Sequence
from typing import Any

from agent.capture import Capture
from agent.cell import Cell
from agent.cgroup import OomCounter, TaskCounter
from agent.channel import Channel
from agent.ending import Ending, verdict_of
from agent.kept_result import KeptResult
from agent.memory_watch import MemoryWatch
from agent.outputs import Outputs
from agent.reactor import Reactor
from agent.savepoints import Savepoints
from agent.standing import Standing
from agent.telling import Telling
from agent.wire import Header
from agent.workers import Workers

_NUDGE = 0.05  # seconds between reminders to a cell that was asked to stop
_LINES_BOUND = 0.1  # seconds for a cell that is about to be killed to say where it is
_LINES_LOOK = 0.002  # seconds between two looks
_DESCRIBED = 3  # parts of the worker before its displays
_NOTHING_DESCRIBED: Sequence[bytes] = (b"", b"", b"")
_KILLED_FOR_MEMORY = "The memory limit was reached: a process that the cell had started was killed."
_OUT_OF_MEMORY = "the memory limit was reached and its process was killed"


class Executions:
    """Has cells run by the worker and answers for them, whatever became of it.

    `settled` is called when it is known what stands in the place of a worker that has ended.
    """

    def __init__(
        self,
        reactor: Reactor,
        channel: Channel,
        workers: Workers,
        *,
        savepoints: Savepoints,
        memory: MemoryWatch,
        settled: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._channel = channel
        self._workers = workers
        self._savepoints = savepoints
        self._memory = memory
        self._settled = settled
        self._outputs = Outputs(reactor, self._wrote)
        self._telling = Telling(reactor, channel)
        self._oom = OomCounter()
        self._tasks = TaskCounter()
        self._ending: Ending | None = None
        self.standing = Standing()
        self.last = 0  # the highest number that was ever to be run
        self._result = KeptResult(channel)
        self.cell: Cell | None = None

    @property
    def replacing(self) -> bool:
        """Whether it is not known yet what stands in the place of a worker that has ended."""
        return self._ending is not None

    def begin(self, cell: Cell) -> None:
        """Have it run: by `start`, as soon as there is a worker that is free."""
        self.cell = cell
        self.last = cell.number

    def start(self) -> None:
        """The worker is free: start what waits for it, if anything does."""
        cell = self.cell
        if cell is None or cell.started is not None or self.replacing:
            return
        capture, descriptor = self._outputs.next()
        self._memory.begin_cell()
        cell.start(capture)
        run = {"type": "run", "execution": cell.number, "pipe": descriptor is not None}
        self._workers.send(run, [cell.code], [] if descriptor is None else [descriptor])
        self.standing.began(cell.number)
        cell.timer = self._reactor.after(cell.limit, lambda: self._stop(cell, "timeout"))

    def _wrote(self, capture: Capture) -> None:
        if self.cell is not None and self.cell.capture is capture:
            self._telling.wrote(self.cell)

    def interrupt(self, number: object) -> None:
        """Somebody wants that execution to stop; nothing happens unless it runs."""
        cell = self.cell
        if cell is None or cell.number != number or cell.verdict is not None or self._is_ending(cell):
            return
        if cell.started is None:
            cell.verdict = "interrupted"
            self.finish({"status": "interrupted"}, _NOTHING_DESCRIBED)
        else:
            self._stop(cell, "interrupted")

    def result(self, request: int, number: object) -> None:
        """Answer as the order of that number was answered, or will be; it may be another host that asks."""
        self._result.asked(request, number, None if self.cell is None else self.cell.number)

    def forget_namespace(self) -> None:
        """A fresh worker is wanted: what runs ends as interrupted, and no loss is told of."""
        if self._ending is None and self.cell is not None:
            self.cell.verdict = "interrupted"
            self._ending = self._ended(self.cell, "the session was cleared")
        ending, self._ending = self._ending, None
        if ending is not None and ending.cell is not None:
            self._answer_killed(ending, None, [])
        elif self.cell is not None:  # it was held while the worker went
            self.cell.verdict = "interrupted"
            self.finish({"status": "interrupted"}, _NOTHING_DESCRIBED)
        self._fresh_worker(Standing())
        if ending is not None:
            self._settled()

    def forgive_memory(self) -> None:
        """What was killed for memory between two cells was something of ours that saved, and no cell's."""
        if self.cell is None or self.cell.started is None:
            self._oom.new()

    def replace_worker(self) -> None:
        """A fresh one is wanted where nothing is lost by it."""
        self._fresh_worker(Standing(lost=self.standing.hollow))

    def restored(self, variables: int) -> None:
        """The worker has a namespace that cells before it have made."""
        self.standing.restored(variables)
        self._savepoints.changed()

    def finish(self, header: Header, parts: Sequence[bytes]) -> None:
        """The worker says that its cell has ended."""
        cell = self.cell
        if cell is None or self._is_ending(cell):
            return
        cell.end()
        status, variables = header.get("status"), header.get("variables")
        outcome = status if status in ("ok", "exception", "disk_full") else "exception"
        notes = []
        if isinstance(variables, int):
            self.standing.variables = variables
        if status == "interrupted":
            outcome = cell.verdict or "exception"
        elif cell.verdict is not None:
            notes.append(f"The cell was asked to stop ({cell.verdict}) and ended by itself all the same.")
        peak = self._memory.end_cell() if cell.started is not None else 0
        if self._oom.new() and not self._savepoints.was_killed():
            notes.append(_KILLED_FOR_MEMORY)
        if cell.started is not None:
            self._workers.forget_lines()
            self._savepoints.cell_ended(header.get("faults"), cell.duration())
        self._answer(cell, verdict_of(outcome, self.standing.variables, peak), parts, notes)
        self._outputs.ended(cell, alone=self._tasks.read() == self._workers.tasks() + self._savepoints.tasks())

    def worker_died(self, how: str) -> str:
        """The worker is gone, during a cell or between two; how, in a clause."""
        oom = self._oom.new()
        if oom:
            how = _OUT_OF_MEMORY
        cell = self.cell if self.cell is not None and self.cell.started is not None else None
        ending = self._ending = self._ended(cell, how, oom=oom)
        # A copy that it has just forked may have yet to say so: nothing is newer.
        self._savepoints.await_arrival(lambda: self._replace(ending) if self._ending is ending else None)
        return how

    def resumed(self, standing: Standing, notes: list[str]) -> None:
        """A savepoint has taken over from the worker that ended."""
        ending, self._ending = self._ending, None
        if ending is not None:
            told_by_reply = ending.cell is not None or not ending.lost
            cause = ending.cause if ending.cell is not None else f"between two cells {ending.cause}"
            self.standing = standing.taken_over(cause, told=told_by_reply)
            self._tell(ending, standing.execution, notes)
            self._outputs.drop_all()
            self._settled()

    def not_resumed(self, why: str | None) -> None:
        """A fresh worker has to do in the place of the one that ended; why no savepoint does, where there was one."""
        ending, self._ending = self._ending, None
        fresh = Standing()
        if ending is not None and (ending.lost or ending.cell is not None):
            fresh.hollow = ending.cause if ending.cell is not None else f"between two cells {ending.cause}"
            fresh.untold = None if ending.cell is not None else fresh.hollow
        self.standing = fresh  # which the answers speak of
        if ending is not None:
            self._tell(ending, None, [] if why is None else [why])
        self._fresh_worker(fresh, oom=ending is not None and ending.oom)
        self._settled()

    def _ended(self, cell: Cell | None, cause: str, *, oom: bool = False) -> Ending:
        lines, peak = b"", 0
        if cell is not None:
            cell.end()
            if cell.started is not None:
                lines, peak = self._workers.lines(), self._memory.end_cell()
        verdict = (cell.verdict if cell is not None else None) or ("oom" if oom else "crashed")
        return Ending(cell, cause, verdict, self.standing.execution is not None, lines, peak, oom)

    def _replace(self, ending: Ending) -> None:
        self._ending = ending
        copy = self._savepoints.take()
        if copy is None:
            self.not_resumed(None)
        else:
            self._workers.adopt(copy, oom=ending.oom)

    def _tell(self, ending: Ending, resumed: int | None, notes: list[str]) -> None:
        if ending.cell is not None:
            self._answer_killed(ending, resumed, notes)
        elif ending.lost:
            self._take_back()

    def _take_back(self) -> None:
        """What was held while the worker went is not run without the host's knowing."""
        cell = self.cell
        if cell is not None:
            self.cell = None
            self.last = cell.number - 1
            why, resumed = self.standing.loss("execute") or ("", None)
            self._channel.refuse(cell.request, "lost", why, resumed)
            self._result.never()

    def _stop(self, cell: Cell, verdict: str) -> None:
        """Ask the cell to stop; after the grace, end its process."""
        if cell is not self.cell or cell.verdict is not None or self._is_ending(cell):
            return
        cell.verdict = verdict
        if cell.timer is not None:
            cell.timer.cancel()
        self._workers.interrupt(cell.number)
        self._reactor.after(_NUDGE, lambda: self._nudge(cell))
        cell.timer = self._reactor.after(cell.grace, lambda: self._kill(cell))

    def _nudge(self, cell: Cell) -> None:
        # A SIGINT that comes right before a system call blocks is noted and does not end it; the next signal does.
        if cell is self.cell and not self._is_ending(cell):
            self._workers.nudge()
            self._reactor.after(_NUDGE, lambda: self._nudge(cell))

    def _kill(self, cell: Cell) -> None:
        """End its process, after it was asked for its lines."""
        if cell is self.cell and not self._is_ending(cell):
            looks = int(_LINES_BOUND / _LINES_LOOK) if self._workers.ask_for_lines() else 0
            self._await_lines(cell, looks)

    def _await_lines(self, cell: Cell, looks: int) -> None:
        if cell is not self.cell or self._is_ending(cell):
            return  # it has ended after all
        if looks and self._workers.lines_are_waited_for():
            cell.timer = self._reactor.after(_LINES_LOOK, lambda: self._await_lines(cell, looks - 1))
        else:
            self._replace(self._ended(cell, "it did not react to SIGINT"))

    def _is_ending(self, cell: Cell) -> bool:
        return self._ending is not None and self._ending.cell is cell

    def _fresh_worker(self, standing: Standing, *, oom: bool = False) -> None:
        self.standing = standing
        self._savepoints.drop()
        self._outputs.drop_all()
        self._workers.begin(oom=oom)

    def _answer_killed(self, ending: Ending, resumed: int | None, notes: list[str]) -> None:
        cell = ending.cell
        if cell is not None:
            if self._oom.new() and not ending.oom:
                notes = [*notes, _KILLED_FOR_MEMORY]
            verdict = verdict_of(ending.verdict, self.standing.variables, ending.peak)
            verdict.update(namespace_kept=False, cause=ending.cause, resumed=resumed)
            self._answer(cell, verdict, (b"", b"", ending.lines), notes)
            self._outputs.drop(cell.capture)

    def _answer(self, cell: Cell, verdict: dict[str, Any], parts: Sequence[bytes], notes: list[str]) -> None:
        cell.end()
        self.cell = None
        cell.drain()
        head, tail, written = cell.output()
        told = [*notes, *self._memory.notes(), *self._savepoints.notes(), *self._outputs.late_notes()]
        header = {
            "ok": True,
            "execution": cell.number,
            "duration": cell.duration(),
            "cpu": self._workers.cpu.new(),
            "output_bytes": written,
            "notes": told,
            **verdict,
        }
        # The worker sends detail, value, traceback and displays; output goes in between.
        detail, value, trace, *displays = parts if len(parts) >= _DESCRIBED else _NOTHING_DESCRIBED
        try:
            reply = self._channel.reply(cell.request, header, [detail, head, tail, value, trace, *displays])
        except ValueError:
            told.append("What the cell left to describe was too large to be sent.")
            reply = self._channel.reply(cell.request, header, [b"", head, tail, b"", b""])
        self._result.keep(cell.number, reply)
