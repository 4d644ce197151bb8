"""An agent that only pretends: a namespace of JSON values and a few files, saved and restored through the real port.

Cells are lines such as `x = 1`, `del x`, `x`, `file a.txt hello`, and the special ones below.
"""

import asyncio
import copy
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Self

from orchestrator.domain.errors import NamespaceLostError, SandboxLostError
from orchestrator.domain.model import CellOrder, CellReport, Namespace, Variable
from orchestrator.domain.ports import Agent, AgentHello
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Encoding,
    Manifest,
    Piece,
    RestoreOrder,
    RestoreReport,
    SavedFile,
    SavedName,
    SaveFailedError,
    SaveOrder,
    SaveReport,
    Section,
    SectionName,
)
from tests.unit.pretended_faults import Faults

KILLED = "killed"  # the code of a cell that takes the namespace with it, and the savepoint
KILLED_BACK = "killed back"  # of one that ends its worker, whose savepoint takes over
FORK = "fork"  # a line after which the cell's end is followed by a savepoint
LOST = "lost"  # of one that takes the sandbox with it
ENDLESS = "endless"  # of one that ends when it is interrupted
STARVED = "starved"  # of one that takes the sandbox with it, for its memory
OPEN_FILE = "<open file>"  # a value that no snapshot holds
DEADLY = "<deadly>"  # a value that ends every worker which loads it; a careful one does not try
UNLUCKY = "<unlucky>"  # a value beside which workers are killed from outside, as often as `unlucky` says
DEADLY_AND_PLAIN = "<deadly and plain>"  # one that a careful worker tries all the same
_CHUNK = 12  # bytes in a piece, so that most values are some of them


class FakeAgent(Agent):
    def __init__(self, faults: Faults) -> None:
        self.ran: list[str] = []
        self.cells: list[CellOrder] = []
        self.limits: list[float] = []  # of the cells that ran
        self.cpu: float | None = None  # what each cell says that it took
        self.namespace: dict[str, object] = {}
        self.sizes: dict[str, int] = {}  # of variables that are not small
        self.files: dict[str, str] = {}
        self.savepoint: tuple[int, dict[str, object]] | None = None  # after which execution, and what it holds
        self.fresh = True  # the worker has seen no cell
        self.restored = False  # nor need it: it was given a namespace
        self.untold = False  # a host does not know that it lacks one
        self.lacks = False  # and saves are refused for it
        self.digest = "a" * 64
        self.incarnation = 0
        self.last = 0  # the last execution that was begun
        self.order: CellOrder | None = None  # of the one that runs
        self.kept: tuple[int, CellReport] | None = None  # what the last one was answered with
        self.reads_files = True
        self.abandoned = False
        self.orders: list[SaveOrder] = []
        self.restores: list[RestoreOrder] = []
        self.sent: list[Piece] = []  # by the last save
        self._faults = faults
        self._known: tuple[int | None, frozenset[str]] = (None, frozenset())
        self._lost: str | None = None
        self.starved = False
        self.unlucky = 0
        self.closed = False  # the connection is gone; the container lives
        self._interrupted = asyncio.Event()
        self._hello = self._says()

    def _says(self) -> AgentHello:
        running = self.order.execution if self.order is not None else None
        return AgentHello(self.digest, "3.11.2", self.incarnation, self.last, running, 0)

    def reached_anew(self, faults: Faults) -> Self:
        """The same container, over another connection; cells go on."""
        again = copy.copy(self)
        again._faults, again._lost, again.closed = faults, None, False
        again._interrupted = asyncio.Event()
        again._hello = again._says()
        return again

    def as_it_is(self, faults: Faults) -> Self:
        """Another container that is what this one is now, with no host."""
        twin = self.reached_anew(faults)
        twin.namespace, twin.files, twin.ran = dict(self.namespace), dict(self.files), list(self.ran)
        twin.orders, twin.restores = list(self.orders), list(self.restores)
        twin._lost, twin.closed = ("closed", True) if self._lost is None or self.closed else (self._lost, False)
        return twin

    @property
    def hello(self) -> AgentHello:
        return self._hello

    @property
    def lost(self) -> str | None:
        return self._lost

    @property
    def lost_to_memory(self) -> bool:
        return self.starved

    def lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._interrupted.set()

    def require_alive(self) -> None:
        if self._lost is not None:
            raise SandboxLostError(f"The sandbox is gone: {self._lost}.")

    async def reach(self, point: str) -> None:
        self.require_alive()
        if self._faults.each is not None:
            await self._faults.each()
        fault = self._faults.next(point)
        await asyncio.sleep(0)
        if fault is not None:
            await fault(self)

    async def claim(self, session: str, incarnation: int) -> None:  # noqa: ARG002 - the port's
        await self.reach("claim")
        self.untold = self.incarnation > 0 and self.fresh and not self.restored
        self.incarnation = incarnation

    async def execute(self, order: CellOrder) -> CellReport:
        await self.reach("execute")
        if self.untold:
            self.untold = False
            raise NamespaceLostError("The worker is another.", cause="its process was replaced by a fresh one")
        assert order.execution > self.last, "a number that was begun before"
        self.ran.append(order.code)
        self.cells.append(order)
        self.limits.append(order.time_limit)
        self.fresh = False
        self.last, self.order = order.execution, order
        if order.code in (LOST, STARVED):
            self.starved = order.code == STARVED
            self.lose("it was killed")
        return await self._end_of(order)

    async def result(self, execution: int, *, seconds: float) -> CellReport | None:  # noqa: ARG002 - the port's
        await self.reach("result")
        if self.order is not None and self.order.execution == execution:
            return await self._end_of(self.order)
        return self.kept[1] if self.kept is not None and self.kept[0] == execution else None

    async def _end_of(self, order: CellOrder) -> CellReport:
        if order.code == ENDLESS:
            await self._interrupted.wait()
            self._interrupted.clear()
        self.require_alive()
        return self.end_cell(order)

    def end_cell(self, order: CellOrder) -> CellReport:
        """What runs ends, whether anybody waits for it or not."""
        if order.code == KILLED:
            self.namespace, self.savepoint, self.fresh, self.restored = {}, None, True, False
            report = _report(outcome="oom", namespace_kept=False, variable_count=0)
        elif order.code == KILLED_BACK:
            assert self.savepoint is not None
            execution, self.namespace = self.savepoint[0], dict(self.savepoint[1])
            report = _report(outcome="oom", namespace_kept=False, resumed=execution, variable_count=len(self.namespace))
        elif order.code == ENDLESS:
            report = _report(outcome="interrupted", variable_count=len(self.namespace))
        else:
            report = self._run(order)
        report = replace(report, cpu=self.cpu)
        self.order, self.kept = None, (order.execution, report)
        return report

    def _run(self, order: CellOrder) -> CellReport:
        bound, removed, value = [], [], None
        for line in order.code.splitlines():
            name, is_binding, right = line.partition(" = ")
            if is_binding:
                self.namespace[name] = json.loads(right)
                bound.append(name)
            elif line.startswith("del "):
                del self.namespace[line[4:]]
                removed.append(line[4:])
            elif line.startswith("file "):
                _, path, self.files[path] = line.split(" ")
            elif line == FORK:
                self.savepoint = order.execution, dict(self.namespace)
            elif line.isidentifier():
                value = json.dumps(self.namespace[line]) if line in self.namespace else "NameError"
            else:
                value = line
        count = len(self.namespace)
        return _report(value=value, bound=tuple(bound), removed=tuple(removed), variable_count=count)

    def interrupt(self, execution: int) -> None:  # noqa: ARG002 - the port's
        self._interrupted.set()

    async def list_variables(self) -> Namespace:
        await self.reach("list")
        found = [(name, type(value).__name__, self.sizes.get(name, 28)) for name, value in self.namespace.items()]
        return Namespace(tuple(Variable(*fields) for fields in found), ())

    async def clear(self) -> None:
        await self.reach("clear")
        self.namespace, self.savepoint = {}, None
        self.fresh, self.restored, self.untold, self.lacks = True, False, False, False

    async def save(self, order: SaveOrder) -> "FakeSaving":
        self.abandoned = False
        self.orders.append(order)
        await self.reach("save")
        if self.lacks:
            raise NamespaceLostError("The worker is another.", cause="its process was replaced by a fresh one")
        known = self._known[1] if order.head is not None and order.head == self._known[0] else frozenset()
        saving = FakeSaving(self, order, known)
        await self.reach("frozen")
        return saving

    def saved(self, sequence: int, digests: frozenset[str]) -> None:
        """The supervisor remembers what the host has now."""
        self._known = (sequence, digests)

    async def restore(self, order: RestoreOrder, pieces: AsyncIterator[Piece | DamagedPiece]) -> RestoreReport:
        assert self.fresh, "a restore into a worker that has run cells"
        self.restores.append(order)
        await self.reach(f"restore {order.section}")
        texts: dict[str, str | DamagedPiece] = {}
        async for piece in pieces:
            texts[piece.raw_digest] = piece if isinstance(piece, DamagedPiece) else piece.data.decode()
            await self.reach("taken")
        into: dict[str, object] = {} if order.section == "namespace" else dict(self.files)
        lost: list[tuple[str, str]] = []
        for group, (name, digests) in enumerate(json.loads(order.body)):
            found = [texts[digest] for digest in digests]
            damaged = [piece.reason for piece in found if isinstance(piece, DamagedPiece)]
            if damaged or group in order.quarantined:
                lost.append((name, order.quarantined.get(group) or damaged[0]))
                continue
            value = json.loads("".join(map(str, found)))
            if value == DEADLY and order.careful:
                lost.append((name, "it was not tried"))
                continue
            into[name] = value
            if value == UNLUCKY and self.unlucky:
                self.unlucky -= 1
                return RestoreReport(crashed=(group, "it was killed"), killed=True)
            if value in (DEADLY, DEADLY_AND_PLAIN):
                return RestoreReport(crashed=(group, "it ended the process that loaded it"))
        if order.section == "namespace":
            self.namespace, self.restored, self.untold = into, True, False
        else:
            self.files = {path: str(text) for path, text in into.items()}
        return RestoreReport(restored=len(into), lost=tuple(lost))

    async def close(self) -> None:
        self.closed = self.closed or self._lost is None
        self.lose("closed")


class FakeSaving:
    """A moment of a pretended agent."""

    def __init__(self, agent: FakeAgent, order: SaveOrder, known: frozenset[str]) -> None:
        self._agent = agent
        self._order = order
        self._known = known
        kept = {name: value for name, value in agent.namespace.items() if value != OPEN_FILE}
        self._refused = [name for name in agent.namespace if name not in kept]
        self._files = dict(agent.files) if agent.reads_files else {}
        self._sections: dict[SectionName, list[tuple[str, list[Piece]]]] = {
            "namespace": [(name, list(_pieces(order, value))) for name, value in kept.items()],
            "workspace": [(path, list(_pieces(order, text))) for path, text in self._files.items()],
        }
        self.files_read = agent.reads_files

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        self._agent.sent = []
        for _, pieces in (*self._sections["namespace"], *self._sections["workspace"]):
            for piece in pieces:
                await self._reach("piece")
                if piece.raw_digest not in self._known and piece not in self._agent.sent:
                    self._agent.sent.append(piece)
                    yield piece

    async def report(self) -> SaveReport:
        await self._reach("report")
        intent = self._order.intent
        everything = [piece for groups in self._sections.values() for _, pieces in groups for piece in pieces]
        self._agent.saved(intent.sequence, frozenset(piece.raw_digest for piece in everything))
        names = [_name(name, "saved", None) for name, _ in self._sections["namespace"]]
        names += [_name(name, "refused", "it cannot be pickled") for name in self._refused]
        manifest = Manifest(
            sequence=intent.sequence,
            incarnation=intent.incarnation,
            execution=intent.execution,
            environment=self._order.environment,
            python="3.11",
            names=tuple(names),
            files=tuple(
                SavedFile(path, "file", len(text), intent.execution, None) for path, text in self._files.items()
            ),
            namespace=_section(self._sections["namespace"]),
            workspace=_section(self._sections["workspace"]) if self.files_read else Section(),
        )
        return SaveReport(manifest, self.files_read, cpu_seconds=1.0, remarks=())

    def abandon(self) -> None:
        self._agent.abandoned = True

    async def _reach(self, point: str) -> None:
        await self._agent.reach(point)
        if self._agent.abandoned:
            raise SaveFailedError("The session could not be saved: it was abandoned.")


def _name(name: str, status: str, reason: str | None) -> SavedName:
    saved = SavedName(name, "value", "int", 28, "saved", reason, None, None)
    return saved if status == "saved" else replace(saved, status="refused", type="file")


def _section(groups: Sequence[tuple[str, list[Piece]]]) -> Section:
    body = json.dumps([(name, [piece.raw_digest for piece in pieces]) for name, pieces in groups])
    digests = dict.fromkeys(piece.raw_digest for _, pieces in groups for piece in pieces)
    return Section(body.encode(), tuple(digests))


def _pieces(order: SaveOrder, value: object) -> Iterator[Piece]:
    text = json.dumps(value).encode()
    for start in range(0, len(text), _CHUNK):
        chunk = text[start : start + _CHUNK]
        digest = hashlib.blake2b(chunk, digest_size=16, key=str(order.intent.seed).encode()).hexdigest()
        yield Piece(digest, len(chunk), Encoding.RAW, chunk)


def _report(**said: object) -> CellReport:
    empty = CellReport(
        outcome="ok",
        output_head="",
        output_tail="",
        output_bytes=0,
        output_left_out=0,
        value=None,
        displays=(),
        error_type=None,
        error_message=None,
        traceback=None,
        bound=(),
        removed=(),
        variable_count=0,
        duration=0.0,
        namespace_kept=True,
        resumed=None,
        memory_peak=0,
        notes=(),
    )
    return replace(empty, **said)  # type: ignore[arg-type]
