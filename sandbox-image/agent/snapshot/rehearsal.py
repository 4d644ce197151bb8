"""Finds out, while a snapshot is made, what would not load again: such values are refused now and not at a wake.

Only groups that changed are tried, and only those that could fail: exact builtin containers, numbers, texts and arrays
of them always load. Within a group that fails, halves are tried, so that its innocent members are kept.

What hangs is told from what is slow: importing a large library takes long where other work has the processor, and a
value is not given up for that. It is kept, and its name says that it was not rehearsed.
"""

import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from agent import pristine
from agent.cgroup import OomCounter
from agent.snapshot.dump import Dump
from agent.snapshot.groups import Grouping
from agent.snapshot.nodes import Group, Node, is_telling
from agent.snapshot.process_state import Taken
from agent.snapshot.rehearsal_keys import Keys
from agent.snapshot.rehearsal_wire import processor_time, receive, request_of, send

if TYPE_CHECKING:
    from agent.snapshot.saving import Order

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_MOST_PROCESSES = 8  # rehearsals that user code may hang or kill in one snapshot
_PATIENCE = 6  # times the bound, for what has not had that much of the processor
_ASLEEP = 0.02  # of a processor: what takes less and does not wait for its turn hangs


_HUNG, _ENDED = "loading it timed out", "loading it ended the process"


class _UnknownError(Exception):
    """Whether it loads could not be found out."""


class Rehearsal:
    """One snapshot's rehearsals."""

    def __init__(self, grouping: Grouping, order: "Order", taken: Taken, announce: Callable[[str], None]) -> None:
        self._grouping = grouping
        self._order = order
        self._taken = taken
        self._announce = announce
        self._connection: socket.socket | None = None
        self._processes = 0
        self._pid = 0
        self._places: dict[Group, int] = {}  # in the order in which they load
        self._place = 0  # of the group that is tried
        self._code: list[Group] = []
        self._loaded: set[Group] = set()  # code that the present process has
        self._deadly: set[Group] = set()  # code that ends it
        self._code_is_loaded = False  # all of it, in the present process
        self._keys = Keys(order.seed, taken, grouping.modules, self._dump)
        self._killers: set[type] = set()  # of values that have ended or hung it
        self._oom = OomCounter()
        self.digests: dict[Group, str] = {}
        self.unrehearsed: set[Node] = set()
        self.untried: set[Node] = set()  # of these, those that are not merely too large
        self.tried: set[Group] = set()  # groups that load
        self.passed: set[str] = set()  # their keys

    def run(self, groups: list[Group]) -> list[Group]:
        """The groups that are left; what is refused has its reason."""
        dropped: set[Group] = set()
        # What user code runs while its values load finds the session's functions, as at a wake.
        self._places = {group: place for place, group in enumerate(groups)}
        self._code = [group for group in groups if len(group.code) == len(group.nodes)]
        self._keys.begin(self._code)
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
        self._end_process()
        self._oom.close()
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
        self.digests[group] = self._keys.content(group, dump)
        key = self._keys.key(group, dump)
        if key in self._order.rehearsed:
            self._pass(group, key)
            return True
        return False

    def _pass(self, group: Group, key: str) -> None:
        self.passed.add(key)
        self.tried.add(group)

    def _try(self, group: Group, dump: Dump) -> None:
        if dump.total > self._order.rehearsal_bytes:
            self.unrehearsed.update(group.nodes)
            return
        if self._process() is None:
            self._leave_untried(group)
            return
        self._place = self._places[group]
        try:
            failure = self._load(group, dump)
            if failure is None:
                self._pass(group, self._keys.key(group, dump))
                return
            kept = self._innocent(group, [], group.nodes, failure)
            self.tried.add(group)
        except _UnknownError:
            kept = [node for node in group.nodes if node.refusal is None]
            self.unrehearsed.update(kept)
            self.untried.update(kept)
            if len(kept) == len(group.nodes):
                return
        self._keep(group, kept)

    def _leave_untried(self, group: Group) -> None:
        """There is no process for it: what resembles the values that used them up is refused, and others pass."""
        for node in group.nodes:
            if type(node.root) in self._killers:
                node.refusal = f"not tried, after {self._processes} values that end or hang what loads them"
        kept = [node for node in group.nodes if node.refusal is None]
        self.unrehearsed.update(kept)
        self.untried.update(kept)
        if len(kept) < len(group.nodes):
            self._keep(group, kept)

    def _keep(self, group: Group, kept: list[Node]) -> None:
        group.nodes = kept
        if kept:
            group.dump = self._grouping.dump_of(group)
            del self.digests[group]

    def _innocent(self, group: Group, with_: list[Node], nodes: list[Node], failure: str) -> list[Node]:
        """Those of `nodes` that load together with the others in `with_`; the rest are refused."""
        if len(nodes) == 1:
            nodes[0].refusal = failure
            if failure in (_HUNG, _ENDED) and is_telling(type(nodes[0].root)):
                self._killers.add(type(nodes[0].root))
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
            self._code_is_loaded = False
            if self._connection is not None:
                self._greet(self._connection)
        return self._connection

    def _greet(self, connection: socket.socket) -> None:
        connection.settimeout(self._order.rehearsal_bound * _PATIENCE)
        try:
            self._pid = int(receive(connection)["pid"])
        except (OSError, ValueError, KeyError):
            self._end_process()

    def _end_process(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _load(self, group: Group, dump: Dump) -> str | None:
        """Why it does not load; None where it does."""
        while not self._load_what_comes_before(group):
            pass  # what has ended the process is not loaded for others again
        return self._exchange(group, dump)

    def _load_what_comes_before(self, group: Group) -> bool:
        """All code, and what the group needs, in the order in which a wake loads them; False where that ended it."""
        needed = self._with_needs(group.needs)
        if not self._code_is_loaded:  # else it is looked at anew for each of thousands of groups
            needed |= self._with_needs(self._code)
        # What is refused by now, whole, is not there at a wake.
        needed = {one for one in needed if one.nodes and one not in self._loaded and one not in self._deadly}
        # What comes later may need this very group: it would fail, and not be tried again.
        earlier = [one for one in needed if self._places[one] < self._place]
        for one in sorted(earlier, key=self._places.__getitem__):
            if self._process() is None:
                continue
            connection = self._connection
            self._loaded.add(one)
            known = self._dump(one)
            if known is not None:
                self._exchange(one, known)
            if self._connection is not connection:
                self._deadly.add(one)
                return False
        self._code_is_loaded = self._connection is not None and len(earlier) == len(needed)
        return True

    def _with_needs(self, groups: Iterable[Group]) -> set[Group]:
        found: set[Group] = set()
        pending = list(groups)
        while pending:
            one = pending.pop()
            if one not in found:
                found.add(one)
                pending += one.needs
        return found

    def _exchange(self, group: Group, dump: Dump) -> str | None:
        connection = self._process()
        if connection is None:
            raise _UnknownError
        self._announce(group.nodes[0].label)
        connection.settimeout(self._order.rehearsal_bound)
        try:
            send(connection, {**request_of(self._grouping, group, dump), "early": self._taken.early}, dump)
            answer = self._answer(connection, group)
        except TimeoutError:
            self._end_process()
            return _HUNG
        except _UnknownError:
            self._end_process()
            raise
        except (OSError, ValueError):
            self._end_process()
            if self._oom.new() or self._order.given_up():
                raise _UnknownError from None
            return _ENDED
        if answer.get("ok") is True:
            self._loaded.add(group)
            return None
        return str(answer.get("error", "it did not load"))[:400]

    def _answer(self, connection: socket.socket, group: Group) -> dict[str, Any]:
        """Raises TimeoutError where it hangs or takes too much of the processor, _UnknownError where it is held up."""
        bound = self._order.rehearsal_bound
        ends = time.monotonic() + bound * _PATIENCE
        begun = used = processor_time(self._pid)[0]
        while True:
            try:
                return receive(connection)
            except TimeoutError:
                before, (used, waits) = used, processor_time(self._pid)
                if used - begun >= bound or (used - before < _ASLEEP * bound and not waits):
                    raise
                if time.monotonic() > ends:
                    raise _UnknownError from None
            self._announce(group.nodes[0].label)  # it is alive
