"""Bytes in pieces: cut, named by their digest, packed where that pays, and put together again.

A piece is at most 1 MiB of the session's bytes. Its raw digest is xxh3-128 under a seed that is secret to the session:
unkeyed, two different arrays with one digest are made in ten lines.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from agent import pristine
from agent.snapshot.libraries import xxhash, zstandard

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

PIECE = 1024 * 1024  # bytes
_PROBE = 64 * 1024  # bytes of a piece that are packed to see whether packing pays
_WORTH_PACKING = 1.5  # measured: what packs less costs more time than the disk it saves

Emit = Callable[[bytes, int, str, Any], None]  # raw digest, raw size, "raw" or "zstd", data
Fetch = Callable[[str, int, memoryview], None]  # hexadecimal digest, raw size, where the raw bytes go


class DamagedError(Exception):
    """A piece did not come, or is not what its digest says."""


class PieceWriter:
    """Cuts streams and hands on the pieces that are not `known`."""

    def __init__(self, emit: Emit, seed: int, known: frozenset[bytes] = frozenset(), *, compress: bool = False) -> None:
        self._emit = emit
        self._seed = seed
        self._known = known
        self._indexes: dict[bytes, int] = {}
        self.table: list[tuple[str, int]] = []  # digest and size of each, in the order in which they were met first
        self._packer = Packer() if compress else None
        self.new_bytes = 0

    def write(self, memory: Any) -> list[int]:
        """Cut one run of memory, without copying it; the indexes of its pieces."""
        with memoryview(memory) as whole, whole.cast("B") as view:
            return [self._piece(view[start : start + PIECE]) for start in range(0, len(view), PIECE)]

    def write_parts(self, parts: Iterable[Any]) -> list[int]:
        """The same for bytes that come in parts."""
        return [self._piece(memoryview(piece)) for piece in _cut(parts)]

    def digest(self, *parts: Any) -> str:
        """Of a whole, in hexadecimal digits."""
        return digest_of(parts, self._seed)

    def _piece(self, piece: memoryview) -> int:
        digest: bytes = xxhash.xxh3_128_digest(piece, self._seed)
        index = self._indexes.get(digest)
        if index is None:
            index = self._indexes[digest] = len(self.table)
            self.table.append((digest.hex(), piece.nbytes))
            if digest not in self._known:
                self.new_bytes += piece.nbytes
                self._hand_on(digest, piece)
        return index

    def _hand_on(self, digest: bytes, piece: memoryview) -> None:
        packed = self._packer.pack(piece) if self._packer is not None else None
        if packed is None:
            self._emit(digest, piece.nbytes, "raw", piece)
        else:
            self._emit(digest, piece.nbytes, "zstd", packed)


class Packer:
    """zstd, where it pays."""

    def __init__(self) -> None:
        self._probe = zstandard.ZstdCompressor(level=-1)
        self._packer = zstandard.ZstdCompressor(level=1)

    def pack(self, piece: memoryview) -> bytes | None:
        """The packed bytes; None where they are not worth it."""
        probe = piece[:_PROBE]
        if len(self._probe.compress(probe)) * _WORTH_PACKING > len(probe):
            return None
        packed: bytes = self._packer.compress(piece)
        return packed if len(packed) < len(piece) else None


def _cut(parts: Iterable[Any]) -> Iterator[bytearray]:
    piece = bytearray()
    for part in parts:
        with memoryview(part) as whole, whole.cast("B") as view:
            taken = 0
            while taken < len(view):
                step = min(PIECE - len(piece), len(view) - taken)
                piece += view[taken : taken + step]
                taken += step
                if len(piece) == PIECE:
                    yield piece
                    piece = bytearray()
    if piece:
        yield piece


def digest_of(parts: Iterable[Any], seed: int) -> str:
    """Of bytes in parts, in hexadecimal digits."""
    state = xxhash.xxh3_128(seed=seed)
    for part in parts:
        state.update(part)
    return str(state.hexdigest())


def digests_in(memory: Any, seed: int) -> Iterator[str]:
    """The digests of the pieces that a run of memory would be cut into."""
    with memoryview(memory) as whole, whole.cast("B") as view:
        for start in range(0, len(view), PIECE):
            yield str(xxhash.xxh3_128_hexdigest(view[start : start + PIECE], seed))


def unpack(encoding: str, data: bytes, raw_size: int, target: memoryview) -> None:
    """What was packed, into its place. Raises DamagedError."""
    if encoding == "zstd":
        try:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=PIECE)
        except zstandard.ZstdError as error:
            raise DamagedError(f"a piece can not be unpacked: {error}") from error
    if len(data) != raw_size:
        raise DamagedError(f"a piece has {len(data)} bytes instead of {raw_size}")
    target[:] = data


class PieceReader:
    """Puts streams together again from a table of pieces. Every piece is checked against its digest.

    `fetch` is asked for each piece once, in the table's order but for those that are skipped; what is needed again
    later is kept until then.
    """

    def __init__(self, table: Sequence[tuple[str, int]], uses: Iterable[int], fetch: Fetch, seed: int) -> None:
        self._table = table
        self._fetch = fetch
        self._seed = seed
        self._left = [0] * len(table)
        for index in uses:
            self._left[index] += 1
        self._kept: dict[int, bytes] = {}

    def read_into(self, indexes: Sequence[int], target: memoryview) -> None:
        """Fill `target`. Raises DamagedError."""
        start = 0
        for index in indexes:
            size = self._table[index][1]
            self._piece(index, target[start : start + size])
            start += size
        if start != len(target):
            raise DamagedError(f"{start} bytes were stored for {len(target)}")

    def size(self, indexes: Sequence[int]) -> int:
        """Of a stream, in bytes."""
        return sum(self._table[index][1] for index in indexes)

    def read(self, indexes: Sequence[int]) -> bytearray:
        """The whole of a stream."""
        whole = bytearray(self.size(indexes))
        self.read_into(indexes, memoryview(whole))
        return whole

    def _piece(self, index: int, target: memoryview) -> None:
        self._left[index] -= 1
        kept = self._kept.get(index)
        if kept is not None:
            target[:] = kept
            if not self._left[index]:
                del self._kept[index]
            return
        digest, size = self._table[index]
        if len(target) != size:
            raise DamagedError("a piece does not fit into its place")
        self._fetch(digest, size, target)
        if xxhash.xxh3_128_hexdigest(target, self._seed) != digest:
            raise DamagedError(f"piece {digest} is not what its digest says")
        if self._left[index]:
            self._kept[index] = bytes(target)
