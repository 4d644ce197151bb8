"""What stands between two states in SQLite, and what belongs to nobody. Each function runs inside one transaction."""

import json
from collections.abc import Collection, Sequence

from orchestrator.adapters.store.connection import Transaction
from orchestrator.domain.model import SandboxState, SessionState
from orchestrator.domain.strays import HeldSandbox, OpenExecution, SessionBetween


def between(tx: Transaction) -> Sequence[SessionBetween]:
    """Sessions that have a sandbox or are about to, and those that are being destroyed."""
    rows = tx.rows(
        """
        SELECT key, tenant, session_id, state, incarnation FROM sessions
        WHERE state IN ('creating', 'ready', 'snapshotting', 'destroying')
        """
    )
    return [
        SessionBetween(row["key"], row["tenant"], row["session_id"], SessionState(row["state"]), row["incarnation"])
        for row in rows
    ]


def open_executions(tx: Transaction) -> Sequence[OpenExecution]:
    """Executions that have not ended."""
    rows = tx.rows(
        """
        SELECT key, tenant, session_id, number FROM executions JOIN sessions ON sessions.key = executions.session
        WHERE outcome IS NULL AND state <> 'destroying'
        """
    )
    return [OpenExecution(row["key"], row["tenant"], row["session_id"], row["number"]) for row in rows]


def abandon(tx: Transaction, key: str, incarnation: int) -> int:
    """Close them without knowing how they ended; when they did nobody knows either."""
    return tx.change(
        "UPDATE executions SET outcome = 'outcome_unknown' WHERE session = ? AND incarnation <= ? AND outcome IS NULL",
        (key, incarnation),
    )


def held_sandboxes(tx: Transaction) -> Sequence[HeldSandbox]:
    """Sandboxes, each with the session that has claimed it."""
    rows = tx.rows(
        """
        SELECT sandboxes.id, sandboxes.state, session, sandboxes.incarnation,
               sessions.state AS session_state, sessions.incarnation AS session_incarnation
        FROM sandboxes LEFT JOIN sessions ON sessions.key = session
        """
    )
    return [
        HeldSandbox(
            id=row["id"],
            state=SandboxState(row["state"]),
            session=row["session"],
            incarnation=row["incarnation"],
            session_state=None if row["session_state"] is None else SessionState(row["session_state"]),
            session_incarnation=row["session_incarnation"],
        )
        for row in rows
    ]


def unknown(tx: Transaction, keys: Collection[str]) -> frozenset[str]:
    """Those that no session has."""
    rows = tx.rows(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE key = value)",
        (json.dumps(list(keys)),),
    )
    return frozenset(row["value"] for row in rows)
