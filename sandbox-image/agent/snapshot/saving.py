"""Writes a namespace as pieces and a manifest. Runs in a child of the worker: see keeper.py.

The result has two halves. `names` is for people and listings; `body` is what a restore needs, as JSON: readable
without unpickling anything, and opaque to the host.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent import plain_json, pristine
from agent.snapshot.dump import Dump
from agent.snapshot.groups import Grouping
from agent.snapshot.nodes import Group, Limits, Node, type_name
from agent.snapshot.packs import PackWriter
from agent.snapshot.pieces import Emit, PieceWriter
from agent.snapshot.process_state import Taken
from agent.snapshot.rehearsal import Rehearsal

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

VERSION = 1
TRIED, PLAIN = 1, 2  # how far a group is trusted to load; see restoring
HASHED = "session-orchestrator"  # its hash tells whether a restore iterates sets as this process does

NameRow = list[Any]  # name, kind, type, size, status, reason, excerpt, digest


@dataclass
class Order:
    """What is asked of a save."""

    seed: int  # secret to the session, for digests
    limits: Limits = field(default_factory=Limits)
    known: frozenset[bytes] = frozenset()  # raw digests that the head holds: these pieces are not emitted
    compress: bool = False  # off while a caller waits: it halves the speed
    take: Callable[..., Taken] = lambda _announce, _beat, _refused: Taken()  # of the process: see process_state.take
    rehearsed: frozenset[str] = frozenset()  # digests of groups that were loaded before
    rehearse: Callable[[], Any] | None = None  # gives a socket to a fresh rehearsal, or None; None: no rehearsals
    given_up: Callable[[], bool] = lambda: False  # whether it was ended for what is not its fault
    rehearsal_bound: float = 5.0  # seconds that loading one group may take; below the silence that a keeper allows
    rehearsal_bytes: int = 64 * 1000 * 1000  # larger groups are not rehearsed: they would be in memory once more
    refused: dict[str, str] = field(default_factory=dict)  # labels that are not tried, and why
    running: list[tuple[str, str]] = field(default_factory=list)  # see process_state.running


@dataclass
class Saved:
    """What a save made, beside the pieces that it emitted."""

    names: list[NameRow]
    pieces: list[str]  # raw digests, each once, in the order in which a restore wants them
    body: bytes
    rehearsed: list[str]  # digests of groups that surely load; hand them to the next save
    remarks: list[tuple[str, str]]  # (name, what is lost although it is saved)
    new_bytes: int


def save(
    namespace: dict[str, Any],
    order: Order,
    emit: Emit,
    announce: Callable[[str], None] = lambda _label: None,
    beat: Callable[[], None] = lambda: None,
) -> Saved:
    """Save everything that can be; `announce` is told each time before user code may run, and for whom.

    An empty label says that pieces go out now, as fast as they are taken.
    """
    taken = order.take(announce, beat, order.refused)
    grouping = Grouping(namespace, order.limits, announce=announce, beat=beat, refused=order.refused, state=taken.state)
    groups = grouping.run()
    rehearsal = Rehearsal(grouping, order, taken, announce)
    groups = rehearsal.run(groups)
    announce("")  # no user code from here on, but for groups that were too large to be kept since the first pass

    def emit_and_beat(digest: bytes, size: int, encoding: str, data: Any) -> None:
        beat()
        emit(digest, size, encoding, data)

    pieces = PieceWriter(emit_and_beat, order.seed, order.known, compress=order.compress)
    writer = _Writer(grouping, pieces, rehearsal, announce)
    stored = writer.store(groups)
    return Saved(
        names=_names(grouping, writer.digests, rehearsal.unrehearsed),
        pieces=[digest for digest, _ in writer.pieces.table],
        body=_body(grouping, taken, stored, writer.pieces.table, order.running),
        rehearsed=sorted(rehearsal.passed),
        remarks=_remarks(grouping, rehearsal),
        new_bytes=writer.pieces.new_bytes,
    )


def _remarks(grouping: Grouping, rehearsal: Rehearsal) -> list[tuple[str, str]]:
    untried = [node.label for node in grouping.nodes.values() if node in rehearsal.untried and node.refusal is None]
    rows = [
        *grouping.remarks(),
        *((label, "saved without having been tried: it may not load again") for label in untried),
    ]
    return [(label.partition(" ")[2], text) for label, text in rows]


def _body(
    grouping: Grouping,
    taken: Taken,
    stored: dict[str, Any],
    table: list[tuple[str, int]],
    running: list[tuple[str, str]],
) -> bytes:
    body = {
        "version": VERSION,
        "python": list(sys.version_info[:3]),
        "hash": hash(HASHED),
        "order": [name for name, _ in grouping.order if type(name) is str],
        "early": taken.early,
        "imports": taken.imports,
        "modules": grouping.modules,
        "code": _code_names(grouping),
        **stored,
        "not_saved": [*running, *_not_saved(grouping)],
        "pieces": table,
    }
    return plain_json.write(body)


def _code_names(grouping: Grouping) -> dict[str, str]:
    slots = grouping.catalog.slots
    bound = {name: slots[id(value)] for name, value in grouping.order if type(name) is str and id(value) in slots}
    return {name: slot for name, slot in bound.items() if grouping.nodes[f"code {slot}"].refusal is None}


def _not_saved(grouping: Grouping) -> list[tuple[str, str]]:
    return [
        (node.state, node.refusal)
        for node in grouping.nodes.values()
        if node.state is not None and node.refusal is not None
    ]


def _names(grouping: Grouping, digests: dict[Node, str], unrehearsed: set[Node]) -> list[NameRow]:
    rows: list[NameRow] = []
    for name, value in grouping.order:
        if type(name) is not str:
            rows.append([f"<{type_name(name)}>", "value", type_name(value), None, "refused",
                         "its name is not a string", None, None])  # fmt: skip
            continue
        if name in grouping.modules:
            rows.append([name, "module", "module", None, "saved", None, None, None])
            continue
        slot = grouping.catalog.slots.get(id(value))
        node = grouping.nodes[f"name {name}" if slot is None else f"code {slot}"]
        status = "refused" if node.refusal else "unrehearsed" if node in unrehearsed else "saved"
        kind = "value" if slot is None else "code"
        rows.append([name, kind, type_name(value), node.size, status, node.refusal, None, digests.get(node)])
    return rows


class _Writer:
    """Lays groups out in streams and cuts these into pieces."""

    def __init__(
        self, grouping: Grouping, pieces: PieceWriter, rehearsal: Rehearsal, announce: Callable[[str], None]
    ) -> None:
        self._announce = announce
        self._grouping = grouping
        self.pieces = pieces
        self._rehearsal = rehearsal
        self.digests: dict[Node, str] = {}
        self._packs = PackWriter(pieces)

    def store(self, groups: list[Group]) -> dict[str, Any]:
        """Emit all of them; what the manifest says of them."""
        numbers = {group: number for number, group in enumerate(groups)}
        rows = []
        for group in groups:
            rows.append(self._group(group, numbers))
            self._packs.added(group.nodes[0].label)
        self._packs.close()
        return {"groups": rows, "packs": self._packs.packs}

    def _group(self, group: Group, numbers: dict[Group, int]) -> dict[str, Any]:
        dump = group.dump
        if dump is None or not dump.parts:
            self._announce(group.nodes[0].label)
            dump = self._grouping.dump_of(group)
            self._announce("")
        row: dict[str, Any] = {
            "code": [node.slot for node in group.code],
            "names": [node.name for node in group.nodes if node.name is not None],
            "state": [node.state for node in group.nodes if node.state is not None],
            "needs": [numbers[other] for other in group.needs],
            "pack": self._packs.add(dump.parts, dump.size),
        }
        if dump.arrays or dump.buffers:
            self._packs.close()  # so that pieces come in the order in which a restore wants them
            row["arrays"] = [[part.nbytes, self.pieces.write(part)] for part in dump.arrays]
            row["buffers"] = [[part.nbytes, self.pieces.write(part)] for part in dump.buffers]
        digest = self._digest(group, dump, row)
        self.digests.update(dict.fromkeys(group.nodes, digest))
        row["digest"] = digest
        if dump.byte_code:
            row["byte_code"] = True
        if dump.plain or group in self._rehearsal.tried:
            row["trust"] = PLAIN if dump.plain else TRIED
        group.dump = None
        return {key: value for key, value in row.items() if value != []}

    def _digest(self, group: Group, dump: Dump, row: dict[str, Any]) -> str:
        known = self._rehearsal.digests.get(group)
        if known is not None:
            return known
        beside = [index for _, indexes in (*row.get("arrays", ()), *row.get("buffers", ())) for index in indexes]
        return self.pieces.digest(*dump.parts, *(self.pieces.table[index][0].encode() for index in beside))
