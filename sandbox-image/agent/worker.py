"""The worker: runs the user's code, one cell after another, for the supervisor.

It is forked from the zygote. Between cells it is one thread that waits on one socket, so that it can be forked at any
time. It answers through a pipe: over a socket, user code could pass descriptors whose closing would hold the supervisor
up. Whatever it says is believed by nobody: user code can write to that pipe too.
"""

import faulthandler
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from agent import plain_json, pristine, worker_restores, worker_savepoints, worker_saves
from agent.before_fork import open_mp
from agent.crash_report import LINES_SIGNAL
from agent.execution import Interpreter, Report
from agent.inspection import describe
from agent.names import countable, is_module
from agent.processes import LOST_CHANNEL, flush_c_streams
from agent.reports import described
from agent.snapshot import process_patches, process_state
from agent.streams import HIGH, Attribution, CellRaw, CellWriter, NoInput
from agent.wire import Decoder, Frame, Header, encode

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_RESERVED_DESCRIPTORS = 16  # for us, when a cell has used up all that it may
_READ_SIZE = 256 * 1024
_CONTROL_SIZE = pristine.CMSG_LEN(4 * 4)  # of four descriptors


def main(supervisor: int, answers: int, crash_report: int) -> NoReturn:
    """Serve until the supervisor closes the socket; lines that run at a fatal signal go to `crash_report`."""
    report = _move_high(crash_report)
    faulthandler.enable(report, all_threads=False)
    faulthandler.register(LINES_SIGNAL, report, all_threads=False)  # in C: also in the middle of a library's code
    Worker(socket.socket(fileno=_move_high(supervisor)), _move_high(answers)).serve()


class Worker:
    """One namespace and its streams."""

    def __init__(self, supervisor: socket.socket, answers: int) -> None:
        self._supervisor = supervisor
        self._receive_message = supervisor.recvmsg
        self._answers = answers
        self._pid = pristine.getpid()
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()
        self._descriptors: list[int] = []
        self._attribution = Attribution()
        self._threads_told = 0
        self._forked: worker_savepoints.Forked | None = None  # this is a copy, and stands by
        self._nothing = _move_high(pristine.open_descriptor("/dev/null", pristine.O_RDONLY))
        self._output = _move_high(pristine.open_descriptor("/dev/null", pristine.O_WRONLY))
        self._streams = (
            NoInput(),
            CellWriter(CellRaw(self._attribution, 1), "<stdout>"),
            CellWriter(CellRaw(self._attribution, 2), "<stderr>"),
        )
        sys.stdin, sys.stdout, sys.stderr = self._streams
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[assignment,misc]
        clean_path()
        process_state.mark()
        self._interpreter = Interpreter(self._asked_to_stop)

    def serve(self) -> NoReturn:
        """Say hello, then do what is asked, for ever."""
        self._send({"type": "ready", "pid": self._pid})
        while True:
            while not self._frames:
                self._receive(0)
            header, parts = self._frames.popleft()
            if header["type"] == "run":
                self._run(header, parts[0].decode("utf-8", "surrogatepass"))
            elif header["type"] == "inspect":
                self._inspect(header)
            elif header["type"] == "save":
                pipe, connection = self._descriptors.pop(0), self._descriptors.pop(0)
                worker_saves.begin(self._interpreter.namespace, header, parts, (pipe, connection), self._send)
            elif header["type"] == "restore":
                self._restore(header, parts[0])
            elif header["type"] == "savepoint":
                self._savepoint(header, self._descriptors.pop(0), self._descriptors.pop(0))
            elif header["type"] == "resume" and self._forked is not None:
                forked, self._forked = self._forked, None
                self._resume(forked)

    def _receive(self, flags: int) -> None:
        # Not by socket.recv_fds: it ignores the flags that it is given (CPython's issue 107898), and would wait here.
        try:
            data, controls, _, _ = self._receive_message(_READ_SIZE, _CONTROL_SIZE, flags)
        except BlockingIOError:
            return
        except OSError:
            pristine.leave(LOST_CHANNEL)
        if not data:
            pristine.leave(LOST_CHANNEL)
        for level, kind, passed in controls:
            if (level, kind) == (pristine.SOL_SOCKET, pristine.SCM_RIGHTS):
                self._descriptors += memoryview(passed).cast("i")
        self._frames += self._decoder.feed(data)

    def _asked_to_stop(self, execution: int) -> bool:
        """Whether the signal that came before the cell was meant for it, and not for the one before."""
        self._receive(pristine.MSG_DONTWAIT)
        return any(header["type"] == "stop" and header["execution"] == execution for header, _ in self._frames)

    def _run(self, header: Header, code: str) -> None:
        execution = header["execution"]
        if header["pipe"]:
            pipe, self._output = self._output, _move_high(self._descriptors.pop(0))
            pristine.close(pipe)
        try:
            notes = self._connect_streams()
            _leave_descriptors(_RESERVED_DESCRIPTORS)
            report = self._interpreter.run(code, execution)
            process_patches.look()
            flush_c_streams()
            if pristine.getpid() != self._pid:
                _end_forked_copy(report, self._streams[2])
            _leave_descriptors(0)
            report.notes += notes
            self._note_threads(report)
            frame = self._described(execution, report)
        except BaseException as error:
            # What cells patch can reach even here; the namespace must not go with it.
            trouble = Report(status="exception", error=("AgentError", f"the cell left {type(error).__name__} behind"))
            frame = self._described(execution, trouble)
        self._send_encoded(frame)

    def _connect_streams(self) -> list[str]:
        # Whatever the cell before has done to these descriptors.
        for source, target in ((self._nothing, 0), (self._output, 1), (self._output, 2)):
            pristine.dup2(source, target)
        present = [vars(sys).get(name) for name in ("stdin", "stdout", "stderr")]
        if all(stream is ours for stream, ours in zip(present, self._streams, strict=True)):
            return []
        sys.stdin, sys.stdout, sys.stderr = self._streams
        return ["sys.stdin, sys.stdout or sys.stderr was left replaced by an earlier cell and has been put back."]

    def _note_threads(self, report: Report) -> None:
        threads = self._attribution.cell_ended()
        if threads:
            more = "" if threads <= self._threads_told else ", whose raw writes may show in later cells"
            report.notes.append(f"background_threads: {threads} still running{more}.")
        self._threads_told = threads

    def _described(self, execution: int, report: Report) -> bytes:
        faults = pristine.getrusage(pristine.RUSAGE_SELF).ru_minflt
        return described(report, {"execution": execution, "variables": self._variables(), "faults": faults})

    def _variables(self) -> int:
        named = [pair for pair in self._interpreter.namespace.copy().items() if type(pair[0]) is str]
        return sum(1 for name, value in named if countable(name) and not is_module(value))

    def _savepoint(self, header: Header, link: int, answers: int) -> None:
        forked = worker_savepoints.fork(header["execution"], lambda **said: self._send({"type": "forked", **said}))
        if forked is not None:
            try:
                self._stand_by(forked, link, answers)
            except BaseException:
                pristine.leave(1)  # a copy that ends as Python does would run the session's own clean-up
        pristine.close(link)
        pristine.close(answers)

    def _resume(self, forked: worker_savepoints.Forked) -> None:
        try:
            said = worker_savepoints.resume(forked, self._interpreter.forget_loop())
        except BaseException:
            pristine.leave(1)
        self._send({"type": "resumed", **said})

    def _stand_by(self, forked: worker_savepoints.Forked, link: int, answers: int) -> None:
        """This is the copy: nothing of it reaches what is the worker's. Where the supervisor lets go of it, it ends."""
        for ours, theirs in ((link, self._supervisor.fileno()), (answers, self._answers)):
            pristine.dup2(ours, theirs, inheritable=False)
        for fd in (*self._descriptors, *self._attribution.forked()):
            pristine.close(fd)
        for fd in (0, 1, 2):
            pristine.dup2(self._nothing, fd)
        pristine.dup2(self._nothing, self._output, inheritable=False)
        self._decoder = Decoder()
        self._frames.clear()
        self._descriptors.clear()
        self._threads_told = 0
        self._pid = pristine.getpid()
        self._forked = forked
        forked.settle()
        self._send({"type": "parked", "pid": self._pid})

    def _inspect(self, header: Header) -> None:
        pipe = self._descriptors.pop(0)
        open_mp.pause()
        try:
            # Twice, so that the child is PID 1's to reap, and no wait() of a user's thread sees it.
            intermediate = pristine.fork()
            if intermediate == 0:
                self._inspect_in_child(header, pipe)
            pristine.waitpid(intermediate, 0)
        except Exception:  # noqa: S110 - no process may be started, or somebody has waited for it: the closed pipe says it
            pass
        pristine.close(pipe)

    def _inspect_in_child(self, header: Header, pipe: int) -> NoReturn:
        try:
            child = pristine.fork()
            if child:
                self._send({"type": "inspecting", "pid": child})
            else:
                null = pristine.open_descriptor("/dev/null", pristine.O_RDWR)
                for target in (0, 1, 2):
                    pristine.dup2(null, target)
                self._supervisor.close()
                pristine.close(self._answers)  # an object that writes to whatever is open does not spoil it
                describe(self._interpreter.namespace, header["skip"], pipe)
        finally:
            pristine.leave(0)

    def _restore(self, header: Header, body: bytes) -> None:
        pipe = self._descriptors.pop(0)
        for target in (0, 1, 2):
            pristine.dup2(self._nothing, target)
        namespace = self._interpreter.namespace
        answer, lists = self._interpreter.settled(
            lambda: worker_restores.run(namespace, header, body, pipe, self._send)
        )
        pristine.close(pipe)
        answer.update(type="restored", restore=header["restore"], variables=self._variables())
        self._send(answer, [plain_json.write(lists)])

    def _send(self, header: Header, parts: Sequence[bytes] = ()) -> None:
        self._send_encoded(encode(header, parts))

    def _send_encoded(self, frame: bytes) -> None:
        remaining = memoryview(frame)
        try:
            while remaining:
                remaining = remaining[pristine.write(self._answers, remaining) :]
        except OSError:
            pristine.leave(LOST_CHANNEL)


def clean_path() -> None:
    """As at a prompt: modules in the working directory, where the agent's own folder was."""
    sys.argv = [""]
    sys.path[0] = ""


def _move_high(fd: int) -> int:
    high = pristine.fcntl(fd, pristine.F_DUPFD_CLOEXEC, HIGH)
    pristine.close(fd)
    return int(high)


def _leave_descriptors(reserved: int) -> None:
    """Let cells use all descriptors but so many."""
    _, hard = pristine.getrlimit(pristine.RLIMIT_NOFILE)  # which a cell may have lowered
    pristine.setrlimit(pristine.RLIMIT_NOFILE, (max(hard - reserved, 0), hard))


def _end_forked_copy(report: Report, stderr: CellWriter) -> NoReturn:
    # A cell called os.fork(), and this is the child at the cell's end.
    if report.traceback:
        stderr.write(report.traceback)
    pristine.leave(report.exit_code if report.status == "ok" else 1)
