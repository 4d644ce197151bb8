"""Finds out, while a snapshot is made, what would not load again: such values are refused now and not at a wake.

Only groups that changed are tried, and only those that could fail: exact builtin containers, numbers, texts and arrays
of them always load. Within a group that fails, halves are tried, so that its innocent members are kept.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.snapshot.dump import Dump
from agent.snapshot.groups import Grouping
from agent.snapshot.loading import line
from agent.snapshot.nodes import Group, Node
from agent.snapshot.pieces import digest_of, digests_in

if TYPE_CHECKING:
    from agent.snapshot.saving import Order

_MOST_ANSWER = 65_536  # bytes
_MOST_PROCESSES = 8  # rehearsals that user code may hang or kill in one snapshot


class Rehearsal:
    """One snapshot's rehearsals."""

    def __init__(self, grouping: Grouping, order: "Order", announce: Callable[[str], None]) -> None:
        self._grouping = grouping
        self._order = order
        self._announce = announce
        self._connection: socket.socket | None = None
        self._processes = 0
        self._code: list[Group] = []
        self._loaded: set[Group] = set()  # code that the present process has
        self.digests: dict[Group, str] = {}
        self.unrehearsed: set[Node] = set()
        self.passed: set[str] = set()  # digests of groups that load

    def run(self, groups: list[Group]) -> list[Group]:
        """The groups that are left; what is refused has its reason."""
        dropped: set[Group] = set()
        # What user code runs while its values load finds the session's functions, as at a wake.
        self._code = [group for group in groups if len(group.code) == len(group.nodes)]
        for group in groups:
            if not dropped.isdisjoint(group.needs):
                dropped.add(group)
                continue
            dump = self._dump(group)
            if dump is None:
                dropped.add(group)
            elif not dump.plain and not self._is_known(group, dump):
                self._try(group, dump)
                if not group.nodes:
                    dropped.add(group)
        if self._connection is not None:
            self._connection.close()
        return self._grouping.without(groups, dropped)

    def _dump(self, group: Group) -> Dump | None:
        if group.dump is not None and (group.dump.parts or group.dump.plain):
            return group.dump
        try:
            return self._grouping.dump_of(group)
        except BaseException:
            for node in group.nodes:
                node.refusal = "it was pickled once and not a second time"
            return None

    def _is_known(self, group: Group, dump: Dump) -> bool:
        beside = [
            digest.encode() for part in (*dump.arrays, *dump.buffers) for digest in digests_in(part, self._order.seed)
        ]
        digest = self.digests[group] = digest_of((*dump.parts, *beside), self._order.seed)
        if digest in self._order.rehearsed:
            self.passed.add(digest)
            return True
        return False

    def _try(self, group: Group, dump: Dump) -> None:
        if dump.total > self._order.rehearsal_bytes or self._process() is None:
            self.unrehearsed.update(group.nodes)
            return
        failure = self._load(group, dump)
        if failure is None:
            self.passed.add(self.digests[group])
            return
        kept = self._innocent(group, [], group.nodes, failure)
        group.nodes = kept
        if kept:
            group.dump = self._grouping.dump_of(group)
            del self.digests[group]

    def _innocent(self, group: Group, with_: list[Node], nodes: list[Node], failure: str) -> list[Node]:
        """Those of `nodes` that load together with the others in `with_`; the rest are refused."""
        if len(nodes) == 1:
            nodes[0].refusal = failure
            return []
        half = len(nodes) // 2
        kept: list[Node] = []
        for part in (nodes[:half], nodes[half:]):
            again = self._load_nodes(group, [*with_, *kept, *part])
            kept += part if again is None else self._innocent(group, [*with_, *kept], part, again)
        return kept

    def _load_nodes(self, group: Group, nodes: list[Node]) -> str | None:
        part = Group(nodes, group.needs)
        try:
            dump = self._grouping.dump_of(part)
        except BaseException as error:
            return f"pickling raised {type(error).__name__}"
        return self._load(part, dump)

    # the process

    def _process(self) -> socket.socket | None:
        if self._connection is None and self._order.rehearse is not None and self._processes < _MOST_PROCESSES:
            self._processes += 1
            self._connection = self._order.rehearse()
            self._loaded = set()
        return self._connection

    def _end_process(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _load(self, group: Group, dump: Dump) -> str | None:
        """Why it does not load; None where it does."""
        for needed in (*self._code, *group.needs):
            if needed is not group and needed not in self._loaded and self._process() is not None:
                self._loaded.add(needed)  # once, however it goes
                known = self._dump(needed)
                if known is not None:
                    self._load(needed, known)
        connection = self._process()
        if connection is None:
            return "it could not be rehearsed"
        self._announce(group.nodes[0].label)
        connection.settimeout(self._order.rehearsal_bound)
        try:
            _send(connection, {**_request(self._grouping, group, dump), "early": self._order.early}, dump)
            answer = _receive(connection)
        except TimeoutError:
            self._end_process()
            return "loading it timed out"
        except (OSError, ValueError):
            self._end_process()
            return "loading it ended the process"
        if answer.get("ok") is True:
            self._loaded.add(group)
            return None
        return str(answer.get("error", "it did not load"))[:400]


def _request(grouping: Grouping, group: Group, dump: Dump) -> dict[str, Any]:
    slots = [node.slot for node in group.code]
    named = {id(node.root): node.slot for node in group.code}
    bound = {name: named[id(value)] for name, value in grouping.order if type(name) is str and id(value) in named}
    return {
        "code": slots,
        "bound": bound,
        "modules": grouping.modules,
        "size": dump.size,
        "arrays": [part.nbytes for part in dump.arrays],
        "buffers": [part.nbytes for part in dump.buffers],
    }


def _send(connection: socket.socket, request: dict[str, Any], dump: Dump) -> None:
    connection.sendall(line(request))
    for part in (*dump.parts, *dump.arrays, *dump.buffers):
        connection.sendall(part)


def _receive(connection: socket.socket) -> dict[str, Any]:
    import json

    data = b""
    while not data.endswith(b"\n"):
        more = connection.recv(_MOST_ANSWER)
        if not more or len(data) > _MOST_ANSWER:
            raise OSError("the rehearsal has ended")
        data += more
    answer = json.loads(data)
    return answer if isinstance(answer, dict) else {}
