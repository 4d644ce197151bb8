"""Which snapshot is intended and which is head, in SQLite. Each function runs inside one transaction.

Each guard is one statement, which names the incarnation that its caller saw.
"""

import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from typing import Final

from orchestrator.adapters.store import names
from orchestrator.adapters.store.connection import Transaction
from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.model import SessionState
from orchestrator.domain.snapshots import (
    NameStatus,
    SavedListing,
    SavedName,
    SnapshotIntent,
    SnapshotRecord,
    StoredSnapshot,
)

# Names of the head that are listed from here; the file has all. Rewritten at every snapshot, so bounded: some 400 kB.
LISTED_NAMES: Final = 5_000
_REFUSED: Final[NameStatus] = "refused"

_NO_OPEN_EXECUTION: Final = (
    "NOT EXISTS (SELECT 1 FROM executions WHERE executions.session = sessions.key AND outcome IS NULL)"
)
_FIND_SAVABLE: Final = f"""
    SELECT incarnation, executions, activity FROM sessions
    WHERE key = ? AND incarnation = ? AND state IN ('ready', 'snapshotting') AND {_NO_OPEN_EXECUTION}
"""  # noqa: S608 - every part stands above
_BEGIN_REPLACING: Final = f"""
    UPDATE sessions SET activity = activity + 1, used_at = ?,
                        state = iif(state IN ('inactive', 'expired'), 'hibernated', state)
    WHERE key = ? AND incarnation = ? AND state NOT IN ('creating', 'destroying') AND {_NO_OPEN_EXECUTION}
    RETURNING incarnation, executions, activity
"""  # noqa: S608 - every part stands above
_BEGIN_HIBERNATING: Final = f"""
    UPDATE sessions SET state = 'snapshotting'
    WHERE key = ? AND incarnation = ? AND state = 'ready' AND activity = ? AND {_NO_OPEN_EXECUTION}
"""  # noqa: S608 - every part stands above
_HIBERNATE_SAVED: Final = f"""
    UPDATE sessions SET state = 'hibernated'
    WHERE key = :key AND incarnation = :incarnation AND state IN ('ready', 'snapshotting') AND activity = :activity
      AND EXISTS (SELECT 1 FROM snapshots WHERE session = :key AND head IS NOT NULL AND head_activity >= :activity)
      AND {_NO_OPEN_EXECUTION}
"""  # noqa: S608 - every part stands above


def record_of(tx: Transaction, key: str) -> SnapshotRecord | None:
    """What is known of a session's snapshots."""
    row = tx.row("SELECT * FROM snapshots WHERE session = ?", (key,))
    return None if row is None else _record(row)


def every(tx: Transaction) -> Sequence[SnapshotRecord]:
    """All of them."""
    return [_record(row) for row in tx.rows("SELECT * FROM snapshots ORDER BY session")]


def listing(tx: Transaction, key: str) -> SavedListing | None:
    """What the head of that session holds."""
    row = tx.row("SELECT heads.*, head_execution FROM heads JOIN snapshots USING (session) WHERE session = ?", (key,))
    if row is None:
        return None
    listed = tuple(SavedName(*fields) for fields in json.loads(row["names"]))
    return SavedListing(row["head_execution"], row["python"], listed, row["unlisted"])


def listing_of(tx: Transaction, tenant: str, session_id: str) -> SavedListing | None:
    """The same, of a session that a caller names."""
    row = tx.row(
        "SELECT key FROM sessions WHERE tenant = ? AND session_id = ? AND state <> 'destroying'", (tenant, session_id)
    )
    return None if row is None else listing(tx, row["key"])


def refused(tx: Transaction, key: str) -> Sequence[SavedName]:
    """Of them, those that could not be saved."""
    head = listing(tx, key)
    return () if head is None else tuple(name for name in head.names if name.status == _REFUSED)


def intend(tx: Transaction, key: str, incarnation: int) -> SnapshotIntent | None:
    """Intend a snapshot of what the session holds now."""
    row = tx.row(_FIND_SAVABLE, (key, incarnation))
    return None if row is None else _intend(tx, key, row, replaces=False)


def intend_replacement(tx: Transaction, key: str, incarnation: int) -> SnapshotIntent | None:
    """Intend what shall stand instead."""
    row = tx.row(_BEGIN_REPLACING, (tx.now, key, incarnation))
    return None if row is None else _intend(tx, key, row, replaces=True)


def committed(tx: Transaction, key: str, stored: StoredSnapshot) -> bool:
    """The guarded change of the head, by the worker that wrote it."""
    return _make_head(tx, key, stored, [SessionState.READY, SessionState.SNAPSHOTTING, *ASLEEP])


def adopt(tx: Transaction, key: str, stored: StoredSnapshot) -> bool:
    """The same, by recovery: whatever the dead owner was doing with the session."""
    return _make_head(tx, key, stored, [state for state in SessionState if state is not SessionState.DESTROYING])


def void(tx: Transaction, key: str, incarnation: int) -> bool:
    """Raise the sequence, so that nothing in flight becomes head."""
    changed = tx.change(
        """
        INSERT INTO snapshots (session, sequence, seed)
            SELECT key, 1, ? FROM sessions WHERE key = ? AND incarnation = ? AND state <> 'destroying'
        ON CONFLICT (session) DO UPDATE SET sequence = sequence + 1, intended = NULL
        """,
        (fresh_seed(), key, incarnation),
    )
    return changed == 1


def begin_hibernating(tx: Transaction, key: str, incarnation: int, activity: int) -> bool:
    """The guarded change to `snapshotting`."""
    return tx.change(_BEGIN_HIBERNATING, (key, incarnation, activity)) == 1


def hibernate_saved(tx: Transaction, key: str, incarnation: int, activity: int) -> bool:
    """The guarded change to `hibernated` of a session whose head covers all."""
    return tx.change(_HIBERNATE_SAVED, {"key": key, "incarnation": incarnation, "activity": activity}) == 1


def _intend(tx: Transaction, key: str, session: sqlite3.Row, *, replaces: bool) -> SnapshotIntent:
    (row,) = tx.rows(
        """
        INSERT INTO snapshots (session, sequence, seed, intended, intended_incarnation, intended_execution,
                               intended_activity, intended_replaces)
        VALUES (:key, 1, :seed, 1, :incarnation, :execution, :activity, :replaces)
        ON CONFLICT (session) DO UPDATE SET
            sequence = sequence + 1, intended = sequence + 1, intended_incarnation = excluded.intended_incarnation,
            intended_execution = excluded.intended_execution, intended_activity = excluded.intended_activity,
            intended_replaces = excluded.intended_replaces
        RETURNING *
        """,
        {
            "key": key,
            "seed": fresh_seed(),
            "incarnation": session["incarnation"],
            "execution": session["executions"],
            "activity": session["activity"],
            "replaces": replaces,
        },
    )
    return _intent(row)


def fresh_seed() -> int:
    """One that nobody knows."""
    return secrets.randbits(63)  # what SQLite's signed integers hold


def _make_head(tx: Transaction, key: str, stored: StoredSnapshot, states: Sequence[str]) -> bool:
    made = tx.row(
        """
        UPDATE snapshots SET
            head = intended, head_execution = :execution, head_activity = intended_activity,
            since = iif(intended_replaces, intended, since), intended = NULL
        WHERE session = :key AND intended = :sequence AND intended_incarnation = :incarnation
          AND EXISTS (SELECT 1 FROM sessions WHERE key = :key AND incarnation = :incarnation
                      AND state IN (SELECT value FROM json_each(:states)))
        RETURNING intended_execution, intended_replaces
        """,
        {
            "key": key,
            "sequence": stored.summary.sequence,
            "incarnation": stored.summary.incarnation,
            "execution": stored.manifest.execution,
            "states": json.dumps(states),
        },
    )
    if made is None:
        return False
    _list(tx, key, stored)
    if made["intended_replaces"]:
        _stand_at(tx, key, stored, made["intended_execution"])
    return True


def _stand_at(tx: Transaction, key: str, stored: StoredSnapshot, replaced: int) -> None:
    """Nothing of what was replaced, up to that execution, is a loss to anybody, neither now nor later."""
    manifest = stored.manifest
    listing = SavedListing(manifest.execution, manifest.python, manifest.names, manifest.unlisted_names)
    tx.change(
        """
        UPDATE sessions SET namespace_since = ?, variable_count = ?, untold_loss = NULL, untold_notes = '[]'
        WHERE key = ?
        """,
        (max(replaced, manifest.execution) + 1, names.stand_at(tx, key, listing), key),
    )


def _list(tx: Transaction, key: str, stored: StoredSnapshot) -> None:
    saved = stored.manifest.names
    listed = _most_telling(saved)
    tx.change(
        """
        INSERT INTO heads (session, python, names, unlisted, files) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (session) DO UPDATE SET python = excluded.python, names = excluded.names,
                                            unlisted = excluded.unlisted, files = excluded.files
        """,
        (
            key,
            stored.manifest.python,
            json.dumps([astuple(name) for name in listed], separators=(",", ":")),
            len(saved) - len(listed) + stored.manifest.unlisted_names,
            len(stored.manifest.files) + stored.manifest.unlisted_files,
        ),
    )


def _most_telling(saved: Sequence[SavedName]) -> Sequence[SavedName]:
    """In their order; where there are too many, those that were refused before those that were saved."""
    if len(saved) <= LISTED_NAMES:
        return saved
    ranked = sorted(range(len(saved)), key=lambda place: (saved[place].status != _REFUSED, place))
    return [saved[place] for place in sorted(ranked[:LISTED_NAMES])]


def _record(row: sqlite3.Row) -> SnapshotRecord:
    return SnapshotRecord(
        session=row["session"],
        sequence=row["sequence"],
        intended=None if row["intended"] is None else _intent(row),
        head=row["head"],
        head_execution=row["head_execution"],
        head_activity=row["head_activity"],
        since=row["since"],
        seed=row["seed"],
        renewed=row["renewed"],
    )


def _intent(row: sqlite3.Row) -> SnapshotIntent:
    return SnapshotIntent(
        key=row["session"],
        sequence=row["intended"],
        incarnation=row["intended_incarnation"],
        execution=row["intended_execution"],
        activity=row["intended_activity"],
        head=row["head"],
        replaces=bool(row["intended_replaces"]),
        seed=row["seed"],
    )
