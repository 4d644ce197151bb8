"""The ledger of executions in SQLite. Each function runs inside one transaction."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.adapters.store import audit, names, repeats
from orchestrator.adapters.store.connection import Transaction, moment
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.model import Ending, ExecutionRecord, SessionState
from orchestrator.domain.repeats import Repeat

KEPT_EXECUTIONS = 200
_UNSEEN: frozenset[Ending] = frozenset({"never_arrived", "outcome_unknown"})  # nobody knows when those ended, if ever


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an execution that has ended."""

    outcome: Ending
    bound: Sequence[str]
    removed: Sequence[str]
    variable_count: int | None
    entry: AuditEntry | None = None  # of the audit


def begin(
    tx: Transaction, key: str, incarnation: int, repeat: Repeat | None = None, entry: AuditEntry | None = None
) -> int | None:
    """Open a row: its number. A call that may be made again is known by its key from then on."""
    row = tx.row(
        """
        UPDATE sessions SET executions = executions + 1, activity = activity + 1, used_at = ?
        WHERE key = ? AND incarnation = ? AND state = ?
        RETURNING executions
        """,
        (tx.now, key, incarnation, SessionState.READY),
    )
    if row is None:
        return None
    number = int(row["executions"])
    tx.change(
        "INSERT INTO executions (session, number, incarnation, started_at) VALUES (?, ?, ?, ?)",
        (key, number, incarnation, tx.now),
    )
    if repeat is not None:
        repeats.note(tx, key, number, repeat)
    if entry is not None:
        audit.append(tx, replace(entry, incarnation=incarnation, execution=number))
    return number


def end(tx: Transaction, key: str, number: int, answer: Answer) -> None:
    """Close a row that is open."""
    changed = tx.change(
        """
        UPDATE executions SET outcome = ?, finished_at = ?, bound = ?, removed = ?
        WHERE session = ? AND number = ? AND outcome IS NULL
        """,
        (
            answer.outcome,
            None if answer.outcome in _UNSEEN else tx.now,
            json.dumps(list(answer.bound)),
            json.dumps(list(answer.removed)),
            key,
            number,
        ),
    )
    if not changed:
        _note_of_deleted(tx, key, number, answer.entry)
        return
    if answer.entry is not None:
        audit.append(tx, replace(answer.entry, begun=_begun(tx, key, number, answer.entry)))
    (session,) = tx.rows("SELECT executions, namespace_since FROM sessions WHERE key = ?", (key,))
    is_present = number >= session["namespace_since"]
    if is_present:
        names.note(tx, key, number, answer.bound, answer.removed)
    tx.change(
        "DELETE FROM executions WHERE session = ? AND number <= ?", (key, session["executions"] - KEPT_EXECUTIONS)
    )
    tx.change(
        """
        UPDATE sessions SET used_at = :now,
                            variable_count = iif(:is_present, coalesce(:variable_count, variable_count), variable_count)
        WHERE key = :key
        """,
        {"now": tx.now, "is_present": is_present, "variable_count": answer.variable_count, "key": key},
    )


def _begun(tx: Transaction, key: str, number: int, entry: AuditEntry) -> int | None:
    """The entry that was written with the row: at the same moment, so that no column need hold its id."""
    row = tx.row(
        """
        SELECT audit.id FROM executions JOIN audit ON audit.tenant = ? AND audit.at = executions.started_at
        WHERE executions.session = ? AND executions.number = ? AND audit.act = 'begin' AND audit.session = ?
          AND audit.execution = executions.number
        """,
        (entry.tenant, key, number, entry.session),
    )
    return None if row is None else int(row["id"])


def _note_of_deleted(tx: Transaction, key: str, number: int, entry: AuditEntry | None) -> None:
    # A closed row that is there was closed by a write like this one, cancelled after it had happened.
    there = tx.row("SELECT 1 FROM executions WHERE session = ? AND number = ?", (key, number))
    if entry is not None and there is None:
        audit.append(tx, entry)


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
