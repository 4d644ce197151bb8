"""Reading everything of a session's file to find what is wrong with it."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from orchestrator.adapters.store.pieces import cells, manifest_rows, rows
from orchestrator.adapters.store.pieces.file import Place, opened
from orchestrator.adapters.store.pieces.manifest_rows import DamagedManifestError, Located, ManifestRow
from orchestrator.adapters.store.pieces.turns import Turns
from orchestrator.domain.errors import StoreUnusableError
from orchestrator.domain.snapshots import DamagedPiece, SnapshotCheck, SnapshotNotFoundError

_BATCH_BYTES = 16 * 1024 * 1024
_MOST_SENTENCES = 20  # of SQLite; one bad page can be behind them all


@dataclass(slots=True)
class _Findings:
    intact: list[ManifestRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def check(turns: Turns, key: str, place: Place, head: int | None) -> SnapshotCheck:
    """A sentence for each problem. The caller keeps snapshots from being trimmed meanwhile."""
    try:
        findings = await turns.take(key, "read", partial(_look, place))
    except SnapshotNotFoundError:
        return SnapshotCheck(0, 0, () if head is None else (f"The head, snapshot {head}, has no file.",))
    except StoreUnusableError as error:
        return SnapshotCheck(0, 0, (str(error),))
    if head is not None and all(row.summary.sequence != head for row in findings.intact):
        findings.problems.append(f"The head, snapshot {head}, is not in the file or damaged.")
    located = {piece.row: piece for row in findings.intact for piece in row.located}
    try:
        for batch in rows.batches(located.values(), _BATCH_BYTES):
            fetched = await turns.take(key, "read", partial(rows.fetch, place, batch))
            findings.problems += [
                _sentence(found, bad, findings.intact)
                for found, bad in zip(batch, fetched, strict=True)
                if isinstance(bad, DamagedPiece)
            ]
    except SnapshotNotFoundError:
        findings.problems.append("The file was deleted while it was read.")
    return SnapshotCheck(len(findings.intact), len(located), tuple(findings.problems))


def _look(place: Place) -> _Findings:
    findings = _Findings()
    with opened(place) as file:
        try:
            said: Sequence[tuple[str]] = file.raw.execute(f"PRAGMA quick_check({_MOST_SENTENCES})").fetchall()
        except sqlite3.DatabaseError as error:
            said = [(str(error),)]
        findings.problems += [
            f"The file's structure is damaged: {sentence}." for (sentence,) in said if sentence != "ok"
        ]
        findings.problems += cells.problems(file)
        for sequence in manifest_rows.sequences(file):
            try:
                row = manifest_rows.read(file, sequence)
            except DamagedManifestError as error:
                findings.problems.append(f"The manifest of snapshot {sequence} is damaged: {error}.")
                continue
            if row is not None:
                findings.intact.append(row)
    return findings


def _sentence(found: Located, piece: DamagedPiece, snapshots: Sequence[ManifestRow]) -> str:
    # By its row, since the same piece may have been stored anew for a later snapshot.
    users = [str(row.summary.sequence) for row in snapshots if any(located.row == found.row for located in row.located)]
    return f"Piece {piece.raw_digest} of snapshots {', '.join(users)} is damaged: {piece.reason}."
