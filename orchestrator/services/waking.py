"""Brings a session's snapshot back into a sandbox, and says what did not come."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from orchestrator.domain.ports import Agent
from orchestrator.domain.snapshot_ports import Pieces, SnapshotReader
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Piece,
    RestoreOrder,
    RestoreReport,
    SaveFailedError,
    Section,
    SectionName,
    SnapshotRecord,
    StoredSnapshot,
)
from orchestrator.services.saving_notes import (
    files_note,
    foreign_notes,
    pairs_note,
    refused_names,
    refused_notes,
    skipped_note,
)

BOTH: Sequence[SectionName] = ("workspace", "namespace")
NAMESPACE: Sequence[SectionName] = ("namespace",)
# How careful each try is, after as many groups that ended the worker: in the end only plain values are loaded, so that
# what else is there costs a session no more than itself.
_SPARED = 3  # groups that are tried once more after the worker was killed, perhaps from outside
TRIES = (0,) * 8 + (1,) * 5 + (2,) * 3


@dataclass(slots=True)
class Woken:
    """How it went."""

    stored: StoredSnapshot
    skipped: tuple[int, ...]  # newer snapshots that are damaged
    with_files: bool  # and not the namespace alone
    whole: bool = True  # every piece was intact
    reports: dict[SectionName, RestoreReport] = field(default_factory=dict)

    def notes(self, wanted: int, *, python: str, environment: str) -> tuple[str, ...]:
        """What the caller of this wake is told; nothing where all came back where it was."""
        namespace, workspace = self.reports.get("namespace"), self.reports.get("workspace")
        notes = [
            *skipped_note(wanted, self.stored, self.skipped),
            *(files_note(self.stored.manifest) if self.with_files else ()),
        ]
        notes += foreign_notes(self.stored, python, environment)
        notes += refused_notes(refused_names(self.stored.manifest.names))
        if namespace is not None:
            notes += pairs_note("Not restored", namespace.lost)
            notes += pairs_note("Not restored of the process", namespace.state_lost)
        if workspace is not None:
            notes += pairs_note("Files not restored", workspace.lost)
        return tuple(notes)


async def wake(
    agent: Agent, pieces: Pieces, record: SnapshotRecord, *, sections: Sequence[SectionName], bound: float
) -> Woken:
    """Restore the head, or the newest intact snapshot that may stand in for it, into a fresh worker.

    `bound` in seconds for each group of values. Raises SnapshotNotFoundError and SnapshotDamagedError where no
    snapshot can be read, StoreUnusableError where the file can't; SaveFailedError and SandboxLostError where the
    sandbox is of no use any more.
    """
    if record.head is None:
        raise AssertionError("a session without a head has nothing to wake")
    async with await pieces.open_snapshot(record.session, record.head, since=record.since) as reader:
        stored = reader.snapshot
        woken = Woken(stored, tuple(reader.skipped), "workspace" in sections)
        contents: dict[SectionName, Section] = {
            "workspace": stored.manifest.workspace,
            "namespace": stored.manifest.namespace,
        }
        for name in sections:
            if contents[name].body:
                woken.reports[name] = await _section(agent, reader, woken, contents[name], name=name, bound=bound)
    return woken


async def _section(
    agent: Agent, reader: SnapshotReader, woken: Woken, section: Section, *, name: SectionName, bound: float
) -> RestoreReport:
    quarantined: dict[int, str] = {}
    spared: set[int] = set()
    seed, sequence = woken.stored.summary.seed, woken.stored.summary.sequence
    for careful in TRIES:
        order = RestoreOrder(sequence, name, section.body, seed, bound, dict(quarantined), careful)
        report = await _tried(agent, reader, woken, section, order)
        while (
            report.crashed is not None and report.killed and report.crashed[0] not in spared and len(spared) < _SPARED
        ):
            spared.add(report.crashed[0])
            report = await _tried(agent, reader, woken, section, order)
        if report.crashed is None:
            return report
        group, why = report.crashed
        if group in quarantined:
            break
        quarantined[group] = why
    raise SaveFailedError(
        "The saved values end every process that loads them.",
        hint="Clear the session, or roll it back to an earlier snapshot.",
    )


async def _tried(
    agent: Agent, reader: SnapshotReader, woken: Woken, section: Section, order: RestoreOrder
) -> RestoreReport:
    async with aclosing(_noted(reader, section, woken)) as pieces:
        return await agent.restore(order, pieces)


async def _noted(reader: SnapshotReader, section: Section, woken: Woken) -> AsyncGenerator[Piece | DamagedPiece, None]:
    """The pieces of a section; that one is damaged is remembered."""
    if not section.pieces:
        return
    async with aclosing(reader.pieces(section.pieces)) as pieces:
        async for piece in pieces:
            if isinstance(piece, DamagedPiece):
                woken.whole = False
            yield piece
