"""Saves in the supervisor's hands: begun between two cells, going on beside the next ones, one at a time.

From the order to `frozen` the worker is held: cells and listings wait, at most as long as the order says. With `final`
everything but the supervisor, the zygote and what saves is stopped before the files are read.
"""

import time
from collections.abc import Callable

from agent import piece_records as records
from agent.channel import Channel
from agent.processes import stop_all_but, stopped_all_but
from agent.reactor import Reactor
from agent.refused_rows import rows_in
from agent.save import Save, report_of
from agent.save_memory import SaveMemory
from agent.wire import Header
from agent.workers import Workers

_STOP_BOUND = 2.0  # seconds until everything has stopped
_STOP_LOOK = 0.001  # seconds between two looks
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Saves:
    """`released` is called when what waited for the worker may have it, `over` when a save has ended."""

    def __init__(
        self,
        reactor: Reactor,
        channel: Channel,
        workers: Workers,
        *,
        memory: SaveMemory,
        released: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._channel = channel
        self._workers = workers
        self._memory = memory
        self._released, self._over = released, over
        self._save: Save | None = None
        self._waited = False  # something has waited since the save began
        self._stopped = False  # processes of the session are

    @property
    def under_way(self) -> bool:
        """Whether there is one."""
        return self._save is not None

    @property
    def holding(self) -> bool:
        """Whether the worker is not to be touched yet."""
        return self._save is not None and not self._save.frozen

    def begin(self, header: Header) -> None:
        """Take up a request that nothing speaks against."""
        self._save = Save(
            self._reactor,
            self._workers,
            header,
            send=self._channel.send_encoded,
            took=self._took,
            broke=self._fail,
        )
        self._waited = False
        if self._workers.ready:
            self.start()

    def start(self) -> None:
        """There is a worker: have it fork, if that is still to be done."""
        save = self._save
        if save is not None and not save.started:
            known = self._memory.known(save.order["head"], save.order["seed"])
            try:
                save.start(known, self._memory.rehearsed, self._memory.refused())
            except ValueError:
                self._fail("what is to be said of the session does not fit into one frame")

    def needed(self) -> None:
        """Something wants the worker: nothing stays stopped, and files are read no longer than the order allows."""
        save = self._save
        if save is None or save.frozen:
            self._thaw()
        elif not self._waited:
            self._waited = True
            save.after(float(save.order["hold"]), lambda: self._give_up_files(save))

    def worker_says(self, header: Header) -> None:
        """Which process saves."""
        save, pid = self._save, header.get("pid")
        if save is None or header.get("save") != save.request:
            if isinstance(pid, int):
                self._workers.kill_stranger(pid)  # the save has ended before its process was known
        elif save.begun(pid):
            if save.order["final"]:
                self._stop(save, time.monotonic() + _STOP_BOUND)
            else:
                save.tell(records.GO)

    def rehearsing(self, pid: int) -> None:
        """The zygote has forked a rehearsal."""
        if self._save is not None:
            self._save.rehearsing(pid)
        else:
            self._workers.kill_stranger(pid)

    def process_ended(self, pid: int, status: int) -> None:
        """A process that is neither worker nor zygote was reaped."""
        if self._save is not None:
            self._save.ended(pid, status)

    def taken(self, header: Header) -> None:
        """The host has room."""
        if self._save is not None and header.get("save") == self._save.request:
            self._save.pipe.taken(header.get("count"))

    def abandon(self, header: Header) -> None:
        """The host does not want it any more."""
        if self._save is not None and header.get("save") == self._save.request:
            self.interrupt("it was abandoned")

    def interrupt(self, why: str) -> None:
        """It ends without a result, if there is one."""
        self._refuse("interrupted", why)

    def give_up_rehearsal(self) -> str | None:
        """Memory is short: what is to be told, if there was one."""
        if self._save is None or not self._save.give_up_rehearsals():
            return None
        return "Memory ran short: a snapshot goes on without trying whether its values load."

    def give_up(self) -> str | None:
        """The same for the snapshot itself."""
        if self._save is None:
            return None
        self._fail("memory ran short while a cell ran")
        return "Memory ran short: the snapshot that was being made was given up, so that the cell could go on."

    # what saves, and what it says

    def _give_up_files(self, save: Save) -> None:
        if save is self._save and not save.frozen:
            save.give_up_files()

    def _stop(self, save: Save, deadline: float) -> None:
        """Stop the rest, then let the files be read. A save that is over, or past its moment, stops nothing more."""
        if save is not self._save or save.frozen:
            return
        spared = {*self._workers.zygotes(), save.keeper or 0}
        if not self._stopped:
            self._stopped = True
            self._workers.hold()
            stop_all_but(spared)
        if stopped_all_but(spared):
            save.tell(records.GO)
        elif time.monotonic() > deadline:
            self._fail("the rest of the sandbox could not be stopped")
        else:
            save.after(_STOP_LOOK, lambda: self._stop(save, deadline))

    def _thaw(self) -> None:
        if self._stopped:
            self._stopped = False
            self._workers.go_on()

    def _took(self, kind: bytes) -> None:
        save = self._save
        if save is None:
            return
        if kind == records.FROZEN:
            self._channel.send({"type": "frozen", "save": save.request, "files": save.files})
            self._release()
        elif kind == records.DONE:
            self._finish(save)

    def _release(self) -> None:
        if self._waited:
            self._waited = False
            self._thaw()
            self._released()

    def _finish(self, save: Save) -> None:
        said, order = save.said, save.order
        try:
            cpu, remarks = report_of(said)
            parts = [said[kind] for kind in (records.MANIFEST, records.NAMESPACE_BODY, records.WORKSPACE_BODY)]
            digests = said[records.NAMESPACE_DIGESTS], said[records.WORKSPACE_DIGESTS] if save.files else None
            self._memory.note_refused(rows_in(said[records.REFUSED]))
        except _BROKEN:
            self._fail("what saves broke the rules")
            return
        self._save = None
        save.end()
        self._over()
        report = {"ok": True, "files": save.files, "cpu": cpu, "remarks": remarks[:100]}
        if order["final"]:
            report["since"] = self._workers.cpu.new()
        try:
            self._channel.reply(save.request, report, parts)
        except ValueError:
            self._channel.refuse(save.request, "failed", "what describes the session does not fit into one frame")
            return
        self._memory.saved(order["snapshot"], order["seed"], order["head"], *digests)
        self._memory.note_rehearsed(said.get(records.REHEARSED, b""))

    def _note_refused(self, save: Save) -> None:
        """What a save has lost that came to nothing: the next one goes further."""
        try:
            self._memory.note_refused(rows_in(save.said[records.REFUSED]), tried=False)
        except _BROKEN:
            pass

    def _fail(self, why: str) -> None:
        self._refuse("failed", why)

    def _refuse(self, code: str, why: str) -> None:
        save, self._save = self._save, None
        if save is not None:
            self._note_refused(save)
            save.end()
            self._over()
            self._thaw()
            self._channel.refuse(save.request, code, why)
            self._release()
