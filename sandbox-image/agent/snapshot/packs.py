"""Small things side by side in common streams, so that ten thousand of them are not ten thousand pieces."""

from collections.abc import Sequence
from typing import Any

from agent import pristine
from agent.snapshot.pieces import PieceWriter

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

PACK = 256 * 1024  # bytes; what is larger has a stream of its own
_ENDS = 16  # one label in so many ends its pack: a new one moves few others from their places


class PackWriter:
    """Fills packs and cuts them into pieces, in the order in which a restore wants these."""

    def __init__(self, pieces: PieceWriter) -> None:
        self._pieces = pieces
        self._parts: list[Any] = []
        self._size = 0
        self.packs: list[list[int]] = []

    def add(self, parts: Sequence[Any], size: int) -> list[int]:
        """Where the bytes lie: pack, offset, size."""
        if size >= PACK:
            self.close()
        place = [len(self.packs), self._size, size]
        self._parts += parts
        self._size += size
        return place

    def added(self, label: str) -> None:
        """End the pack where it is full, or where this label says so."""
        text = label.encode("utf-8", "surrogatepass")
        if self._size >= PACK or int(self._pieces.digest(text), 16) % _ENDS == 0:
            self.close()

    def close(self) -> None:
        """End the pack that is being filled."""
        if self._parts:
            self.packs.append(self._pieces.write_parts(self._parts))
            self._parts, self._size = [], 0
