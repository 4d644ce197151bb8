"""The worker: runs the user's code, one cell after another, for the supervisor.

It is forked from the zygote. Between cells it is one thread that waits on one socket, so that it can be forked at any
time. Whatever it says is believed by nobody: user code can write to this socket too.
"""

import faulthandler
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from agent.execution import MAX_TEXT, Interpreter, Report
from agent.inspection import describe
from agent.names import countable, is_module
from agent.processes import LOST_CHANNEL, flush_c_streams, limit_descriptors
from agent.streams import HIGH, Attribution, CellRaw, CellWriter, NoInput
from agent.wire import Decoder, Header, encode

_RESERVED_DESCRIPTORS = 16  # for us, when a cell has used up all that it may
_MAX_NAMES = 1_000  # in one report
_MAX_DETAIL_TEXT = 4_000  # characters of a message or a note
_MAX_NAME = 200


def main(descriptor: int, crash_report: int) -> NoReturn:
    """Serve until the supervisor closes the socket; a fatal signal writes the running lines to `crash_report`."""
    faulthandler.enable(_move_high(crash_report), all_threads=False)
    Worker(socket.socket(fileno=_move_high(descriptor))).serve()


class Worker:
    """One namespace and its streams."""

    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        self._pid = os.getpid()
        self._decoder = Decoder()
        self._descriptors: list[int] = []
        self._attribution = Attribution()
        self._threads_told = 0
        self._nothing = _move_high(os.open("/dev/null", os.O_RDONLY))
        self._output = _move_high(os.open("/dev/null", os.O_WRONLY))
        self._stdin = NoInput()
        self._stdout = CellWriter(CellRaw(self._attribution, 1), "<stdout>")
        self._stderr = CellWriter(CellRaw(self._attribution, 2), "<stderr>")
        sys.stdin = sys.__stdin__ = self._stdin  # type: ignore[assignment,misc]
        sys.stdout = sys.__stdout__ = self._stdout  # type: ignore[assignment,misc]
        sys.stderr = sys.__stderr__ = self._stderr  # type: ignore[assignment,misc]
        sys.argv = [""]
        sys.path[0] = ""  # as at a prompt: modules in the working directory; it was the agent's own folder
        self._interpreter = Interpreter()

    def serve(self) -> NoReturn:
        """Say hello, then do what is asked, for ever."""
        self._send({"type": "ready", "pid": os.getpid()})
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._supervisor, 256 * 1024, 4)
            except OSError:
                os._exit(LOST_CHANNEL)
            self._descriptors += descriptors
            if not data:
                os._exit(0)
            for header, parts in self._decoder.feed(data):
                if header["type"] == "run":
                    self._run(header, parts[0].decode("utf-8", "surrogatepass"))
                elif header["type"] == "inspect":
                    self._inspect(header)

    def _run(self, header: Header, code: str) -> None:
        if header["pipe"]:
            pipe, self._output = self._output, _move_high(self._descriptors.pop(0))
            os.close(pipe)
        notes = self._connect_streams()
        limit_descriptors(_RESERVED_DESCRIPTORS)
        report = self._interpreter.run(code, header["execution"])
        flush_c_streams()
        if os.getpid() != self._pid:
            _end_forked_copy(report)
        limit_descriptors(0)
        report.notes += notes
        threads = self._attribution.cell_ended()
        if threads:
            more = "" if threads <= self._threads_told else ", whose raw writes may show in later cells"
            report.notes.append(f"background_threads: {threads} still running{more}.")
        self._threads_told = threads
        self._answer(header["execution"], report)

    def _connect_streams(self) -> list[str]:
        # Whatever the cell before has done to these descriptors.
        for source, target in ((self._nothing, 0), (self._output, 1), (self._output, 2)):
            os.dup2(source, target)
        if (sys.stdin, sys.stdout, sys.stderr) == (self._stdin, self._stdout, self._stderr):
            return []
        sys.stdin, sys.stdout, sys.stderr = self._stdin, self._stdout, self._stderr
        return ["sys.stdin, sys.stdout or sys.stderr was left replaced by an earlier cell and has been put back."]

    def _answer(self, execution: int, report: Report) -> None:
        namespace = self._interpreter.namespace
        variables = sum(
            1
            for name, value in namespace.copy().items()
            if type(name) is str and countable(name) and not is_module(value)
        )
        error = report.error and {"type": report.error[0][:_MAX_NAME], "message": report.error[1][:_MAX_DETAIL_TEXT]}
        detail = {
            "error": error,
            "bound": _capped_names(report.bound),
            "removed": _capped_names(report.removed),
            "displays": [display.mime for display in report.displays],
            "value": report.value is not None,
            "notes": [note[:_MAX_DETAIL_TEXT] for note in report.notes],
        }
        parts = [json.dumps(detail).encode(), _capped(report.value or ""), _capped(report.traceback)]
        parts += [display.data for display in report.displays]
        self._send({"type": "done", "execution": execution, "status": report.status, "variables": variables}, parts)

    def _inspect(self, header: Header) -> None:
        pipe = self._descriptors.pop(0)
        # Twice, so that the child is PID 1's to reap, and no wait() of a user's thread sees it.
        intermediate = os.fork()
        if intermediate == 0:
            child = os.fork()
            if child:
                self._send({"type": "inspecting", "pid": child})
                os._exit(0)
            self._describe(header, pipe)
        os.close(pipe)
        os.waitpid(intermediate, 0)

    def _describe(self, header: Header, pipe: int) -> NoReturn:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for target in (0, 1, 2):
                os.dup2(null, target)
            self._supervisor.close()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            describe(self._interpreter.namespace, header["skip"], pipe)
        finally:
            os._exit(0)

    def _send(self, header: Header, parts: Sequence[bytes] = ()) -> None:
        try:
            self._supervisor.sendall(encode(header, parts))
        except OSError:
            os._exit(LOST_CHANNEL)


def _move_high(fd: int) -> int:
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)
    os.close(fd)
    return int(high)


def _end_forked_copy(report: Report) -> NoReturn:
    # A cell called os.fork(), and this is the child at the cell's end.
    if report.traceback:
        sys.stderr.write(report.traceback)
    os._exit(report.exit_code if report.status == "ok" else 1)


def _capped_names(names: list[str]) -> list[str]:
    return [name[:_MAX_NAME] for name in names[:_MAX_NAMES]]


def _capped(text: str) -> bytes:
    """At most MAX_TEXT bytes, from the beginning and the end, with a line that says what was left out."""
    if len(text) <= MAX_TEXT // 4:
        return text.encode("utf-8", "backslashreplace")
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_TEXT:
        return data
    head, tail = data[: MAX_TEXT * 3 // 4], data[-MAX_TEXT // 5 :]
    left_out = len(data) - len(head) - len(tail)
    return head + f"\n… {left_out:,} of {len(data):,} bytes left out …\n".encode() + tail
