"""One snapshot on its way into its file."""

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

from orchestrator.adapters.store.pieces import commits, rows
from orchestrator.adapters.store.pieces.commits import Keeping, Parcel
from orchestrator.adapters.store.pieces.file import Place
from orchestrator.adapters.store.pieces.known import Known, in_either
from orchestrator.adapters.store.pieces.manifest_rows import Located, packed
from orchestrator.adapters.store.pieces.turns import Turns
from orchestrator.domain.manifests import is_digest
from orchestrator.domain.ports import Clock
from orchestrator.domain.snapshot_ports import SnapshotWriter
from orchestrator.domain.snapshots import (
    MAX_PIECE_BYTES,
    Manifest,
    Piece,
    SnapshotIntent,
    SnapshotNotFoundError,
    SnapshotVoidedError,
    StoredSnapshot,
)

# Of stored bytes in one transaction. Each costs four fsyncs, so that 4 MiB reach two thirds of the speed of 16, and 16
# three quarters of that of all at once, which 32 reach (tests/bench/bench_pieces.py). Two of them, one filled while the
# other is written, are what a snapshot of any size takes of memory.
BATCH_BYTES: Final = 32 * 1024 * 1024
# What is there is written at once where nothing else is: the disk begins early, and little is left for the end. With 8
# MiB a save of 100 MB took a twentieth longer.
LEAST_BYTES: Final = 4 * 1024 * 1024
BATCH_PIECES: Final = 4_096

T = TypeVar("T")


class SqliteSnapshotWriter(SnapshotWriter):
    """Made by `SqlitePieces.begin`; `is_voided` says that something newer came first."""

    def __init__(
        self,
        *,
        turns: Turns,
        place: Place,
        intent: SnapshotIntent,
        clock: Clock,
        keeping: Callable[[], Keeping],
        ended: Callable[["SqliteSnapshotWriter"], None],
    ) -> None:
        self.intent = intent
        self.is_voided = False
        self._turns = turns
        self._place = place
        self._clock = clock
        self._keeping = keeping
        self._tell_end = ended
        self._ground = commits.NOTHING
        self._sent = Known()
        self._batch: list[Piece] = []
        self._batch_bytes = 0
        self._flight: asyncio.Future[dict[str, Located]] | None = None
        self._is_ended = False

    async def open(self) -> None:
        """Make or clear the file, and find out what may be shared."""
        self._ground, cleared = await self._turn(partial(commits.begin, self._place, self.intent))
        while cleared.more:
            cleared = await self._turn(partial(rows.make_room, self._place))

    async def put(self, piece: Piece) -> None:
        """Take a piece."""
        self._require_current()
        _require_caps(piece)
        self._batch.append(piece)
        self._batch_bytes += len(piece.data)
        is_idle = self._flight is None or self._flight.done()
        enough = min(LEAST_BYTES, BATCH_BYTES) if is_idle else BATCH_BYTES
        if self._batch_bytes >= enough or len(self._batch) >= BATCH_PIECES:
            try:
                await self._launch()
            except BaseException:
                await self.abort()
                raise

    async def commit(self, manifest: Manifest) -> StoredSnapshot:
        """Make all of it visible."""
        self._require_current()
        try:
            await self._land()
            rest, self._batch = self._batch, []
            parcel = Parcel(self.intent, manifest, rest, self._sent, self._ground, self._clock.now())
            row = await self._turn(partial(commits.commit, self._place, parcel, self._keeping()))
        finally:
            await self.abort()
        return row.stored

    async def abort(self) -> None:
        """End without a commit; awaits nothing."""
        self._is_ended = True
        self._batch = []
        self._tell_end(self)

    async def __aenter__(self) -> Self:
        """The writer."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort."""
        await self.abort()

    async def _launch(self) -> None:
        """Write the batch while the next one fills; waits for the one before."""
        await self._land()
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        find = in_either(self._sent, self._ground.history)  # what was sent grows only between two flights
        self._flight = self._turns.take(self.intent.key, "write", partial(rows.store, self._place, batch, find))

    async def _land(self) -> None:
        if self._flight is not None:
            located = await _or_voided(self._flight)
            self._flight = None
            # The first of a digest stays, for a manifest that was written with it in mind.
            for piece in located.values():
                self._sent.add(packed(piece))

    async def _turn(self, work: Callable[[], T]) -> T:
        return await _or_voided(self._turns.take(self.intent.key, "write", work))

    def _require_current(self) -> None:
        if self.is_voided:
            raise SnapshotVoidedError(f"Something newer than snapshot {self.intent.sequence} came first.")
        if self._is_ended:
            raise SnapshotVoidedError(f"Snapshot {self.intent.sequence} has ended.")


def _require_caps(piece: Piece) -> None:
    if len(piece.data) > MAX_PIECE_BYTES or not 0 <= piece.raw_size <= MAX_PIECE_BYTES:
        raise ValueError(
            f"a piece of {len(piece.data)} bytes for {piece.raw_size} is over its cap of {MAX_PIECE_BYTES}"
        )
    if not is_digest(piece.raw_digest):
        raise ValueError("a piece's raw digest is none")


async def _or_voided(turn: "asyncio.Future[T]") -> T:
    try:
        return await turn
    except SnapshotNotFoundError as error:
        # It was there when this snapshot began.
        raise SnapshotVoidedError("The session's snapshots were deleted while one was being written.") from error
