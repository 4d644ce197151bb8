"""Pieces as rows: stored in batches, read back verified, dropped when nothing refers to them. Each call is one turn."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from orchestrator.adapters.store.pieces import manifest_rows
from orchestrator.adapters.store.pieces.file import PAGE_BYTES, PieceFile, Place, has_room, opened, require_room
from orchestrator.adapters.store.pieces.manifest_rows import DamagedManifestError, Located
from orchestrator.domain.snapshots import Collected, DamagedPiece, Piece, PieceReference, StoredSizes

_DROP_BYTES: Final = 64 * 1024 * 1024  # in one turn; dropping reads next to nothing
_DROP_PIECES: Final = 4_096
_RETURN_PAGES: Final = 256  # in one turn: 16 MiB, each page moved and journaled
# Free pages serve the next snapshot faster than a longer file does; returned is what is over this.
_SPARE_PAGES: Final = 64
_SPARE_SHARE: Final = 5  # a fifth of the file

Find = Callable[[str], Located | None]  # where a piece of that raw digest lies


def store(place: Place, pieces: Sequence[Piece], find: Find) -> dict[str, Located]:
    """Store a batch, durable and seen by nobody: where each piece lies."""
    require_room(place, sum(len(piece.data) for piece in pieces))
    with opened(place) as file, file.transaction():
        return put(file, pieces, find)


def put(file: PieceFile, pieces: Iterable[Piece], find: Find) -> dict[str, Located]:
    """The same inside the caller's transaction."""
    (row,) = file.raw.execute("SELECT coalesce(max(id), 0) FROM pieces").fetchone()
    located: dict[str, Located] = {}
    for piece in pieces:
        if piece.raw_digest in located:
            continue
        there = find(piece.raw_digest)
        # Compared, and not believed: the digest is a claim, and what lies there may be damaged.
        if there is not None and _is_stored(file, there, piece):
            located[piece.raw_digest] = there
            continue
        row += 1
        file.raw.execute("INSERT INTO pieces (id, data) VALUES (?, ?)", (row, piece.data))
        located[piece.raw_digest] = Located(
            row,
            PieceReference(
                piece.raw_digest, file.digest(piece.data).hex(), piece.raw_size, len(piece.data), piece.encoding
            ),
        )
    return located


def fetch(place: Place, batch: Sequence[Located]) -> list[Piece | DamagedPiece]:
    """Those pieces, each verified."""
    with opened(place) as file:
        return [_verified(file, located) for located in batch]


def batches(pieces: Iterable[Located], limit: int, *, first: int | None = None) -> Iterator[Sequence[Located]]:
    """Runs of pieces of about that many stored bytes; from a shorter `first` on, each is twice the one before."""
    batch: list[Located] = []
    size, most = 0, limit
    limit = limit if first is None else first
    for located in pieces:
        batch.append(located)
        size += located.reference.stored_size
        if size >= limit or len(batch) >= _DROP_PIECES:
            yield batch
            batch, size, limit = [], 0, min(2 * limit, most)
    if batch:
        yield batch


def are_all_there(file: PieceFile, pieces: Sequence[Located]) -> bool:
    """Whether each of them has its row."""
    rows = json.dumps([located.row for located in pieces])
    counted = file.raw.execute("SELECT count(*) FROM json_each(?) JOIN pieces ON pieces.id = value", (rows,))
    return bool(counted.fetchone()[0] == len(pieces))


def make_room(place: Place) -> Collected:
    """Drop pieces that no manifest refers to, as many as one turn may; see `clear`."""
    with opened(place) as file:
        return clear(file, referenced(file))


def clear(file: PieceFile, kept: AbstractSet[int] | None) -> Collected:
    """Drop what nobody keeps. Where the disk is short of room even so, shorten the file: what a failed snapshot left
    would stand in the way of all that follow. Raises StoreFullError where neither helps.
    """
    dropped = drop_some(file, kept)
    if dropped.more:
        return dropped
    returned = 0 if has_room(file.place) else _shorten(file, _pages(file, "freelist_count"))
    is_short = not has_room(file.place)
    if is_short and not returned:
        require_room(file.place, 0)
    return Collected(dropped.pieces, dropped.bytes_freed, returned, more=is_short)


def collect(place: Place) -> Collected:
    """One step of dropping and of shortening the file."""
    with opened(place) as file:
        dropped = drop_some(file, referenced(file))
        returned = _shorten(file, _excess(file))
        more = dropped.more or (returned > 0 and _excess(file) > 0)
        return Collected(dropped.pieces, dropped.bytes_freed, returned, more)


def sizes(place: Place) -> StoredSizes:
    """What the file holds."""
    with opened(place) as file:
        kept = referenced(file)
        stored = dict(_stored_sizes(file))
        return StoredSizes(
            file=_pages(file, "page_count") * PAGE_BYTES,
            pieces=sum(stored.values()),
            unreferenced=0 if kept is None else sum(size for row, size in stored.items() if row not in kept),
            free=_pages(file, "freelist_count") * PAGE_BYTES,
        )


def drop_some(file: PieceFile, kept: AbstractSet[int] | None) -> Collected:
    """The same in an open file; nothing where nobody knows what to keep."""
    if kept is None:
        return Collected(0, 0, 0, more=False)
    dead = [found for found in _stored_sizes(file) if found[0] not in kept]
    now: list[tuple[int]] = []
    freed = 0
    for row, size in dead:
        if freed >= _DROP_BYTES or len(now) >= _DROP_PIECES:
            break
        now.append((row,))
        freed += size
    if now:
        with file.transaction():
            file.raw.executemany("DELETE FROM pieces WHERE id = ?", now)
    return Collected(len(now), freed, 0, more=len(now) < len(dead))


def referenced(file: PieceFile) -> set[int] | None:
    """The rows that manifests refer to; None where a damaged one hides what it needs: then nothing is collected."""
    rows: set[int] = set()
    for sequence in manifest_rows.sequences(file):
        try:
            rows.update(packed[0] for packed in manifest_rows.references_of(file, sequence))
        except DamagedManifestError:
            return None
    return rows


def _stored_sizes(file: PieceFile) -> Iterator[tuple[int, int]]:
    # A damaged row may hold NULL, whatever the table declares.
    return file.raw.execute("SELECT id, coalesce(length(data), 0) FROM pieces")


def _is_stored(file: PieceFile, located: Located, piece: Piece) -> bool:
    reference = located.reference
    if (reference.raw_size, reference.stored_size, reference.encoding) != (
        piece.raw_size,
        len(piece.data),
        piece.encoding,
    ):
        return False
    verified = _verified(file, located)
    return isinstance(verified, Piece) and verified.data == piece.data


def _verified(file: PieceFile, located: Located) -> Piece | DamagedPiece:
    reference = located.reference
    try:
        found = file.raw.execute("SELECT data FROM pieces WHERE id = ?", (located.row,)).fetchone()
    except sqlite3.DatabaseError as error:
        return DamagedPiece(reference.raw_digest, f"the file is damaged where it lies ({error})")
    if found is None:
        return DamagedPiece(reference.raw_digest, "it is missing")
    (data,) = found
    if not isinstance(data, bytes) or file.digest(data).hex() != reference.host_digest:
        return DamagedPiece(reference.raw_digest, "its digest does not fit what was stored")
    return Piece(reference.raw_digest, reference.raw_size, reference.encoding, data)


def _shorten(file: PieceFile, pages: int) -> int:
    """Give so many free pages back to the disk, or as many as one turn may: by how many bytes the file is shorter."""
    before = _pages(file, "page_count")
    if pages > 0:
        # Each step returns one page, and `execute` makes a single step of what has no columns.
        file.raw.executescript(f"PRAGMA incremental_vacuum({min(_RETURN_PAGES, pages)})")
    return (before - _pages(file, "page_count")) * PAGE_BYTES


def _excess(file: PieceFile) -> int:
    """Free pages beyond those to keep."""
    spare = max(_SPARE_PAGES, _pages(file, "page_count") // _SPARE_SHARE)
    return _pages(file, "freelist_count") - spare


def _pages(file: PieceFile, which: str) -> int:
    return int(file.raw.execute(f"PRAGMA {which}").fetchone()[0])
