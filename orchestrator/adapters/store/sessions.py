"""Sessions in SQLite. Each function runs inside one transaction, in the connection's thread."""

import json
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from orchestrator.adapters.store import names, snapshots
from orchestrator.adapters.store.connection import Transaction, moment
from orchestrator.domain.lifecycle import session_sources
from orchestrator.domain.losses import joined, loss_of
from orchestrator.domain.model import Loss, Session, SessionState
from orchestrator.domain.quotas import exceeded


def states(allowed: Iterable[str]) -> str:
    """States as one parameter, read in SQL by `json_each`."""
    return json.dumps(sorted(allowed))


@dataclass(frozen=True, slots=True)
class Fall:
    """How a namespace went; see `Records.namespace_lost`."""

    cause: str
    before: int | None = None
    stands_at: int | None = None


# All that `session_of` reads.
COLUMNS = "*, coalesce((SELECT head_execution FROM snapshots WHERE session = key), 0) AS saved_through"
# A session that begins to be created is used, whatever comes of it.
_CHANGE = f"""
    UPDATE sessions SET state = :target, incarnation = incarnation + :raised, used_at = iif(:raised, :now, used_at)
    WHERE key = :key AND incarnation = :incarnation AND state IN (SELECT value FROM json_each(:sources))
    RETURNING {COLUMNS}
"""  # noqa: S608 - every part stands above


def find(tx: Transaction, tenant: str, session_id: str) -> Session | None:
    """The session of that name that is not being destroyed."""
    # The condition on state is written out: SQLite uses a partial index only where it can read the condition.
    row = tx.row(
        f"SELECT {COLUMNS} FROM sessions WHERE tenant = ? AND session_id = ? AND state <> 'destroying'",  # noqa: S608 - the columns stand above
        (tenant, session_id),
    )
    return None if row is None else session_of(row)


def ensure(
    tx: Transaction, tenant: str, session_id: str, environment: str, most: int | None = None, *, key: str | None = None
) -> Session:
    """That session, made where there is none. Raises QuotaError where the tenant has `most` already."""
    found = find(tx, tenant, session_id)
    if found is not None:
        return found
    if most is not None:
        (count,) = tx.rows("SELECT count(*) FROM sessions WHERE tenant = ? AND state <> 'destroying'", (tenant,))
        if count[0] >= most:
            raise exceeded("sessions", count[0], most)
    (row,) = tx.rows(
        f"""
        INSERT INTO sessions (key, tenant, session_id, state, environment, created_at, used_at)
        VALUES (:key, :tenant, :session_id, :state, :environment, :now, :now)
        RETURNING {COLUMNS}
        """,  # noqa: S608 - the columns stand above
        {
            "key": key or secrets.token_hex(16),
            "tenant": tenant,
            "session_id": session_id,
            "state": SessionState.HIBERNATED,
            "environment": environment,
            "now": tx.now,
        },
    )
    return session_of(row)


def of_tenant(tx: Transaction, tenant: str) -> Sequence[Session]:
    """A tenant's sessions that are neither expired nor being destroyed, oldest first."""
    rows = tx.rows(
        f"""
        SELECT {COLUMNS} FROM sessions
        WHERE tenant = ? AND state <> 'destroying' AND state <> 'expired' ORDER BY created_at, rowid
        """,  # noqa: S608 - the columns stand above
        (tenant,),
    )
    return [session_of(row) for row in rows]


def every(tx: Transaction) -> Sequence[Session]:
    """All sessions, oldest first."""
    rows = tx.rows(f"SELECT {COLUMNS} FROM sessions ORDER BY created_at, rowid")  # noqa: S608 - the columns stand above
    return [session_of(row) for row in rows]


def change_state(tx: Transaction, key: str, incarnation: int, target: SessionState) -> Session | None:
    """The guarded change to `target`; a session that begins to be created gets its next incarnation."""
    row = tx.row(
        _CHANGE,
        {
            "key": key,
            "incarnation": incarnation,
            "target": target,
            "raised": int(target is SessionState.CREATING),
            "now": tx.now,
            "sources": states(session_sources(target)),
        },
    )
    return None if row is None else session_of(row)


def begin_destroying(tx: Transaction, key: str) -> bool:
    """The guarded change to `destroying`, whatever the incarnation."""
    changed = tx.change(
        "UPDATE sessions SET state = ? WHERE key = ? AND state IN (SELECT value FROM json_each(?))",
        (SessionState.DESTROYING, key, states(session_sources(SessionState.DESTROYING))),
    )
    return changed == 1


def delete(tx: Transaction, key: str) -> None:
    """Close the row of a session in `destroying`; what hangs on it goes too."""
    tx.change("DELETE FROM sessions WHERE key = ? AND state = ?", (key, SessionState.DESTROYING))


def lose_namespace(tx: Transaction, key: str, incarnation: int, fall: Fall) -> Loss | None:
    """What is untold after the namespace of this incarnation is gone."""
    row = tx.row(
        "SELECT * FROM sessions WHERE key = ? AND incarnation = ? AND state <> ?",
        (key, incarnation, SessionState.DESTROYING),
    )
    return None if row is None else lose(tx, row, fall)


def forget_loss(tx: Transaction, key: str) -> None:
    """The caller has been told."""
    tx.change("UPDATE sessions SET untold_loss = NULL, untold_notes = '[]' WHERE key = ?", (key,))


def leave_notes(tx: Transaction, key: str, incarnation: int, notes: Sequence[str]) -> None:
    """Keep for the next caller what there is to tell of this incarnation."""
    tx.change(
        "UPDATE sessions SET untold_notes = ? WHERE key = ? AND incarnation = ?", (json.dumps(notes), key, incarnation)
    )


def clear(tx: Transaction, key: str, incarnation: int) -> bool:
    """Begin a new namespace, on request and so without a loss."""
    changed = tx.change(
        """
        UPDATE sessions SET activity = activity + 1, used_at = ?, untold_loss = NULL, untold_notes = '[]',
                            namespace_since = executions + 1, variable_count = 0,
                            state = iif(state IN ('inactive', 'expired'), 'hibernated', state)
        WHERE key = ? AND incarnation = ? AND state <> ?
        """,
        (tx.now, key, incarnation, SessionState.DESTROYING),
    )
    if changed:
        names.forget(tx, key)
    return changed == 1


def lose(tx: Transaction, row: sqlite3.Row, fall: Fall) -> Loss | None:
    """The namespace of that row is gone: what is untold now."""
    key, since = row["key"], row["namespace_since"]
    untold = _loss(row["untold_loss"])
    last = row["executions"] if fall.before is None else fall.before - 1
    if last + 1 < since:
        return untold  # a namespace begun meanwhile, by a clear, is not the one that went
    head = snapshots.listing(tx, key)
    saved = 0 if head is None else head.execution
    savepoint = fall.stands_at if fall.stands_at != saved else None
    # Falling back to one savepoint again and again, each execution is lost once.
    first = max(since, saved + 1) if savepoint is None else max(since, savepoint + 1, row["lost_through"] + 1)
    first, final = _run_between(tx, key, first, last)
    if first <= final:
        untold = joined(untold, loss_of(first, final, fall.cause, names.bound_between(tx, key, first, final)))
    if savepoint is None:
        since, count = last + 1, names.fall_back(tx, key, last, head)
    else:
        # The namespace is the same: what it held then is there, and may still be lost one day.
        names.take_back(tx, key, savepoint, last, head)
        count = row["variable_count"]
    tx.change(
        "UPDATE sessions SET namespace_since = ?, lost_through = ?, variable_count = ?, untold_loss = ? WHERE key = ?",
        (since, last, count, untold and json.dumps(asdict(untold)), key),
    )
    return untold


def _run_between(tx: Transaction, key: str, first: int, last: int) -> tuple[int, int]:
    """The same without executions at either end that never began."""
    rows = tx.rows(
        "SELECT number FROM executions WHERE session = ? AND number BETWEEN ? AND ? AND outcome = 'never_arrived'",
        (key, first, last),
    )
    never = {row["number"] for row in rows}
    while first <= last and first in never:
        first += 1
    while first <= last and last in never:
        last -= 1
    return first, last


def session_of(row: sqlite3.Row) -> Session:
    """A session out of its row."""
    return Session(
        key=row["key"],
        tenant=row["tenant"],
        session_id=row["session_id"],
        state=SessionState(row["state"]),
        incarnation=row["incarnation"],
        activity=row["activity"],
        executions=row["executions"],
        namespace_since=row["namespace_since"],
        untold_loss=_loss(row["untold_loss"]),
        untold_notes=tuple(json.loads(row["untold_notes"])),
        variable_count=row["variable_count"],
        saved_through=row["saved_through"],
        environment=row["environment"],
        created_at=moment(row["created_at"]),
        used_at=moment(row["used_at"]),
    )


def _loss(stored: str | None) -> Loss | None:
    if stored is None:
        return None
    fields = json.loads(stored)
    return Loss(**{**fields, "names": tuple(fields["names"])})
