"""An agent that only pretends: a namespace of JSON values and a few files, saved and restored through the real port.

Cells are lines such as `x = 1`, `del x`, `x`, `file a.txt hello`, and the special ones below.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import replace

from orchestrator.domain.errors import SandboxLostError
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

KILLED = "killed"  # the code of a cell that takes the namespace with it
TAKEN_OVER = "taken over"  # of one after which a savepoint goes on that knows nothing of the last names
LOST = "lost"  # of one that takes the sandbox with it
ENDLESS = "endless"  # of one that ends when it is interrupted
OPEN_FILE = "<open file>"  # a value that no snapshot holds
DEADLY = "<deadly>"  # a value that ends every worker which loads it; a careful one does not try
DEADLY_AND_PLAIN = "<deadly and plain>"  # one that a careful worker tries all the same
_CHUNK = 12  # bytes in a piece, so that most values are some of them


class FakeAgent(Agent):
    def __init__(self, faults: Faults) -> None:
        self.ran: list[str] = []
        self.namespace: dict[str, object] = {}
        self.files: dict[str, str] = {}
        self.fresh = True  # the worker has seen no cell
        self.reads_files = True
        self.abandoned = False
        self.orders: list[SaveOrder] = []
        self.restores: list[RestoreOrder] = []
        self.sent: list[Piece] = []  # by the last save
        self._faults = faults
        self._known: tuple[int | None, frozenset[str]] = (None, frozenset())
        self._lost: str | None = None
        self._interrupted = asyncio.Event()

    @property
    def hello(self) -> AgentHello:
        return AgentHello("a" * 64, "3.11", 1, 0, None)

    @property
    def lost(self) -> str | None:
        return self._lost

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

    async def claim(self, session: str, incarnation: int) -> None: ...

    async def execute(self, order: CellOrder) -> CellReport:
        await self.reach("execute")
        self.ran.append(order.code)
        self.fresh = False
        if order.code == LOST:
            self.lose("it was killed")
        if order.code == KILLED:
            self.namespace, self.fresh = {}, True
            return _report(outcome="oom", namespace_kept=False, variable_count=0)
        if order.code == TAKEN_OVER:
            self.namespace.popitem()
            count = len(self.namespace)
            resumed = order.execution - 1
            return _report(outcome="crashed", namespace_kept=False, resumed=resumed, variable_count=count)
        if order.code == ENDLESS:
            await self._interrupted.wait()
            self._interrupted.clear()
            return _report(outcome="interrupted", variable_count=len(self.namespace))
        self.require_alive()
        return self._run(order)

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
        return Namespace(tuple(Variable(name, type(value).__name__, 28) for name, value in self.namespace.items()), ())

    async def clear(self) -> None:
        await self.reach("clear")
        self.namespace, self.fresh = {}, True

    async def save(self, order: SaveOrder) -> "FakeSaving":
        self.abandoned = False
        self.orders.append(order)
        await self.reach("save")
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
            if value in (DEADLY, DEADLY_AND_PLAIN):
                return RestoreReport(crashed=(group, "it ended the process that loaded it"))
        if order.section == "namespace":
            self.namespace = into
        else:
            self.files = {path: str(text) for path, text in into.items()}
        return RestoreReport(restored=len(into), lost=tuple(lost))

    async def close(self) -> None:
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
