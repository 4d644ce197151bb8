"""Saves one session: what the next snapshot may leave out, how the last one went, and what is to be told of it."""

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, replace

from orchestrator.domain.errors import NamespaceLostError, OrchestratorError, SandboxLostError
from orchestrator.domain.plan import ContainerRow
from orchestrator.domain.ports import Agent, Clock, Saving
from orchestrator.domain.snapshot_ports import Pieces, SnapshotRecords
from orchestrator.domain.snapshots import (
    Manifest,
    SaveFailedError,
    SaveOrder,
    SaveReport,
    SnapshotDamagedError,
    SnapshotIntent,
    SnapshotNotFoundError,
    SnapshotRecord,
    SnapshotRefusedError,
    SnapshotVoidedError,
    StoredSnapshot,
)
from orchestrator.services.about import about
from orchestrator.services.bookkeeping import Bookkeeping
from orchestrator.services.saved_manifest import with_files, with_origins
from orchestrator.services.saving_limits import SavingLimits
from orchestrator.services.saving_log import SavingLog
from orchestrator.services.saving_notes import refused_names
from orchestrator.services.tasks import Tasks
from orchestrator.services.texts import Texts
from orchestrator.services.tidying import Tidying

logger = logging.getLogger(__name__)

_HOLD = 0.05  # seconds that a cell may wait for files to be read
_HOLD_FOR_FIRST = 5.0  # where the head's files cannot stand in for those that are not read
_BOUND_REPLACING = 30.0  # for files and an empty namespace, while the caller of a clear waits
_ENDED_BOUND = 30.0  # seconds for a save whose sandbox is gone, or that was abandoned; then it is cut short


@dataclass(frozen=True, slots=True)
class _Intended:
    order: SaveOrder
    began: float
    head_usable: bool


class Saver:
    """One session's snapshots, made by its queue's turn. One at a time; a failed one is never the end of anything."""

    def __init__(
        self,
        book: Bookkeeping,
        *,
        snapshots: SnapshotRecords,
        pieces: Pieces,
        tasks: Tasks,
        clock: Clock,
        limits: SavingLimits,
    ) -> None:
        self.key = book.session.key
        self.texts = Texts(self.key, pieces)
        self.log = SavingLog(self.key, clock)
        self._book = book
        self._snapshots = snapshots
        self._pieces = pieces
        self._tasks = tasks
        self._tidying = Tidying(self.key, pieces, tasks)
        self._clock = clock
        self._limits = limits
        self._record: SnapshotRecord | None = None
        self._looked = False
        self._files_through: int | None = None  # of the head, as far as is known
        self._environment = book.session.environment
        self._head_seed: int | None = None  # of the digests that the agent knows; None: it knows no head
        self._ended: deque[tuple[int, float]] = deque()  # unsaved executions, and when they ended
        self._task: asyncio.Task[None] | None = None
        self._saving: Saving | None = None
        self._found_gone: NamespaceLostError | SandboxLostError | None = None  # by a save in the background
        self._unwanted = False  # abandoned, be it before the agent had begun

    @property
    def head(self) -> int | None:
        """The head, as far as was looked."""
        return None if self._record is None else self._record.head

    @property
    def stands_at(self) -> int | None:
        """The last execution whose namespace the head holds, as far as was looked; None where it cannot be read."""
        known = self._record
        return None if known is None or known.head is None or known.head_execution < 0 else known.head_execution

    @property
    def saved_through(self) -> int | None:
        """The last execution of which the head holds all: files may have been given up where cells kept coming."""
        stands_at, files = self.stands_at, self._files_through
        return stands_at if stands_at is None or files is None else min(stands_at, files)

    @property
    def unsaved_since(self) -> float | None:
        """When the oldest unsaved execution ended."""
        return self._ended[0][1] if self._ended else None

    def found_gone(self) -> NamespaceLostError | SandboxLostError | None:
        """What a save in the background has found to be gone, told once."""
        found, self._found_gone = self._found_gone, None
        return found

    @property
    def container(self) -> ContainerRow:
        """What plans ask of the present container."""
        return replace(self.log.container, saving=self._task is not None)

    async def record(self) -> SnapshotRecord | None:
        """What the records know of the session's snapshots; they are asked once."""
        if not self._looked:
            self._record = await self._snapshots.snapshot_record(self.key)
            self._looked = True
        return self._record

    def executed(self, number: int) -> None:
        """An execution has ended, and may have changed something."""
        self._ended.append((number, self._clock.monotonic()))

    def begins(self, stored: StoredSnapshot | None, *, whole: bool, environment: str) -> None:
        """A sandbox holds what was stored and nothing else. Not `whole`: the agent does not know all of its pieces."""
        self._environment = environment
        self._files_through = None if stored is None else stored.manifest.files_execution
        if self._record is not None:  # it may be an older one than the head, which is damaged, or none at all
            self._record = replace(self._record, head_execution=-1 if stored is None else stored.manifest.execution)
        self._head_seed = stored.summary.seed if stored is not None and whole else None
        self._ended.clear()
        self._found_gone = None
        self.log.begins()

    def adopts(self, stored: StoredSnapshot | None, *, environment: str) -> None:
        """A sandbox of an earlier owner's goes on; the head, where it can be read, is `stored`.

        It may hold more than that, and know its pieces or not: an agent sends what it does not know to be in the very
        snapshot that is named to it.
        """
        covered = 0 if self._record is None or stored is None else self._record.head_activity
        self.begins(stored, whole=True, environment=environment)
        if self._book.session.activity > covered:
            self._ended.append((self._book.session.executions, self._clock.monotonic()))

    def replaced(self, intent: SnapshotIntent, stored: StoredSnapshot) -> None:
        """A clear, a rollback or a fork has made a head of its own."""
        self._note_head(intent, stored)
        self._head_seed = None
        self.log.forget()

    def cleared(self, *, files_stay: bool) -> None:
        """Nothing is left of what there was to tell. Files that stay in a sandbox may be newer than the head's."""
        self._ended.clear()
        if files_stay:
            self._ended.append((0, self._clock.monotonic()))
        self.log.forget()

    async def begin(self, agent: Agent) -> None:
        """Save in the background, as of now. What goes wrong becomes a note. Raises where it cannot be intended."""
        if self._task is not None:
            return
        intended = await self._intend(final=False, waited_for=False)
        self._task = self._tasks.spawn(self._in_background(intended, agent), f"save {self.key[:8]}")
        await asyncio.sleep(0)  # the task has run to its first wait by then: the agent's order is on its way

    async def save(
        self, agent: Agent, *, final: bool = False, replacing: SnapshotIntent | None = None
    ) -> StoredSnapshot:
        """Save and wait for it; `replacing` what was, where that is intended already. Raises what stood in the way."""
        await self.ended()
        try:
            # A session that hibernates keeps nobody waiting.
            intended = await self._intend(final=final, waited_for=not final, replacing=replacing)
            return await self._perform(intended, agent)
        except OrchestratorError as error:
            self.failed(error)
            raise
        finally:
            self._saving = None
            self._tidying.begin()

    def abandon(self) -> None:
        """Stop a save that is under way; `ended` waits for it."""
        self._unwanted = True
        if self._saving is not None:
            self._saving.abandon()

    async def ended(self) -> None:
        """Wait until no save is under way; for one that nobody wants any more not very long."""
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=_ENDED_BOUND if self._unwanted else None)
            if late:
                self.cut()
                await asyncio.wait(late)

    def cut(self) -> None:
        """End a save under way, whatever its sandbox does."""
        if self._task is not None:
            self._task.cancel()

    async def _intend(self, *, final: bool, waited_for: bool, replacing: SnapshotIntent | None = None) -> _Intended:
        began, self._unwanted = self._clock.monotonic(), False
        await self.record()
        session = self._book.session
        intent = replacing or await self._snapshots.intend_snapshot(session.key, session.incarnation)
        if intent is None:
            raise await self._book.refused()
        if replacing is None and (gone := self.found_gone()) is not None:
            raise gone  # what there is now must not pass for what there was before that is told
        usable = intent.head is not None and self._head_seed == intent.seed
        order = SaveOrder(
            intent=intent,
            environment=self._environment,
            head=intent.head if usable else None,
            variable_limit=self._limits.variable,
            session_limit=self._limits.session,
            compress=not waited_for,
            final=final,
            hold=_HOLD if usable else _HOLD_FOR_FIRST,
            bound=self._limits.bound if replacing is None else min(self._limits.bound, _BOUND_REPLACING),
            most_bytes=self._limits.most_bytes,
        )
        return _Intended(order, began, usable)

    async def _in_background(self, intended: _Intended, agent: Agent) -> None:
        try:
            await self._perform(intended, agent)
        except OrchestratorError as error:
            if isinstance(error, NamespaceLostError | SandboxLostError):
                self._found_gone = error
            self.failed(error)
        except Exception:
            logger.exception("saving failed", extra=about(self.key))
            self.failed(SaveFailedError("Something unexpected happened; it is in the log."))
        finally:
            self._saving = None
            self._task = None
            self._tidying.begin()

    async def _perform(self, intended: _Intended, agent: Agent) -> StoredSnapshot:
        # The agent first: it freezes the moment, and what it sends meanwhile waits in the window.
        saving = self._saving = await agent.save(intended.order)
        try:
            if self._unwanted:
                saving.abandon()
            await self.texts.write()
            async with await self._pieces.begin(intended.order.intent) as writer:
                async with aclosing(saving.pieces()) as pieces:
                    async for piece in pieces:
                        await writer.put(piece)
                report = await saving.report()
                stored = await writer.commit(await self._manifest(intended, report))
        finally:
            saving.abandon()
        try:
            is_head = await self._snapshots.snapshot_committed(self.key, stored)
        except BaseException:
            self._looked = False  # it may have happened
            raise
        if not is_head:
            raise SnapshotVoidedError("Something newer came before the snapshot.")
        self._note_head(intended.order.intent, stored)
        self._head_seed = intended.order.intent.seed
        self.log.saved(intended.began, report, stored)
        return stored

    async def _manifest(self, intended: _Intended, report: SaveReport) -> Manifest:
        head: Manifest | None = None
        if intended.head_usable and intended.order.intent.head is not None and not report.files_read:
            head = (await self._pieces.snapshot(self.key, intended.order.intent.head)).manifest
        manifest = with_files(report, head)
        refused = [name.name for name in refused_names(manifest.names)]
        bound = await self._book.binding_executions(refused) if refused else {}
        return with_origins(manifest, bound, await self.texts.codes(set(bound.values())))

    # how it went

    def _note_head(self, intent: SnapshotIntent, stored: StoredSnapshot) -> None:
        sequence, execution = stored.summary.sequence, stored.manifest.execution
        self._files_through = stored.manifest.files_execution
        since = sequence if intent.replaces or self._record is None else self._record.since
        self._record = SnapshotRecord(self.key, sequence, None, sequence, execution, intent.activity, since)
        self._looked = True
        while self._ended and self._ended[0][0] <= execution:
            self._ended.popleft()
        if stored.manifest.files_execution < execution:
            self._ended.appendleft((execution, self._clock.monotonic()))  # its files are still to be saved

    def failed(self, error: OrchestratorError) -> None:
        """It was not saved: told, and tried again later; of one that was abandoned there is nothing to tell."""
        if self._unwanted and isinstance(error, SaveFailedError):
            return
        if isinstance(error, SnapshotRefusedError | SnapshotDamagedError | SnapshotNotFoundError):
            self._head_seed = None  # everything is sent next time
        self.log.failed(error, self.saved_through)
