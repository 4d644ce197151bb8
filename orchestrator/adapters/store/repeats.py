"""Idempotency keys in SQLite. Each function runs inside one transaction, in the connection's thread."""

from datetime import datetime

from orchestrator.adapters.store.connection import RecordsConnection, Transaction, microseconds
from orchestrator.domain.repeats import KEPT_OF_A_SESSION, FirstCall, Repeat, RepeatRecords


class SqliteRepeats(RepeatRecords):
    """`RepeatRecords` over the records' connection."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection

    async def first_call(self, tenant: str, session_id: str, key: str) -> FirstCall | None:
        """What that key was used for."""
        return await self._db.read(lambda tx: _first(tx, tenant, session_id, key))

    async def forget_calls(self, before: datetime) -> None:
        """Forget old keys."""
        await self._db.write(lambda tx: tx.change("DELETE FROM repeats WHERE at < ?", (microseconds(before),)))


def note(tx: Transaction, session: str, number: int, repeat: Repeat) -> None:
    """That call is the first one with its key: of the session's name, which outlives the session."""
    tx.change(
        """
        INSERT OR REPLACE INTO repeats (tenant, session_id, key, request, session, execution, at)
        SELECT tenant, session_id, ?, ?, key, ?, ? FROM sessions WHERE key = ?
        """,
        (repeat.key, repeat.request, number, tx.now, session),
    )
    tx.change("DELETE FROM repeats WHERE session = ? AND execution <= ?", (session, number - KEPT_OF_A_SESSION))


def _first(tx: Transaction, tenant: str, session_id: str, key: str) -> FirstCall | None:
    row = tx.row(
        """
        SELECT request, session, execution FROM repeats
        WHERE tenant = ? AND session_id = ? AND key = ?
          AND NOT EXISTS (SELECT 1 FROM executions WHERE executions.session = repeats.session
                          AND number = execution AND outcome = 'never_arrived')
        """,
        (tenant, session_id, key),
    )
    return None if row is None else FirstCall(row["request"], row["session"], row["execution"])
