"""Which files the records open, and what becomes of an older schema."""

import asyncio
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.store import schema
from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.errors import BusyError, StoreUnusableError
from tests.contract.records.steps import ENVIRONMENT, TENANT, ready_session, refused_at_opening, run_cell
from tests.manual_clock import ManualClock


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        raw.execute("PRAGMA user_version = 999")
        raw.execute("CREATE TABLE future (x)")


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE bookmarks (x)")


def _text(path: Path) -> None:
    path.write_text("This is a shopping list, and a rather long one at that.\n" * 100)


def _short(path: Path) -> None:
    path.write_bytes(b"x")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_newer, r"were written by a newer version \(schema 999; this one knows \d+\)\. Upgrade"),
        (_foreign, r"is another program's database\. Move"),
        (_text, r"is not a database\. Move"),
        (_short, r"is not a database\. Move"),
        (Path.mkdir, r"can't be used: unable to open database file\. Check"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_and_not_touched(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    path = tmp_path / "records.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None

    refused = await refused_at_opening(path)

    assert isinstance(refused, StoreUnusableError)
    with pytest.raises(StoreUnusableError, match=sentence):
        raise refused
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_directory_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused = await refused_at_opening(tmp_path / "file" / "records.db")

    assert isinstance(refused, StoreUnusableError)
    assert "can't be used" in refused.message


def _damage(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(size - 4096))  # noqa: S311 - damage needs no secrecy


async def test_damaged_records_are_told_as_such(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as records:
        for i in range(200):
            await records.ensure_session(TENANT, f"s{i}", ENVIRONMENT)
    _damage(path)

    with pytest.raises(StoreUnusableError, match=r"are damaged .* Restore"):
        async with open_records(path, clock) as records:
            await records.all_sessions()


async def test_another_process_that_holds_the_write_lock_is_waited_for_and_then_told(
    sqlite: SqliteRecords, path: Path
) -> None:
    await sqlite._db.run(lambda raw: raw.execute("PRAGMA busy_timeout = 50").fetchone())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match="Another process is writing"):
            await sqlite.remember("k", "v")
        assert await sqlite.remembered("k") is None, "reading goes on"
        other.execute("COMMIT")

    await sqlite.remember("k", "v")


async def test_two_processes_that_read_and_then_write_do_not_fail_each_other(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as one, open_records(path, clock) as other:

        async def ensure_all(records: SqliteRecords) -> list[str]:
            return [(await records.ensure_session(TENANT, f"s{i}", ENVIRONMENT)).key for i in range(200)]

        keys, same = await asyncio.wait_for(asyncio.gather(ensure_all(one), ensure_all(other)), timeout=30)

    assert keys == same


# --- migrations --------------------------------------------------------------------------------------------------


async def _one_session(path: Path) -> None:
    async with open_records(path, ManualClock()) as records:
        await run_cell(records, await ready_session(records), bound=["x"])


async def test_a_file_of_an_older_schema_is_brought_up_to_date_with_its_rows(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _one_session(path)
    newest = (*schema.MIGRATIONS, ("ALTER TABLE sessions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 7",))
    monkeypatch.setattr(schema, "MIGRATIONS", newest)

    for _ in range(2):
        async with open_records(path, clock) as records:
            assert await records._db.run(schema.schema_version) == len(newest)
            assert await records._db.run(lambda raw: raw.execute("SELECT pinned FROM sessions").fetchone()[0]) == 7
            assert [session.session_id for session in await records.sessions(TENANT)] == ["s"]


async def test_records_that_kept_the_text_of_cells_lose_it_and_nothing_else(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a" * 32
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        async with open_records(path, clock) as records:
            # By hand: the code of today knows only the schema of today.
            def fill(raw: sqlite3.Connection) -> None:
                raw.execute(
                    """
                    INSERT INTO sessions (key, tenant, session_id, state, incarnation, activity, executions,
                                          variable_count, environment, created_at, used_at, cell_bytes)
                    VALUES (?, ?, 's', 'hibernated', 1, 2, 2, 1, 'e', 1, 2, 5)
                    """,
                    (key, TENANT),
                )
                raw.execute(
                    """
                    INSERT INTO executions (session, number, incarnation, outcome, started_at)
                    VALUES (?, 1, 1, 'ok', 1)
                    """,
                    (key,),
                )
                raw.execute("INSERT INTO names (session, name, execution) VALUES (?, 'x', 1)", (key,))
                raw.execute("INSERT INTO cells (session, number, code) VALUES (?, 1, ?)", (key, b"x = 1"))

            await records._db.run(fill)

    for _ in range(2):
        async with open_records(path, clock) as records:
            assert await records._db.run(schema.schema_version) == len(schema.MIGRATIONS)
            (session,) = await records.all_sessions()
            assert (session.executions, session.variable_count, session.untold_notes) == (2, 1, ())
            assert [row.number for row in await records.executions(TENANT, "s")] == [1]
            assert await records.binding_executions(key, ["x"]) == {"x": 1}
            assert not await records._db.run(lambda raw: raw.execute("PRAGMA foreign_key_check").fetchall())
            tables = await records._db.run(lambda raw: raw.execute("SELECT sql FROM sqlite_schema").fetchall())
            assert not any("CREATE TABLE cells" in str(row["sql"]) for row in tables)


async def test_a_migration_that_fails_leaves_the_older_schema_whole(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _one_session(path)
    with monkeypatch.context() as newer:
        broken = (*schema.MIGRATIONS, ("CREATE TABLE extra (x TEXT) STRICT", "ALTER TABLE absent ADD COLUMN y"))
        newer.setattr(schema, "MIGRATIONS", broken)
        refused = await refused_at_opening(path)
        assert refused.message == "The records failed."
        assert "absent" in str(refused.__cause__)

    async with open_records(path, clock) as records:
        tables = await records._db.run(lambda raw: raw.execute("SELECT name FROM sqlite_schema").fetchall())
        assert "extra" not in {row["name"] for row in tables}
        assert [session.session_id for session in await records.sessions(TENANT)] == ["s"]


async def test_two_processes_may_open_a_new_file_at_once(path: Path, clock: ManualClock) -> None:
    async def installation() -> str:
        async with open_records(path, clock) as records:
            return records.installation

    assert len(set(await asyncio.gather(*(installation() for _ in range(8))))) == 1
