"""A sandbox whose agent is driven over its port, and the pieces that its saves have sent."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypedDict, Unpack

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.engine.verification import KEPT_AS
from orchestrator.adapters.image.builder import find_sandbox_image
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, CellReport, SandboxRecord, SandboxState
from orchestrator.domain.ports import Saving
from orchestrator.domain.probes import PROBES
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Piece,
    RestoreOrder,
    RestoreReport,
    SaveOrder,
    SaveReport,
    SectionName,
    SnapshotIntent,
)
from tests import leaks
from tests.pace import paced

SEED = 2**63 + 7
ROOMY = 1 << 40
# What was found out about the engine: kept for the next test as a data directory keeps it for the next start.
ENFORCED: dict[str, str] = {}
_UIDS = count(61_000)  # below 65,536, which engines that remap user ids have

Pieces = dict[str, Piece]


class Changes(TypedDict, total=False):
    """Of a save's order."""

    variable_limit: int
    session_limit: int
    compress: bool
    final: bool
    hold: float
    bound: float


class SavedSandbox:
    """One sandbox, one session; `pieces` is what a store would hold."""

    def __init__(self, agent: AgentChannel, handle: str, pieces: Pieces) -> None:
        self.agent = agent
        self.handle = handle
        self.pieces = pieces
        self.execution = 0
        self.sequence = 0
        self.sent = 0  # bytes of pieces in the last save
        self._init: int | None = None

    async def kept(self, code: str, *, limit: float = 20.0) -> str | None:
        """The value of a cell that has to succeed, once a savepoint stands that was made after it."""
        value = await self.value(code, limit=limit)
        await self.savepoint()
        return value

    async def savepoint(self, execution: int | None = None) -> None:
        """Wait until the one as of that execution stands, and no other; without a number as of the last cell."""
        await self._stands([self.execution if execution is None else execution])

    async def backed(self) -> None:
        """Run cells that do nothing until a savepoint stands: beside busy threads none is made, or not at once."""
        for _ in range(20):
            with suppress(TimeoutError):
                await self._stands([self.execution], seconds=3)
                return
            await self.value("None")
        raise AssertionError("no savepoint was made")

    async def no_savepoint(self) -> None:
        """Wait until none stands."""
        await self._stands([])

    async def _stands(self, executions: list[int], *, seconds: float = 30) -> None:
        async with asyncio.timeout(paced(seconds)):
            while self.standing_by() != executions:  # noqa: ASYNC110 - other processes decide
                await asyncio.sleep(0.01)

    def exit_code(self) -> int:
        """Of the container, once it has ended."""
        with closing(api_client(find_engine())) as api:
            return int(api.inspect_container(self.handle)["State"]["ExitCode"])

    async def taken_over(self, execution: int) -> None:
        """Wait until a savepoint as of that execution has stood, and is the worker: the same process, another name."""
        async with asyncio.timeout(paced(30)):
            while not (found := self._processes(f"savepoint {execution}")):  # noqa: ASYNC110 - other processes decide
                await asyncio.sleep(0.001)
            while found & self._processes(f"savepoint {execution}"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def another_savepoint(self) -> None:
        """Wait until one is being made beside the one that stands: it has its process, and may have yet to say so."""
        async with asyncio.timeout(paced(30)):
            while len(self._savepoints()) < 2 and self.standing_by() != [self.execution]:  # noqa: ASYNC110
                await asyncio.sleep(0)

    def standing_by(self) -> list[int]:
        """The executions of savepoints that stand, by the names of their processes, as the host sees them."""
        return sorted(int(name[1]) for name in self._savepoints() if name[1].isdigit())

    def _savepoints(self) -> list[list[str]]:
        names = [name.split() for name in self._children().values()]
        return [name for name in names if name[:1] == ["savepoint"]]

    def _processes(self, name: str) -> set[str]:
        """Those of that name, by their numbers on the host."""
        return {pid for pid, found in self._children().items() if found == name}

    def _children(self) -> dict[str, str]:
        if self._init is None:
            with closing(api_client(find_engine())) as api:
                self._init = int(api.inspect_container(self.handle)["State"]["Pid"])
        children = Path(f"/proc/{self._init}/task/{self._init}/children").read_text().split()
        return {pid: _name_of(pid) for pid in children}

    async def run(self, code: str, *, limit: float = 20.0) -> CellReport:
        """A cell, whatever becomes of it."""
        self.execution += 1
        order = CellOrder(
            self.execution, code, time_limit=limit, grace=paced(0.5), output_head=20_000, output_tail=1_000
        )
        return await self.agent.execute(order)

    async def value(self, code: str, *, limit: float = 20.0) -> str | None:
        """The value of a cell that has to succeed."""
        report = await self.run(code, limit=limit)
        assert report.outcome == "ok", (report.outcome, report.traceback)
        return report.value

    def order(self, *, head: int | None = None, **changes: Unpack[Changes]) -> SaveOrder:
        """The next save's."""
        self.sequence += 1
        intent = SnapshotIntent("key", self.sequence, 1, self.execution, 1, head, False, SEED)
        order = SaveOrder(
            intent,
            environment="an environment",
            head=head,
            variable_limit=ROOMY,
            session_limit=ROOMY,
            compress=False,
            final=False,
            hold=2.0,
            bound=60.0,
            most_bytes=3 * ROOMY,
        )
        return replace(order, **changes)

    async def save(self, *, head: int | None = None, **changes: Unpack[Changes]) -> SaveReport:
        """A whole save; what it sent is in `pieces`."""
        return await self.finish(await self.agent.save(self.order(head=head, **changes)))

    async def finish(self, saving: Saving) -> SaveReport:
        """Take all that a save sends."""
        self.sent = 0
        async with aclosing(saving.pieces()) as pieces:
            async for piece in pieces:
                self.pieces[piece.raw_digest] = piece
                self.sent += len(piece.data)
        return await saving.report()

    async def restore(
        self,
        saved: SaveReport,
        section: SectionName,
        *,
        quarantined: Mapping[int, str] | None = None,
        damaged: frozenset[str] = frozenset(),
        bound: float = 5.0,
        careful: int = 0,
    ) -> RestoreReport:
        """One section of what a save made."""
        manifest = saved.manifest
        half = manifest.namespace if section == "namespace" else manifest.workspace

        async def pieces() -> AsyncIterator[Piece | DamagedPiece]:
            for digest in half.pieces:
                yield DamagedPiece(digest, "the disk is old") if digest in damaged else self.pieces[digest]

        order = RestoreOrder(manifest.sequence, section, half.body, SEED, bound, quarantined or {}, careful)
        self.sequence = max(self.sequence, manifest.sequence)
        return await self.agent.restore(order, pieces())

    async def wake(self, saved: SaveReport, *, bound: float = 5.0) -> RestoreReport:
        """Both sections, the way a service brings a session back; what is reported is the namespace's."""
        files = await self.restore(saved, "workspace")
        assert files.lost == ()
        quarantined: dict[int, str] = {}
        while (report := await self.restore(saved, "namespace", quarantined=quarantined, bound=bound)).crashed:
            quarantined.update([report.crashed])
        return report


@asynccontextmanager
async def snapshot_engine(
    parent: Path, channel: str = "unix", profile: SandboxProfile | None = None
) -> AsyncIterator[DockerEngine]:
    """An engine of an installation of its own, closed at the end; nothing of it may be left then."""
    memory: dict[str, str] = {}

    async def recall(key: str) -> str | None:
        return (ENFORCED if key == KEPT_AS else memory).get(key)

    async def remember(key: str, value: str) -> None:
        (ENFORCED if key == KEPT_AS else memory)[key] = value

    installation = secrets.token_hex(16)
    engine = DockerEngine(
        installation=installation,
        find=find_engine,
        image_of=lambda api, _environment: find_sandbox_image(api, read_image_files()),
        put_agent=lambda _api, _environment: None,
        profile=profile or SandboxProfile(),
        isolation=read_isolation(allowed=frozenset(probe.name for probe in PROBES)),
        channel_parent=parent,
        channel=channel,  # type: ignore[arg-type] # from a parameter
        clock=SystemClock(),
        recall=recall,
        remember=remember,
    )
    try:
        yield engine
    finally:
        await engine.close()
    with closing(api_client(find_engine())) as api:
        left = [*leaks.containers(api, installation), *leaks.files(parent)]
    assert not left, left


@asynccontextmanager
async def sandbox(engine: DockerEngine, pieces: Pieces) -> AsyncIterator[SavedSandbox]:
    """Claimed, and gone at the end."""
    image = await engine.prepare()
    row = SandboxRecord(
        id=secrets.token_hex(16),
        state=SandboxState.CREATING,
        uid=next(_UIDS),
        secret=secrets.token_hex(32),
        image=image.tag,
        handle=None,
        session=None,
        incarnation=0,
    )
    try:
        handle, agent = await engine.launch(row, image)
        await agent.claim("session", 1)
        yield SavedSandbox(agent, handle, pieces)
    finally:
        await asyncio.shield(engine.destroy(row.id))


Fresh = Callable[[], AbstractAsyncContextManager[SavedSandbox]]


def lose_connection(agent: AgentChannel) -> None:
    """As a network does: without a word."""
    assert agent._link is not None
    assert agent._link._transport is not None
    agent._link._transport.abort()


def _name_of(pid: str) -> str:
    """Of a process that lives."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, _, state = stat.partition("(")[2].rpartition(") ")
    return "" if state.startswith(("Z", "X")) else name


def statuses(saved: SaveReport) -> dict[str, str]:
    """Of each name."""
    return {row.name: row.status for row in saved.manifest.names}


def reasons(saved: SaveReport) -> dict[str, str]:
    """Why names were refused."""
    return {row.name: row.reason or "" for row in saved.manifest.names if row.status == "refused"}
