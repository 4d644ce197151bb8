"""`SessionLists` over the records' connection."""

from collections.abc import Mapping, Sequence

from orchestrator.adapters.store.connection import RecordsConnection, Transaction
from orchestrator.adapters.store.sessions import COLUMNS, session_of
from orchestrator.domain.session_lists import Listed, SessionLists


class SqliteSessionLists(SessionLists):
    """Part of `SqliteRecords`, which makes it."""

    def __init__(self, connection: RecordsConnection) -> None:
        self._db = connection

    async def page(
        self, *, tenant: str | None = None, state: str | None = None, after: int = 0, limit: int = 500
    ) -> Sequence[Listed]:
        """The sessions after that place."""
        return await self._db.read(lambda tx: _page(tx, tenant, state, after, limit))

    async def states(self) -> Mapping[str, int]:
        """How many there are in each state."""
        return await self._db.read(_states)


def _page(tx: Transaction, tenant: str | None, state: str | None, after: int, limit: int) -> Sequence[Listed]:
    # The plus keeps SQLite from an index that would have it sort all of a tenant's sessions for each page.
    rows = tx.rows(
        f"""
        SELECT rowid AS place, {COLUMNS} FROM sessions
        WHERE rowid > :after AND (:tenant IS NULL OR +tenant = :tenant) AND (:state IS NULL OR +state = :state)
        ORDER BY rowid LIMIT :limit
        """,  # noqa: S608 - the columns stand in sessions.py
        {"after": after, "tenant": tenant, "state": state, "limit": limit},
    )
    return [Listed(row["place"], session_of(row)) for row in rows]


def _states(tx: Transaction) -> Mapping[str, int]:
    return {row["state"]: row["number"] for row in tx.rows("SELECT state, count(*) AS number FROM sessions GROUP BY 1")}
