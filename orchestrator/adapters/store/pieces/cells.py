"""The text of cells, in the file of their session. Each call is one turn."""

import sqlite3
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from orchestrator.adapters.store.pieces.file import PieceFile, Place, opened, require_room
from orchestrator.domain.model import CellText

KEPT_CELLS: Final = 200  # as many as the ledger has executions
KEPT_CELL_BYTES: Final = 10_000_000


class DamagedCellError(Exception):
    """A cell's text is not what was stored."""


def note(place: Place, cells: Sequence[CellText]) -> None:
    """Store them, and forget what is too old or too much."""
    parts = [_parts(cell) for cell in cells]
    require_room(place, sum(len(part) for row in parts for part in row))
    with opened(place, create=True) as file:
        # For this turn's connection alone, before its transaction: three waits for the disk instead of FULL's five.
        # What FULL adds is that a commit which has returned outlives a power cut, and these rows need not. OFF would
        # wait for nothing, but a power cut could then leave the file torn that holds the snapshots too.
        file.raw.execute("PRAGMA synchronous = NORMAL")
        with file.transaction():
            if not _has_rest(file):
                file.raw.execute("ALTER TABLE cells ADD COLUMN rest BLOB")
            file.raw.executemany(
                "INSERT OR REPLACE INTO cells (number, digest, code, output, output_bytes, rest)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (cell.number, file.digest(*row), row[1], row[2], cell.output_bytes, row[3] if row[3:] else None)
                    for cell, row in zip(cells, parts, strict=True)
                ],
            )
            _trim(file)


def read(place: Place, wanted: AbstractSet[int] | None) -> Sequence[CellText]:
    """Those that are kept, oldest first."""
    with opened(place) as file:
        found = []
        for number in _numbers(file):
            if wanted is not None and number not in wanted:
                continue
            try:
                found.append(_verified(file, number))
            except DamagedCellError:
                continue
        return found


def problems(file: PieceFile) -> Sequence[str]:
    """A sentence for each that is damaged."""
    try:
        numbers = _numbers(file)
    except sqlite3.DatabaseError as error:
        return [f"The cells' text can't be read: {error}."]
    said = []
    for number in numbers:
        try:
            _verified(file, number)
        except DamagedCellError as error:
            said.append(f"The text of cell {number} is damaged: {error}.")
    return said


def _trim(file: PieceFile) -> None:
    newest_first = file.raw.execute(
        # What a damaged row holds may be NULL.
        "SELECT number, coalesce(length(code) + length(output), 0) + coalesce(length(rest), 0)"
        " FROM cells ORDER BY number DESC"
    ).fetchall()
    horizon = newest_first[0][0] - KEPT_CELLS
    size = 0
    for number, taken in newest_first:
        size += taken
        if number <= horizon or size > KEPT_CELL_BYTES:
            file.raw.execute("DELETE FROM cells WHERE number <= ?", (number,))
            return


def _numbers(file: PieceFile) -> list[int]:
    return [number for (number,) in file.raw.execute("SELECT number FROM cells ORDER BY number")]


def _verified(file: PieceFile, number: int) -> CellText:
    rest_or_none = "rest" if _has_rest(file) else "NULL"  # of an earlier version
    try:
        digest, code, output, output_bytes, rest = file.raw.execute(
            f"SELECT digest, code, output, output_bytes, {rest_or_none} FROM cells WHERE number = ?",  # noqa: S608 - above
            (number,),
        ).fetchone()
    except sqlite3.DatabaseError as error:
        raise DamagedCellError(str(error)) from error
    # What a damaged row holds need not be what the table declares.
    if not (isinstance(code, bytes) and isinstance(output, bytes) and isinstance(output_bytes, int)):
        raise DamagedCellError("it is no text")
    if not isinstance(rest, bytes | None):
        raise DamagedCellError("it is no text")
    more = () if rest is None else (rest,)
    if file.digest(_head(number, output_bytes), code, output, *more) != digest:
        raise DamagedCellError("its digest does not fit")
    return CellText(number, _text(code), _text(output), output_bytes, _text(rest or b""))


def _has_rest(file: PieceFile) -> bool:
    return any(column[1] == "rest" for column in file.raw.execute("PRAGMA table_info(cells)"))


def _parts(cell: CellText) -> tuple[bytes, ...]:
    # Bytes, because text may hold NUL and lone surrogates.
    return (
        _head(cell.number, cell.output_bytes),
        cell.code.encode("utf-8", "surrogatepass"),
        cell.output.encode("utf-8", "surrogatepass"),
        *([cell.rest.encode("utf-8", "surrogatepass")] if cell.rest else ()),
    )


def _head(number: int, output_bytes: int) -> bytes:
    return b"%d %d" % (number, output_bytes)


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")
