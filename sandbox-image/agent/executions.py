"""Cells in the supervisor's hands: started, stopped, and judged. One at a time."""

from collections.abc import Sequence
from typing import Any

from agent.capture import Capture
from agent.cell import Cell
from agent.channel import Channel
from agent.processes import OomCounter, TaskCounter
from agent.reactor import Reactor
from agent.wire import Header
from agent.workers import Workers

_MAX_LEFT_OVER = 16  # pipes of ended cells that something still writes to
_NUDGE = 0.05  # seconds between reminders to a cell that was asked to stop
_DESCRIBED = 3  # parts of the worker before its displays
_REPLACED = "its process was replaced by a fresh one, for an orchestrator that has ended"
_NOTHING_DESCRIBED: Sequence[bytes] = (b"", b"", b"")


class Executions:
    """Has cells run by the worker and answers for them, whatever became of it."""

    def __init__(self, reactor: Reactor, channel: Channel, workers: Workers) -> None:
        self._reactor = reactor
        self._channel = channel
        self._workers = workers
        self._left_over: list[Cell] = []
        self._late: list[str] = []  # what cells wrote after their end, of pipes that nobody holds any more
        self.hollow: str | None = None  # why the present worker lacks the session's namespace, until it is given one
        self._untold = False  # whether no reply has said so
        self.last = 0  # the highest number that was ever to be run
        self.ran = False  # whether any cell has run in the present worker
        self._used = False  # whether its end would lose something
        self._variables = 0
        self._oom = OomCounter()
        self._tasks = TaskCounter()
        self._kept: tuple[int, bytes] | None = None  # the reply to the last cell that has ended, and its number
        self._awaited: list[int] = []  # requests for the reply to the present cell, beside its own
        self._capture: Capture | None = None  # its pipe has no writer but the worker: the next cell may have it
        self.cell: Cell | None = None

    def begin(self, cell: Cell, *, held: bool = False) -> None:
        """Run it as soon as there is a worker, and not before `start` where it is held."""
        self.cell = cell
        self.last = cell.number
        if self._workers.ready and not held:
            self.start()

    def start(self) -> None:
        """A worker is ready: start what waits for it, if anything does."""
        cell = self.cell
        if cell is None or cell.started is not None:
            return
        capture, descriptor = self._capture, None
        if capture is None or capture.closed:
            capture, descriptor = self._new_capture()
        self._capture = None
        cell.start(capture)
        run = {"type": "run", "execution": cell.number, "pipe": descriptor is not None}
        self._workers.send(run, [cell.code], [] if descriptor is None else [descriptor])
        self._used = self.ran = True
        self.hollow = None  # the host knows, and goes on with what there is
        cell.timer = self._reactor.after(cell.limit, lambda: self._stop(cell, "timeout"))

    def interrupt(self, number: object) -> None:
        """Somebody wants that execution to stop; nothing happens unless it runs."""
        cell = self.cell
        if cell is None or cell.number != number or cell.verdict is not None:
            return
        if cell.started is None:
            cell.verdict = "interrupted"
            self.finish({"status": "interrupted"}, _NOTHING_DESCRIBED)
        else:
            self._stop(cell, "interrupted")

    def result(self, request: int, number: object) -> None:
        """Answer as the order of that number was answered, or will be; it may be another host that asks."""
        if self.cell is not None and self.cell.number == number:
            self._awaited.append(request)
        elif self._kept is not None and self._kept[0] == number:
            self._channel.reply_alike(request, self._kept[1])
        else:
            self._channel.refuse(request, "forgotten", "no reply to an execution of that number is kept")

    def tell_again(self) -> None:
        """Another host asks, which cannot know what this worker lacks, whoever was told of it."""
        if not self._used:
            self.hollow = self.hollow or _REPLACED
            self._untold = True

    def forget_namespace(self) -> None:
        """A fresh worker is wanted: what runs ends as interrupted, and no loss is told of."""
        if self.cell is not None:
            self.cell.verdict = "interrupted"
            self._died_in_cell(self.cell, "the session was cleared")
        self._fresh_worker()
        self.hollow, self._untold = None, False

    def untold_loss(self) -> str | None:
        """Why the namespace went between two cells, told once."""
        untold, self._untold = self._untold, False
        return self.hollow if untold else None

    def forgive_memory(self) -> None:
        """What was killed for memory between two cells was something of ours that saved, and no cell's."""
        if self.cell is None or self.cell.started is None:
            self._oom.new()

    def replace_worker(self) -> None:
        """A fresh one is wanted where nothing is lost by it."""
        self._fresh_worker()

    def restored(self, variables: int) -> None:
        """The worker has a namespace that cells before it have made."""
        self._used = True
        self.hollow, self._untold = None, False
        self._variables = variables

    def finish(self, header: Header, parts: Sequence[bytes]) -> None:
        """The worker says that its cell has ended."""
        cell = self.cell
        if cell is None:
            return
        status, variables = header.get("status"), header.get("variables")
        outcome = status if status in ("ok", "exception", "disk_full") else "exception"
        notes = []
        if isinstance(variables, int):
            self._variables = variables
        if status == "interrupted":
            outcome = cell.verdict or "exception"
        elif cell.verdict is not None:
            notes.append(f"The cell was asked to stop ({cell.verdict}) and ended by itself all the same.")
        if self._oom.new():
            notes.append("The memory limit was reached: a process that the cell had started was killed.")
        verdict = {
            "outcome": outcome,
            "namespace_kept": True,
            "cause": None,
            "variables": self._variables,
        }
        self._answer(cell, verdict, parts, notes)
        if cell.capture is None:  # it was never started
            return
        if self._tasks.count() == self._workers.tasks():
            self._capture = cell.capture
        elif not cell.capture.closed:
            self._left_over.append(cell)
            while len(self._left_over) > _MAX_LEFT_OVER:
                self._drop(self._left_over.pop(0).capture)

    def worker_died(self, how: str) -> str:
        """The worker is gone, during a cell or between two; how, in a clause."""
        oom = self._oom.new()
        if oom:
            how = "the memory limit was reached and its process was killed"
        if self.cell is not None and self.cell.started is not None:
            self._died_in_cell(self.cell, how, oom=oom)
        elif self._used:
            self.hollow, self._untold = f"between two cells {how}", True
            self._take_back()
        self._fresh_worker()
        return how

    def _take_back(self) -> None:
        """What was held while the worker went is not run without the host's knowing."""
        cell = self.cell
        if cell is not None:
            self.cell = None
            self.last = cell.number - 1
            self._channel.refuse(cell.request, "lost", self.untold_loss() or "")
            for request in self._awaited:
                self._channel.refuse(request, "forgotten", "it was not run")
            self._awaited.clear()

    def _stop(self, cell: Cell, verdict: str) -> None:
        """Ask the cell to stop; after the grace, end its process."""
        if cell is not self.cell or cell.verdict is not None:
            return
        cell.verdict = verdict
        if cell.timer is not None:
            cell.timer.cancel()
        self._workers.interrupt(cell.number)
        self._reactor.after(_NUDGE, lambda: self._nudge(cell))
        cell.timer = self._reactor.after(cell.grace, lambda: self._kill(cell))

    def _nudge(self, cell: Cell) -> None:
        # A SIGINT that comes right before a system call blocks is noted and does not end it; the next signal does.
        if cell is self.cell:
            self._workers.nudge()
            self._reactor.after(_NUDGE, lambda: self._nudge(cell))

    def _kill(self, cell: Cell) -> None:
        if cell is self.cell:
            self._died_in_cell(cell, "it did not react to SIGINT")
            self._fresh_worker()

    def _fresh_worker(self) -> None:
        self._used = self.ran = False
        self._variables = 0
        for cell in self._left_over:
            self._drop(cell.capture)
        self._left_over.clear()
        self._drop(self._capture)
        self._capture = None
        self._workers.begin()

    def _died_in_cell(self, cell: Cell, cause: str, *, oom: bool = False) -> None:
        outcome = cell.verdict or ("oom" if oom else "crashed")
        verdict = {"outcome": outcome, "namespace_kept": False, "cause": cause, "variables": 0}
        self.hollow = cause
        self._answer(cell, verdict, (b"", b"", self._workers.crash_traceback()), [])
        self._drop(cell.capture)

    def _answer(self, cell: Cell, verdict: dict[str, Any], parts: Sequence[bytes], notes: list[str]) -> None:
        if cell.timer is not None:
            cell.timer.cancel()
        self.cell = None
        cell.drain()
        head, tail, written = cell.output()
        header = {
            "ok": True,
            "execution": cell.number,
            "duration": cell.duration(),
            "output_bytes": written,
            "notes": [*notes, *self._late, *(note for old in self._left_over if (note := old.late_note()))],
            **verdict,
        }
        self._late.clear()
        # The worker sends detail, value, traceback and displays; output goes in between.
        detail, value, trace, *displays = parts if len(parts) >= _DESCRIBED else _NOTHING_DESCRIBED
        try:
            reply = self._channel.reply(cell.request, header, [detail, head, tail, value, trace, *displays])
        except ValueError:
            header["notes"].append("What the cell left to describe was too large to be sent.")
            reply = self._channel.reply(cell.request, header, [b"", head, tail, b"", b""])
        self._kept = cell.number, reply
        for request in self._awaited:
            self._channel.reply_alike(request, reply)
        self._awaited.clear()

    def _new_capture(self) -> tuple[Capture, int]:
        capture = Capture()
        self._reactor.watch(capture.fileno(), lambda _events: self._output(capture))
        return capture, capture.writing

    def _output(self, capture: Capture) -> None:
        capture.read()
        if capture.ended:
            self._drop(capture)
            for cell in [cell for cell in self._left_over if cell.capture is capture]:
                self._left_over.remove(cell)
                note = cell.late_note()
                if note is not None and len(self._late) < _MAX_LEFT_OVER:
                    self._late.append(note)

    def _drop(self, capture: Capture | None) -> None:
        if capture is not None and not capture.closed:
            self._reactor.forget(capture.fileno())
            capture.close()
