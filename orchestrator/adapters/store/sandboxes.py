"""Sandboxes in SQLite. Each function runs inside one transaction, in the connection's thread."""

import secrets
import sqlite3
from collections.abc import Sequence

from orchestrator.adapters.store.connection import Transaction
from orchestrator.adapters.store.sessions import states
from orchestrator.domain.errors import BusyError
from orchestrator.domain.lifecycle import sandbox_sources
from orchestrator.domain.model import SandboxRecord, SandboxState

# Below 65536, so that the usual user-namespace mapping covers them; above what distributions give to people.
DEFAULT_UIDS = range(40_000, 60_000)

# A head that covers all and replaced what was before is one that a rollback or a clear has made: the sandbox may hold
# what was replaced.
_OUTLIVING = """
    SELECT sandboxes.* FROM sandboxes JOIN sessions
        ON sessions.key = sandboxes.session AND sessions.incarnation = sandboxes.incarnation
    WHERE sandboxes.state = 'claimed' AND sessions.state IN ('ready', 'snapshotting')
      AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.session = sessions.key
                      AND head = since AND head_activity >= sessions.activity)
    ORDER BY sandboxes.rowid
"""


def begin(tx: Transaction, image: str, uids: range) -> SandboxRecord:
    """A new row in `creating`."""
    (row,) = tx.rows(
        "INSERT INTO sandboxes (id, state, uid, secret, image) VALUES (?, ?, ?, ?, ?) RETURNING *",
        (secrets.token_hex(16), SandboxState.CREATING, _free_uid(tx, uids), secrets.token_hex(32), image),
    )
    return _sandbox(row)


def created(tx: Transaction, sandbox_id: str, handle: str) -> bool:
    """The guarded change to `unclaimed`."""
    changed = tx.change(
        """
        UPDATE sandboxes SET state = ?, handle = ?
        WHERE id = ? AND state IN (SELECT value FROM json_each(?))
        """,
        (SandboxState.UNCLAIMED, handle, sandbox_id, states(sandbox_sources(SandboxState.UNCLAIMED))),
    )
    return changed == 1


def claimed(tx: Transaction, sandbox_id: str, session: str | None, incarnation: int) -> bool:
    """The guarded change to `claimed`."""
    changed = tx.change(
        """
        UPDATE sandboxes SET state = ?, session = ?, incarnation = ?
        WHERE id = ? AND state IN (SELECT value FROM json_each(?))
        """,
        (SandboxState.CLAIMED, session, incarnation, sandbox_id, states(sandbox_sources(SandboxState.CLAIMED))),
    )
    return changed == 1


def ending(tx: Transaction, sandbox_id: str, state: SandboxState) -> bool:
    """The guarded change to `failed` or `destroying`."""
    if state not in {SandboxState.FAILED, SandboxState.DESTROYING}:
        raise ValueError(f"a sandbox does not end in {state}")
    changed = tx.change(
        "UPDATE sandboxes SET state = ? WHERE id = ? AND state IN (SELECT value FROM json_each(?))",
        (state, sandbox_id, states(sandbox_sources(state))),
    )
    return changed == 1


def close(tx: Transaction, sandbox_id: str) -> None:
    """Delete the row of a sandbox in `destroying`."""
    tx.change("DELETE FROM sandboxes WHERE id = ? AND state = ?", (sandbox_id, SandboxState.DESTROYING))


def every(tx: Transaction) -> Sequence[SandboxRecord]:
    """All rows, oldest first."""
    return [_sandbox(row) for row in tx.rows("SELECT * FROM sandboxes ORDER BY rowid")]


def outliving(tx: Transaction) -> Sequence[SandboxRecord]:
    """Those that serve the present incarnation of a session which may have outlived its owner, oldest first."""
    return [_sandbox(row) for row in tx.rows(_OUTLIVING)]


def _free_uid(tx: Transaction, uids: range) -> int:
    """Any uid that no row has, all equally likely: two installations on one engine then rarely meet."""
    taken = [
        row["uid"]
        for row in tx.rows("SELECT uid FROM sandboxes WHERE uid >= ? AND uid < ? ORDER BY uid", (uids.start, uids.stop))
    ]
    free = len(uids) - len(taken)
    if free <= 0:
        raise BusyError(
            f"All {len(uids)} user ids for sandboxes are in use.", hint="Wait until other sessions have ended."
        )
    uid = uids.start + secrets.randbelow(free)
    # Counting the taken ones that lie at or below it, in their order, turns 'the n-th free one' into a uid.
    for other in taken:
        if other > uid:
            break
        uid += 1
    return uid


def _sandbox(row: sqlite3.Row) -> SandboxRecord:
    return SandboxRecord(
        id=row["id"],
        state=SandboxState(row["state"]),
        uid=row["uid"],
        secret=row["secret"],
        image=row["image"],
        handle=row["handle"],
        session=row["session"],
        incarnation=row["incarnation"],
    )
