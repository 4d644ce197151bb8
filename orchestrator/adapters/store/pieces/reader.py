"""A snapshot being read back, batch by batch."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self

from orchestrator.adapters.store.pieces import rows
from orchestrator.adapters.store.pieces.file import Place
from orchestrator.adapters.store.pieces.manifest_rows import Located, ManifestRow
from orchestrator.adapters.store.pieces.turns import Turns
from orchestrator.domain.errors import ShuttingDownError
from orchestrator.domain.snapshot_ports import SnapshotReader
from orchestrator.domain.snapshots import DamagedPiece, Piece, StoredSnapshot

BATCH_BYTES: Final = 8 * 1024 * 1024  # read in a turn; one more is read ahead
FIRST_BYTES: Final = 1024 * 1024  # so that the sandbox has something to load while the rest is read


class SqliteSnapshotReader(SnapshotReader):
    """Made by `SqlitePieces.open_snapshot`, which keeps the snapshot from being trimmed until `release`."""

    def __init__(
        self,
        turns: Turns,
        key: str,
        place: Place,
        found: tuple[ManifestRow, Sequence[int]],
        release: Callable[[], None],
    ) -> None:
        self._turns = turns
        self._key = key
        self._place = place
        self._row, self._skipped = found
        self._release = release
        self._is_closed = False

    @property
    def snapshot(self) -> StoredSnapshot:
        """The one that is read."""
        return self._row.stored

    @property
    def skipped(self) -> Sequence[int]:
        """Those passed over."""
        return self._skipped

    async def pieces(self, raw_digests: Sequence[str] | None = None) -> AsyncGenerator[Piece | DamagedPiece, None]:
        """The pieces, verified."""
        pending: deque[asyncio.Future[list[Piece | DamagedPiece]]] = deque()
        try:
            for batch in rows.batches(self._wanted(raw_digests), BATCH_BYTES, first=FIRST_BYTES):
                self._require_open()
                pending.append(self._turns.take(self._key, "read", partial(rows.fetch, self._place, batch)))
                if len(pending) > 1:
                    for piece in await pending.popleft():
                        yield piece
            for last in pending:
                for piece in await last:
                    yield piece
        finally:
            for unread in pending:
                unread.cancel()

    def _wanted(self, raw_digests: Sequence[str] | None) -> Sequence[Located]:
        located = self._row.located
        if raw_digests is None:
            return located
        by_digest = {piece.reference.raw_digest: piece for piece in located}
        strange = [raw_digest for raw_digest in raw_digests if raw_digest not in by_digest]
        if strange:
            raise ValueError(f"snapshot {self._row.summary.sequence} holds no piece {strange[0]}")
        return [by_digest[raw_digest] for raw_digest in raw_digests]

    async def close(self) -> None:
        """Let the snapshot go; awaits nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._release()

    async def __aenter__(self) -> Self:
        """The reader."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ShuttingDownError("This snapshot is no longer read.")
