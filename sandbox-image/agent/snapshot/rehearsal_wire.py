"""What a save says to a rehearsal, and how it learns what that is doing."""

import os
import socket
from typing import Any

from agent import plain_json, pristine
from agent.snapshot.dump import Dump
from agent.snapshot.groups import Grouping
from agent.snapshot.loading import line
from agent.snapshot.nodes import Group

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_MOST_ANSWER = 65_536  # bytes


def request_of(grouping: Grouping, group: Group, dump: Dump) -> dict[str, Any]:
    """What goes before a group's bytes."""
    named = {id(node.root): node.slot for node in group.code}
    names = grouping.order if named else ()  # there may be thousands of groups without code
    bound = {name: named[id(value)] for name, value in names if type(name) is str and id(value) in named}
    return {
        "code": [node.slot for node in group.code],
        "bound": bound,
        "modules": grouping.modules,
        "size": dump.size,
        "arrays": [part.nbytes for part in dump.arrays],
        "buffers": [part.nbytes for part in dump.buffers],
    }


def send(connection: socket.socket, request: dict[str, Any], dump: Dump) -> None:
    """A request and the bytes that it announces. Raises OSError."""
    connection.sendall(line(request))
    for part in (*dump.parts, *dump.arrays, *dump.buffers):
        connection.sendall(part)


def processor_time(pid: int) -> tuple[float, bool]:
    """Seconds that a process has had, and whether it waits for its turn or for a disk. Raises OSError without one."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] in "RD"


def receive(connection: socket.socket) -> dict[str, Any]:
    """An answer. Raises OSError where the other side has ended, ValueError for what is none."""
    data = b""
    while not data.endswith(b"\n"):
        more = connection.recv(_MOST_ANSWER)
        if not more or len(data) > _MOST_ANSWER:
            raise OSError("the rehearsal has ended")
        data += more
    answer = plain_json.read(data)
    return answer if isinstance(answer, dict) else {}
