"""The other end of a rehearsal: a child of the pristine zygote that loads what it is sent, and says how it went.

Not a fork of the session: that inherits what a wake will lack, such as codecs, copyreg entries and patched modules.
Each request is a line of JSON and the bytes that it announces; each answer a line of JSON. Its first line is its
process id, by which the other side sees whether it hangs.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import IO, Any, NoReturn

from agent import plain_json, pristine
from agent.snapshot import process_state
from agent.snapshot.loading import Loader, line, words_for

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_MOST_BYTES = 1 << 40


def serve(connection: socket.socket, leave: Callable[[int], NoReturn]) -> NoReturn:
    """Load groups until the other side closes. The caller has seen to stdio, limits and the process's place."""
    sys.modules["__main__"] = ModuleType("__main__")
    namespace = _Namespace()
    loader = Loader(namespace, rehearses=True)
    connection.sendall(line({"pid": os.getpid()}))
    with connection.makefile("rb") as file:
        while True:
            request = file.readline()
            if not request:
                leave(0)
            fields = plain_json.read(request)
            if not namespace.modules:
                process_state.apply(fields["early"])
            namespace.modules = fields["modules"]
            stream = _exactly(file, fields["size"])
            beside = {kind: [_exactly(file, size) for size in fields[kind]] for kind in ("arrays", "buffers")}
            connection.sendall(line(_load(loader, fields, stream, beside)))


class _Namespace(dict[str, Any]):
    """Globals in which the session's imports are made only when something asks for them: they are dear."""

    modules: Mapping[str, str] = {}

    def __missing__(self, name: str) -> Any:
        if name not in self.modules:
            raise KeyError(name)
        __import__(self.modules[name])
        self[name] = sys.modules[self.modules[name]]
        return self[name]


def _load(loader: Loader, fields: dict[str, Any], stream: bytes, beside: dict[str, list[bytes]]) -> dict[str, Any]:
    def read(kind: str, index: int, target: memoryview) -> None:
        target[:] = beside[kind][index]

    try:
        objects = loader.load(stream, fields["buffers"], read)
    except BaseException as error:
        return {"error": words_for(error)}
    # Values are let go: only code is needed by the groups that follow.
    loader.keep(fields["code"], [], objects, fields["bound"])
    return {"ok": True}


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError("the bytes of a group ended early")
    return data
