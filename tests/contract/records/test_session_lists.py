"""Sessions page by page, and how quickly the first rows of very many are there."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.model import SessionState

MANY = 100_000


async def names(records: SqliteRecords, *, tenant: str | None = None, state: str | None = None) -> list[str]:
    found: list[str] = []
    after = 0
    while page := await records.lists.page(tenant=tenant, state=state, after=after, limit=3):
        assert len(page) <= 3
        found += [listed.session.session_id for listed in page]
        after = page[-1].place
    return found


async def test_pages_have_every_session_once_in_the_order_of_their_making(tmp_path: Path) -> None:
    async with open_records(tmp_path / "records", SystemClock()) as records:
        for number in range(10):
            await records.ensure_session("a" if number % 2 else "b", f"s{number}", "environment")
        found = await records.find_session("a", "s5")
        assert found is not None
        assert await records.session_destroying(found.key)
        assert await names(records) == [f"s{number}" for number in range(10)]
        assert await names(records, tenant="a") == ["s1", "s3", "s5", "s7", "s9"]
        assert await names(records, state=SessionState.DESTROYING) == ["s5"]
        assert await names(records, tenant="nobody") == []
        assert await records.lists.states() == {"hibernated": 9, "destroying": 1}


async def test_no_page_of_very_many_sessions_has_them_all_read(tmp_path: Path) -> None:
    path = tmp_path / "records"
    async with open_records(path, SystemClock()) as records:
        await records.ensure_session("local", "s0", "environment")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            """
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            INSERT INTO sessions (key, tenant, session_id, state, environment, created_at, used_at)
            SELECT printf('%032x', i), 'local', 's' || i, 'hibernated', 'e', i, i FROM n
            """,
            (MANY,),
        )
    async with open_records(path, SystemClock()) as records:
        for after in (0, MANY // 2, MANY - 60):
            begun = time.perf_counter()
            page = await records.lists.page(after=after, limit=50)
            assert len(page) == 50
            print(f"{after}: {time.perf_counter() - begun:.4f} s")  # noqa: T201 - a figure for whoever looks
        with closing(sqlite3.connect(path)) as db:
            plan = db.execute(
                "EXPLAIN QUERY PLAN SELECT rowid FROM sessions WHERE rowid > 5 AND +tenant = 'local' ORDER BY rowid"
            ).fetchall()
        assert not any("TEMP B-TREE" in str(row) for row in plan)
