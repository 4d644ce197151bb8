"""Takes the records over from an owner that is gone. Runs inside one transaction."""

import json
from collections.abc import Sequence

from orchestrator.adapters.store import sandboxes, sessions
from orchestrator.adapters.store.connection import Transaction
from orchestrator.adapters.store.sessions import states
from orchestrator.domain.lifecycle import ASLEEP, sandbox_sources, session_sources
from orchestrator.domain.model import SandboxRecord, SandboxState, SessionState


def recover(tx: Transaction, cause: str) -> Sequence[SandboxRecord]:
    """Decide all but what only a sandbox can tell: the sandboxes that may have outlived that owner."""
    outliving = sandboxes.outliving(tx)
    awake = json.dumps([record.session for record in outliving])
    # Losses first: an execution that is still open belongs to what was lost.
    for row in tx.rows(
        """
        SELECT * FROM sessions
        WHERE state IN (SELECT value FROM json_each(?)) AND key NOT IN (SELECT value FROM json_each(?))
        """,
        (states(session_sources(SessionState.HIBERNATED) - ASLEEP), awake),
    ):
        sessions.lose(tx, row, sessions.Fall(cause))
        tx.change("UPDATE sessions SET state = ? WHERE key = ?", (SessionState.HIBERNATED, row["key"]))
    # When such an execution ended nobody knows, so `finished_at` stays empty.
    tx.change(
        """
        UPDATE executions SET outcome = 'outcome_unknown'
        WHERE outcome IS NULL AND NOT EXISTS (
            SELECT 1 FROM sessions WHERE key = executions.session AND sessions.incarnation = executions.incarnation
                AND key IN (SELECT value FROM json_each(?)))
        """,
        (awake,),
    )
    tx.change(
        """
        UPDATE sandboxes SET state = ?
        WHERE state IN (SELECT value FROM json_each(?)) AND id NOT IN (SELECT value FROM json_each(?))
        """,
        (
            SandboxState.DESTROYING,
            states(sandbox_sources(SandboxState.DESTROYING)),
            json.dumps([record.id for record in outliving]),
        ),
    )
    tx.change("DELETE FROM sessions WHERE state = ?", (SessionState.DESTROYING,))
    return outliving
