"""Where snapshots lie. Each docstring is the contract: who calls when, concurrency, idempotence, errors, cancellation.

A snapshot is made in three steps, by the worker of its session: *intended* in the records, written and committed in the
session's own file, made *head* in the records. Only the head counts. What a crash leaves between two steps is adopted
by recovery (which may adopt only the intended one), or dropped by the next snapshot.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from orchestrator.domain.model import CellText
from orchestrator.domain.snapshots import (
    Collected,
    DamagedPiece,
    History,
    Manifest,
    Piece,
    SavedListing,
    SavedName,
    SnapshotCheck,
    SnapshotIntent,
    SnapshotRecord,
    StoredSizes,
    StoredSnapshot,
)


class SnapshotWriter(Protocol):
    """One snapshot on its way into its session's file. For one caller; its calls do not overlap.

    Nothing of it is seen before `commit` has returned. A call that raises or is cancelled ends the writer: what is left
    is `abort`, which the end of `async with` calls. Raises SnapshotVoidedError once something newer has come first (a
    later `begin`, `restate` or `delete` of the session), StoreFullError below the floor of free disk or without room.
    """

    async def put(self, piece: Piece) -> None:
        """Take a piece; its raw digest need not be new. Holds a few batches of some MiB in memory, and waits for the
        disk when there are more. ValueError where it is over its caps: check a frame before.
        """

    async def commit(self, manifest: Manifest) -> StoredSnapshot:
        """Make all of it visible in one durable transaction, and trim the history.

        Raises SnapshotRefusedError where the manifest is of another snapshot than the intended one, or refers to a raw
        digest that was neither put nor is in the head that the intent names. Cancelled, it has happened or not: the
        records' intent stands, and recovery's way (`snapshot` of the intended one, then adopt) tells.
        """

    async def abort(self) -> None:
        """End without a commit; its pieces are collected by the next snapshot. Idempotent; harmless after a commit."""

    async def __aenter__(self) -> Self:
        """The writer."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort."""


class SnapshotReader(Protocol):
    """A snapshot being read; it stays whole while it is open, whatever is written and collected beside it."""

    @property
    def snapshot(self) -> StoredSnapshot:
        """The one that is read."""

    @property
    def skipped(self) -> Sequence[int]:
        """Newer sequences that were passed over because their manifests are damaged or gone; the caller says so."""

    def pieces(self, raw_digests: Sequence[str] | None = None) -> AsyncGenerator[Piece | DamagedPiece, None]:
        """The snapshot's pieces in their order, or those named, each verified by the host's digest; a damaged one is
        named in its place. Bounded memory; no lock is held while the caller does something else, for however long.

        For `aclosing`, where it may be left early. After a damaged piece the agent's next save must be told of no head,
        so that it sends the piece again. Raises SnapshotNotFoundError once the session's file was deleted, ValueError
        for a digest that the snapshot does not refer to.
        """

    async def close(self) -> None:
        """Let the snapshot go. Idempotent."""

    async def __aenter__(self) -> Self:
        """The reader."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class Pieces(Protocol):
    """Content-addressed pieces, manifests and the text of cells, a file for each session, whose key is never used
    again.

    Calls may run concurrently. Those on one session take short turns, first come first served, so that a reader beside
    a writer waits for one batch and never fails; sessions do not wait for one another. A method is atomic: cancelled
    before its turn it never happens, afterwards it runs to its end. All raise StoreFullError, StoreUnusableError for a
    file that is not ours or damaged beyond reading, and ShuttingDownError after `close`. Pieces are never shared
    between sessions.
    """

    async def begin(self, intent: SnapshotIntent) -> SnapshotWriter:
        """Start writing the snapshot that the records intend; voids an earlier writer of the session. The agent is told
        the intent's seed, and of the head's raw digests where those were made under the same.

        Drops what earlier ones left: pieces that nothing refers to, and snapshots newer than the head that the intent
        names. Makes the file of a session that has none. Raises SnapshotVoidedError where the session was deleted or
        its file holds a snapshot of this or a later sequence that is head.
        """

    async def restate(
        self, intent: SnapshotIntent, source: int | None, *, namespace: bool = True, workspace: bool = True
    ) -> StoredSnapshot:
        """Commit a snapshot that holds again what `source` does: both halves (rollback), or the files alone (clear).

        None holds nothing. Voids a writer, as `begin` does; works below the floor of free disk, since it stores no
        pieces. Raises SnapshotNotFoundError, and SnapshotDamagedError where the source's manifest is damaged.
        """

    async def fork(self, key: str, sequence: int, intent: SnapshotIntent) -> StoredSnapshot:
        """Commit a copy of another session's snapshot as the intended one.

        Every piece is verified on the way and hashed anew. The agent's digests stay, with the seed that they were made
        under (`summary.seed`), so the first save after a fork sends everything. Raises SnapshotNotFoundError, and
        SnapshotDamagedError where anything of it is damaged.
        """

    async def open_snapshot(self, key: str, sequence: int, *, since: int | None = None) -> SnapshotReader:
        """Read that snapshot; where its manifest is damaged or gone, the newest intact one before it, not older than
        `since` (None: that one or none). Raises SnapshotNotFoundError, SnapshotDamagedError where none is intact.
        """

    async def snapshot(self, key: str, sequence: int) -> StoredSnapshot:
        """That snapshot's manifest. Raises SnapshotNotFoundError, SnapshotDamagedError."""

    async def history(self, key: str, head: int) -> History:
        """The snapshots up to the head, each verified but for its pieces; empty where there is no file."""

    async def note_cells(self, key: str, cells: Sequence[CellText]) -> None:
        """Keep the text of those executions, all or none; for after their answers, and several at once, since it costs
        a few waits for the disk. Makes the file of a session that has none; takes a turn beside a writer and leaves it
        be. The same number again replaces. Keeps the newest 200 executions, and of these the newest 10 MB. A crash of
        the host may undo it. Raises SnapshotVoidedError where the session was deleted.
        """

    async def cells(self, key: str, numbers: Sequence[int] | None = None) -> Sequence[CellText]:
        """Of those executions, or of all, the texts that are kept, oldest first; a damaged one is left out."""

    async def collect(self, key: str) -> Collected:
        """One step of some ten MiB: drop pieces that nothing refers to, and give free pages back to the disk. For the
        session's worker when it is idle, while `more`. Does nothing while a snapshot is being written.
        """

    async def sizes(self, key: str) -> StoredSizes:
        """What the session takes; zeros where there is no file."""

    async def file_bytes(self, keys: Iterable[str]) -> int:
        """What the files of those sessions take on the disk, now: cheap, whatever is in them."""

    async def check(self, key: str, head: int | None) -> SnapshotCheck:
        """Read everything and verify it: the file's structure, every digest, every reference, every cell's text, and
        that the head is there. Takes turns with others, so it may run at any time; a snapshot that leaves meanwhile is
        no problem.
        """

    async def delete(self, key: str) -> None:
        """Unlink the session's file; voids a writer, ends readers, and no later call makes the file again. Idempotent;
        absent is success.
        """

    async def keys(self) -> frozenset[str]:
        """The sessions that have a file, so that recovery finds those without a row."""

    async def set_aside(self, keys: Iterable[str]) -> None:
        """Move the files of those sessions, which no records know, where no other call finds them. Idempotent."""

    async def aside(self) -> Sequence[str]:
        """What lies there, by names that people can follow."""

    async def drop_aside(self, name: str) -> None:
        """Delete what lies there under that name, for good. Idempotent; absent is success."""

    async def close(self) -> None:
        """Finish what was begun and end the threads. Idempotent."""


class SnapshotRecords(Protocol):
    """The records' side: which snapshot is intended, and which is head. Rules as for `Records`: one transaction each,
    None or False where the row is not in a state, or of an incarnation, that allows the change.
    """

    async def snapshot_record(self, key: str) -> SnapshotRecord | None:
        """What is known of a session's snapshots; None where there never was one."""

    async def snapshot_records(self) -> Sequence[SnapshotRecord]:
        """All of them, for recovery and for planning."""

    async def saved_listing(self, tenant: str, session_id: str) -> SavedListing | None:
        """What the head of that session holds; None where it has no head, or there is no such session."""

    async def saved_listing_of(self, key: str) -> SavedListing | None:
        """The same for the worker that found the session, in any state."""

    async def head_refused(self, key: str) -> Sequence[SavedName]:
        """The names of that listing that the head could not hold, each with its reason; none without a head."""

    async def intend_snapshot(self, key: str, incarnation: int) -> SnapshotIntent | None:
        """Raise the sequence and intend a snapshot of what the session holds now, in place of one that was intended.

        Guarded: `ready` or `snapshotting`, of this incarnation, and no execution is open, so that the snapshot's last
        execution is the session's.
        """

    async def intend_replacement(self, key: str, incarnation: int) -> SnapshotIntent | None:
        """The same before a rollback, a clear or an import: it counts as `activity`, and its head is the only one of
        the session that comes back by itself. When it becomes head, the names and the variable count become its own,
        an untold loss is forgotten, and no execution before it is ever told as lost: it was replaced on purpose.
        Guarded: `ready`, `snapshotting` or asleep (lifecycle.py), and no execution is open; an inactive or expired
        session is `hibernated` again. Call it before anything is changed,
        `snapshot_committed` before the answer.
        """

    async def snapshot_committed(self, key: str, stored: StoredSnapshot) -> bool:
        """Make the intended snapshot head. False where it is no longer the intended one (a later one, a takeover, a
        replacement), or the session is of another incarnation or being destroyed: it then never comes back.
        Calls may have come in since it was intended; what it covers is the activity that the intent saw.
        """

    async def adopt_snapshot(self, key: str, stored: StoredSnapshot) -> bool:
        """For recovery, by the owner that has just taken over the data directory, and before `Records.recover`, which
        then tells as lost only what came after this head: make head a snapshot found committed in the file. Guarded:
        exactly the one that the records intend, of the session's present incarnation, in any state but `destroying`.
        """

    async def void_snapshots(self, key: str, incarnation: int) -> bool:
        """A savepoint took over, or nobody knows what became of a snapshot: raise the sequence, so that none in flight
        becomes head. Guarded by the incarnation; harmless where none is in flight.
        """

    async def hibernate_saved(self, key: str, incarnation: int, activity: int) -> bool:
        """Guarded change to `hibernated` of a session whose head covers all: its sandbox may be removed afterwards.

        Guarded: `ready` or `snapshotting`, of this incarnation, its activity still the one that the caller saw, no
        execution open, and the head covers that activity.
        """
