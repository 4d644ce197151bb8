"""`orchestrator mcp`: copy standard input and output to the owner's socket and back.

Every desktop client starts one of these for itself and waits for it, so nothing heavy is imported: what is needed to
start an owner lies in `relay_start.py` and is loaded only where nobody owns the data directory. Standard output
carries nothing but the protocol.
"""

import os
import signal
import socket
import sys
import threading

from orchestrator import places
from orchestrator.faces.relay_greeting import RelayError, greet

FLUSH_SECONDS = 1.0  # for answers that were on their way when standard input ended

_CHUNK = 64 * 1024
_EXIT_FAILED = 1
_EXIT_USAGE = 2
_USAGE = """Usage: orchestrator mcp [--data-dir DIRECTORY]

Speak MCP over standard input and output, for an MCP client that starts its servers itself.
The sessions live in one owner process per data directory, which is started where none runs;
several clients share it.

  --data-dir DIRECTORY  where sessions are kept [default: $ORCHESTRATOR_DATA_DIR, or the user's data directory]
"""


def main() -> None:
    """Relay until either side ends. Exit code 0 at the end of input, 128 + n at signal n, 1 at a failure."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave_at_signal)
    try:
        data_dir = _arguments(sys.argv[2:])
        _check_standard_descriptors()
        link = _connect(data_dir)
    except RelayError as failure:
        _leave(_EXIT_FAILED, str(failure))
    except places.PlaceError as failure:
        _leave(_EXIT_FAILED, f"{failure.message} {failure.hint}")
    except OSError as failure:
        _leave(_EXIT_FAILED, f"The relay cannot start: {failure.strerror}.")
    else:
        relay(link)


def relay(link: socket.socket) -> None:
    """Copy both ways until one of them ends, then leave the process."""
    ended = threading.Event()
    answers = threading.Thread(target=_copy_answers, args=(link, ended), daemon=True)
    answers.start()
    try:
        while data := os.read(0, _CHUNK):
            link.sendall(data)
    except OSError:
        pass  # a closed input, or an owner that has gone: the other loop says which
    # The end of input is the end of the session: the owner interrupts its calls, and answers already written still
    # get out.
    ended.set()
    try:  # noqa: SIM105 - contextlib costs the relay a millisecond
        link.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    answers.join(FLUSH_SECONDS)
    os._exit(0)


def _check_standard_descriptors() -> None:
    """Before anything is opened: no socket may land on a standard descriptor that the client closed."""
    try:
        os.fstat(0)
        os.fstat(1)
    except OSError as failure:
        raise RelayError("Standard input and output must be open: they carry the protocol.") from failure
    try:
        os.fstat(2)
    except OSError:
        os.open(os.devnull, os.O_WRONLY)


def _connect(data_dir: str) -> socket.socket:
    runtime_dir = places.runtime_directory()
    places.private_directory(runtime_dir)
    path = places.socket_path(runtime_dir, data_dir)
    link = greet(path)
    if link is None:
        from orchestrator.faces.relay_start import connect_or_start  # noqa: PLC0415 - only where nobody listens

        link = connect_or_start(data_dir, path)
    return link


def _copy_answers(link: socket.socket, ended: threading.Event) -> None:
    try:
        while data := link.recv(_CHUNK):
            _write_all(data)
    except ConnectionError:
        pass
    except OSError:
        os._exit(0)  # the client no longer listens
    if not ended.is_set():
        _leave(_EXIT_FAILED, "The connection to the owner process was closed; start the server again.")


def _write_all(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BrokenPipeError:
            os._exit(0)  # the client has gone


def _arguments(arguments: list[str]) -> str:
    data_dir = places.data_directory()
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if option in ("-h", "--help"):
            sys.stderr.write(_USAGE)
            os._exit(0)
        if name != "--data-dir" or not (equals or rest):
            _leave(_EXIT_USAGE, f"unknown or incomplete option {option!r}\n\n{_USAGE}")
        data_dir = places.normal(value if equals else rest.pop(0))
    return data_dir


def _leave_at_signal(number: int, _frame: object) -> None:
    os._exit(128 + number)  # the other thread may be blocked in a read, which an orderly exit would wait for


def _leave(code: int, message: str) -> None:
    sys.stderr.write(f"orchestrator mcp: {message}\n")
    sys.stderr.flush()
    os._exit(code)
