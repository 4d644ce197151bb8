"""`Pieces` over one SQLite file for each session: who may write, what is being read, what was deleted."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from orchestrator.adapters.store.pieces import aside as strays
from orchestrator.adapters.store.pieces import cells as texts
from orchestrator.adapters.store.pieces import commits, copying, file, rows
from orchestrator.adapters.store.pieces.check import check as checked
from orchestrator.adapters.store.pieces.commits import Copy, Keeping
from orchestrator.adapters.store.pieces.copying import Known
from orchestrator.adapters.store.pieces.file import Place
from orchestrator.adapters.store.pieces.manifest_rows import restated
from orchestrator.adapters.store.pieces.reader import SqliteSnapshotReader
from orchestrator.adapters.store.pieces.turns import Turns
from orchestrator.adapters.store.pieces.writer import SqliteSnapshotWriter
from orchestrator.domain.model import CellText
from orchestrator.domain.ports import Clock
from orchestrator.domain.snapshot_ports import Pieces, SnapshotReader, SnapshotWriter
from orchestrator.domain.snapshots import (
    Collected,
    DamagedPiece,
    History,
    SnapshotCheck,
    SnapshotDamagedError,
    SnapshotIntent,
    SnapshotNotFoundError,
    SnapshotVoidedError,
    StoredSizes,
    StoredSnapshot,
)

DIRECTORY_NAME: Final = "sessions"  # in the data directory
# Remembered, so that a snapshot that comes late does not make a deleted session's file again. One that comes later than
# this many other deletes leaves a file that the next recovery finds by `keys`.
_REMEMBERED_DELETES: Final = 10_000
_DIRECTORY_TURN: Final = ""  # turns on no session's file
# A commit must not push out the head that the records still name: they may refuse the new one.
_FEWEST_SNAPSHOTS: Final = 2
_EVER: Final = range(2**62)


@dataclass(frozen=True, slots=True)
class PiecesPolicy:
    """What is kept, and how far it may grow."""

    history: int = 5
    """Snapshots that a session keeps, its head included; at least 2, since the head stays until the next one is."""
    floor_bytes: int = 512 * 1024 * 1024
    """Free disk below which snapshots are refused, so that records and other programs go on."""
    limit_bytes: int | None = None
    """The size that a session's file may reach; None: what the disk holds."""


@asynccontextmanager
async def open_pieces(data_directory: Path, clock: Clock, policy: PiecesPolicy) -> AsyncIterator["SqlitePieces"]:
    """The pieces in that data directory, closed at the end. Files are made when sessions need them."""
    pieces = SqlitePieces(data_directory / DIRECTORY_NAME, clock, policy)
    try:
        yield pieces
    finally:
        await pieces.close()


class SqlitePieces(Pieces):
    """`Pieces`; made by `open_pieces`. Its own state is only touched on the loop, between awaits."""

    def __init__(self, directory: Path, clock: Clock, policy: PiecesPolicy) -> None:
        self._directory = directory
        self._clock = clock
        self._policy = policy
        self._turns = Turns(clock)
        self._writers: dict[str, SqliteSnapshotWriter] = {}
        self._reading: dict[str, list[range]] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._backups = 0  # under way: no snapshot is trimmed meanwhile, since their records may name it as head

    async def begin(self, intent: SnapshotIntent) -> SnapshotWriter:
        """Start writing the intended snapshot."""
        self._void(intent.key)
        self._require_standing(intent.key)
        writer = SqliteSnapshotWriter(
            turns=self._turns,
            place=self._place(intent.key),
            intent=intent,
            clock=self._clock,
            keeping=partial(self._keeping, intent.key),
            ended=self._ended,
        )
        self._writers[intent.key] = writer
        try:
            await writer.open()
        except BaseException:
            await writer.abort()
            raise
        return writer

    async def restate(
        self, intent: SnapshotIntent, source: int | None, *, namespace: bool = True, workspace: bool = True
    ) -> StoredSnapshot:
        """Commit again what `source` holds."""
        self._void(intent.key)
        self._require_standing(intent.key)
        copy = Copy(intent, source, namespace=namespace, workspace=workspace, created_at=self._clock.now())
        place = replace(self._place(intent.key), floor_bytes=0)
        row = await self._turns.take(
            intent.key, "write", partial(commits.restate, place, copy, self._keeping(intent.key))
        )
        return row.stored

    async def fork(self, key: str, sequence: int, intent: SnapshotIntent) -> StoredSnapshot:
        """Commit a copy of another session's snapshot."""
        async with await self.open_snapshot(key, sequence) as reader:
            # The agent's digests are copied as they are, and can only be verified under the seed that made them.
            own = replace(intent, seed=reader.snapshot.summary.seed)
            async with await self.begin(own) as writer:
                return await _copied(reader, writer, intent)

    async def open_snapshot(self, key: str, sequence: int, *, since: int | None = None) -> SnapshotReader:
        """Read that snapshot, or the newest intact one before it."""
        place = self._place(key)
        # Before its turn comes, so that no commit trims it between this turn and the reader's.
        let_range_go = self._hold(key, range(sequence if since is None else since, sequence + 1))
        try:
            found = await self._turns.take(key, "read", partial(commits.find, place, sequence, since))
            taken = found[0].summary.sequence
            return SqliteSnapshotReader(
                self._turns, key, place, found, release=self._hold(key, range(taken, taken + 1))
            )
        finally:
            let_range_go()

    async def snapshot(self, key: str, sequence: int) -> StoredSnapshot:
        """That snapshot's manifest."""
        row, _ = await self._turns.take(key, "read", partial(commits.find, self._place(key), sequence, None))
        return row.stored

    async def history(self, key: str, head: int) -> History:
        """The snapshots up to the head, newest first."""
        try:
            intact, damaged = await self._turns.take(key, "read", partial(commits.history, self._place(key), head))
        except SnapshotNotFoundError:
            return History((), ())
        return History(tuple(intact), tuple(damaged))

    async def note_cells(self, key: str, cells: Sequence[CellText]) -> None:
        """Keep the text of those executions."""
        self._require_standing(key)
        if cells:
            await self._turns.take(key, "write", partial(texts.note, self._place(key), tuple(cells)))

    async def cells(self, key: str, numbers: Sequence[int] | None = None) -> Sequence[CellText]:
        """The texts that are kept."""
        wanted = None if numbers is None else frozenset(numbers)
        try:
            return await self._turns.take(key, "read", partial(texts.read, self._place(key), wanted))
        except SnapshotNotFoundError:
            return ()

    async def collect(self, key: str) -> Collected:
        """Drop some of what nothing refers to, and shorten the file."""
        nothing = Collected(0, 0, 0, more=False)
        if key in self._writers:  # what it has put is referred to by nothing yet
            return nothing
        try:
            return await self._turns.take(key, "write", partial(rows.collect, self._place(key)))
        except SnapshotNotFoundError:
            return nothing

    async def sizes(self, key: str) -> StoredSizes:
        """What the session takes."""
        try:
            return await self._turns.take(key, "read", partial(rows.sizes, self._place(key)))
        except SnapshotNotFoundError:
            return StoredSizes(0, 0, 0, 0)

    async def file_bytes(self, keys: Iterable[str]) -> int:
        """What the files of those sessions take."""
        places = [self._place(key).path for key in keys]
        return await self._turns.take(_DIRECTORY_TURN, "read", partial(file.bytes_of, places))

    async def check(self, key: str, head: int | None) -> SnapshotCheck:
        """Verify everything."""
        let_go = self._hold(key, _EVER)
        try:
            return await checked(self._turns, key, self._place(key), head)
        finally:
            let_go()

    async def delete(self, key: str) -> None:
        """Unlink the session's file."""
        place = self._place(key)
        self._void(key)
        self._deleted[key] = None
        if len(self._deleted) > _REMEMBERED_DELETES:
            self._deleted.popitem(last=False)
        await self._turns.take(key, "write", partial(file.unlink, place.path))

    async def keys(self) -> frozenset[str]:
        """The sessions that have a file."""
        return await self._turns.take(_DIRECTORY_TURN, "read", partial(file.keys_in, self._directory))

    async def set_aside(self, keys: Iterable[str]) -> None:
        """Move the files of those sessions."""
        work = partial(strays.set_aside, self._directory, tuple(keys), self._clock.now())
        await self._turns.take(_DIRECTORY_TURN, "write", work)

    async def aside(self) -> Sequence[str]:
        """What lies there."""
        return await self._turns.take(_DIRECTORY_TURN, "read", partial(strays.listed, self._directory))

    async def drop_aside(self, name: str) -> None:
        """Delete what lies there under that name."""
        await self._turns.take(_DIRECTORY_TURN, "write", partial(strays.drop, self._directory, name))

    @contextmanager
    def untrimmed(self) -> Iterator[None]:
        """Every snapshot that is there stays, of all sessions, until the block ends."""
        self._backups += 1
        try:
            yield
        finally:
            self._backups -= 1

    async def copy(self, key: str, target: Path, known: Known) -> None:
        """Copy the session's file in one turn, less what `known` does not know of. Raises SnapshotNotFoundError."""
        await self._turns.take(key, "read", partial(copying.copy, self._place(key), target, known))

    async def close(self) -> None:
        """Finish what was begun."""
        await self._turns.close()

    def _place(self, key: str) -> Place:
        return Place(file.path_of(self._directory, key), self._policy.floor_bytes, self._policy.limit_bytes)

    def _void(self, key: str) -> None:
        """What was being written is overtaken: none of its later turns happens."""
        writer = self._writers.pop(key, None)
        if writer is not None:
            writer.is_voided = True

    def _ended(self, writer: SqliteSnapshotWriter) -> None:
        if self._writers.get(writer.intent.key) is writer:
            del self._writers[writer.intent.key]

    def _require_standing(self, key: str) -> None:
        if key in self._deleted:
            raise SnapshotVoidedError("The session was deleted.")

    def _keeping(self, key: str) -> Keeping:
        held = tuple(self._reading.get(key, ()))
        kept = max(_FEWEST_SNAPSHOTS, self._policy.history)
        return Keeping(kept, is_read=lambda sequence: self._backups > 0 or any(sequence in span for span in held))

    def _hold(self, key: str, span: range) -> Callable[[], None]:
        """Keep those snapshots from being trimmed until the answer is called."""
        held = self._reading.setdefault(key, [])
        held.append(span)

        def let_go() -> None:
            held.remove(span)
            if not held and self._reading.get(key) is held:
                del self._reading[key]

        return let_go


async def _copied(reader: SnapshotReader, writer: SnapshotWriter, intent: SnapshotIntent) -> StoredSnapshot:
    source = reader.snapshot.manifest
    async with aclosing(reader.pieces()) as pieces:
        async for piece in pieces:
            if isinstance(piece, DamagedPiece):
                raise SnapshotDamagedError(
                    f"Piece {piece.raw_digest} of snapshot {source.sequence} is damaged: {piece.reason}.",
                    hint="Fork another snapshot of that session.",
                )
            await writer.put(piece)
    return await writer.commit(restated(source, intent, whole=True))
