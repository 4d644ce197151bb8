"""The ledger of executions and the cells' text in SQLite. Each function runs inside one transaction."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.adapters.store import names
from orchestrator.adapters.store.connection import Transaction, moment
from orchestrator.domain.model import ExecutionRecord, Outcome, SessionState

KEPT_EXECUTIONS = 200
KEPT_CELL_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an execution that has ended."""

    outcome: Outcome
    bound: Sequence[str]
    removed: Sequence[str]
    variable_count: int | None


def begin(tx: Transaction, key: str, incarnation: int, code: str) -> int | None:
    """Open a row: its number."""
    text = code.encode("utf-8", "surrogatepass")
    row = tx.row(
        """
        UPDATE sessions SET executions = executions + 1, activity = activity + 1, used_at = ?,
                            cell_bytes = cell_bytes + ?
        WHERE key = ? AND incarnation = ? AND state = ?
        RETURNING executions
        """,
        (tx.now, len(text), key, incarnation, SessionState.READY),
    )
    if row is None:
        return None
    number = int(row["executions"])
    tx.change(
        "INSERT INTO executions (session, number, incarnation, started_at) VALUES (?, ?, ?, ?)",
        (key, number, incarnation, tx.now),
    )
    tx.change("INSERT INTO cells (session, number, code) VALUES (?, ?, ?)", (key, number, text))
    return number


def end(tx: Transaction, key: str, number: int, answer: Answer) -> None:
    """Close a row that is open."""
    changed = tx.change(
        """
        UPDATE executions SET outcome = ?, finished_at = ?, bound = ?, removed = ?
        WHERE session = ? AND number = ? AND outcome IS NULL
        """,
        (answer.outcome, tx.now, json.dumps(list(answer.bound)), json.dumps(list(answer.removed)), key, number),
    )
    if not changed:
        return
    (session,) = tx.rows("SELECT executions, namespace_since, cell_bytes FROM sessions WHERE key = ?", (key,))
    is_present = number >= session["namespace_since"]
    if is_present:
        names.note(tx, key, number, answer.bound, answer.removed)
    dropped = _trim(tx, key, session["executions"] - KEPT_EXECUTIONS, session["cell_bytes"])
    tx.change(
        """
        UPDATE sessions SET used_at = :now, cell_bytes = cell_bytes - :dropped,
                            variable_count = iif(:is_present, coalesce(:variable_count, variable_count), variable_count)
        WHERE key = :key
        """,
        {
            "now": tx.now,
            "dropped": dropped,
            "is_present": is_present,
            "variable_count": answer.variable_count,
            "key": key,
        },
    )


def newest(tx: Transaction, tenant: str, session_id: str, limit: int) -> Sequence[ExecutionRecord]:
    """A session's executions, newest first."""
    rows = tx.rows(
        """
        SELECT executions.* FROM sessions JOIN executions ON executions.session = sessions.key
        WHERE tenant = ? AND session_id = ? AND state <> 'destroying'
        ORDER BY number DESC LIMIT ?
        """,
        (tenant, session_id, max(0, limit)),
    )
    return [_execution(row) for row in rows]


def code_of(tx: Transaction, tenant: str, session_id: str, number: int) -> str | None:
    """The text of one execution, while it is kept."""
    row = tx.row(
        """
        SELECT code FROM sessions JOIN cells ON cells.session = sessions.key
        WHERE tenant = ? AND session_id = ? AND state <> 'destroying' AND number = ?
        """,
        (tenant, session_id, number),
    )
    return None if row is None else row["code"].decode("utf-8", "surrogatepass")


def _trim(tx: Transaction, key: str, horizon: int, cell_bytes: int) -> int:
    """Forget the executions up to `horizon`, and the oldest text beyond the limit: how many bytes of text went."""
    tx.change("DELETE FROM executions WHERE session = ? AND number <= ?", (key, horizon))
    dropped = _drop_cells(tx, key, horizon)
    excess = cell_bytes - dropped - KEPT_CELL_BYTES
    if excess > 0:
        dropped += _drop_cells(tx, key, _last_to_drop(tx, key, excess))
    return dropped


def _last_to_drop(tx: Transaction, key: str, excess: int) -> int:
    """The execution up to which cells must go to make up `excess`."""
    for row in tx.rows("SELECT number, length(code) AS size FROM cells WHERE session = ? ORDER BY number", (key,)):
        excess -= row["size"]
        if excess <= 0:
            break
    return int(row["number"])


def _drop_cells(tx: Transaction, key: str, horizon: int) -> int:
    rows = tx.rows("DELETE FROM cells WHERE session = ? AND number <= ? RETURNING length(code) AS size", (key, horizon))
    return sum(row["size"] for row in rows)


def _execution(row: sqlite3.Row) -> ExecutionRecord:
    return ExecutionRecord(
        number=row["number"],
        incarnation=row["incarnation"],
        outcome=row["outcome"],
        started_at=moment(row["started_at"]),
        finished_at=None if row["finished_at"] is None else moment(row["finished_at"]),
        bound=tuple(json.loads(row["bound"])),
        removed=tuple(json.loads(row["removed"])),
    )
