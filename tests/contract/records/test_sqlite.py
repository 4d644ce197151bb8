"""What is SQLite's own in the records: the file, its schema, a full disk, a killed writer."""

import asyncio
import errno
import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.errors import BusyError, StoreFullError
from tests.contract.records.steps import (
    ENVIRONMENT,
    TENANT,
    opened,
    ready_session,
    refused_at_opening,
    run_cell,
    stored,
)
from tests.manual_clock import ManualClock


async def test_nobody_else_can_read_the_file(sqlite: SqliteRecords, path: Path) -> None:
    await sqlite.ensure_session(TENANT, "s", ENVIRONMENT)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("records.db", "records.db-shm", "records.db-wal"), 0o600)


async def test_the_connection_is_set_up_as_the_design_has_it(sqlite: SqliteRecords) -> None:
    def pragmas(raw: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return {name: raw.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert await sqlite._db.run(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 5_000,
    }


async def test_nothing_of_a_deleted_session_is_left_in_any_table(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    await opened(sqlite, session)

    await sqlite.session_destroying(session.key)
    await sqlite.delete_session(session.key)

    def rows(raw: sqlite3.Connection) -> dict[str, int]:
        tables = ("sessions", "executions", "names")
        return {table: raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}  # noqa: S608 - the names stand above

    assert await sqlite._db.run(rows) == {"sessions": 0, "executions": 0, "names": 0}


# --- user ids ----------------------------------------------------------------------------------------------------


async def test_the_last_free_user_id_is_found_and_then_none(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock, uids=range(50_000, 50_030)) as records:
        sandboxes = [await records.open_sandbox("image:tag") for _ in range(30)]
        assert {sandbox.uid for sandbox in sandboxes} == set(range(50_000, 50_030))

        with pytest.raises(BusyError, match="All 30 user ids"):
            await records.open_sandbox("image:tag")

        await records.sandbox_ending(sandboxes[7].id, sandboxes[7].state.DESTROYING)
        await records.close_sandbox(sandboxes[7].id)
        assert (await records.open_sandbox("image:tag")).uid == sandboxes[7].uid


async def test_user_ids_of_an_earlier_range_do_not_count(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock, uids=range(50_000, 50_002)) as records:
        await records.open_sandbox("image:tag")

    async with open_records(path, clock, uids=range(60_000, 60_001)) as records:
        assert (await records.open_sandbox("image:tag")).uid == 60_000


# --- a full disk -------------------------------------------------------------------------------------------------


async def _fill(records: SqliteRecords) -> None:
    """No page more for the file, which is what SQLite answers on a full disk too."""

    def limit(raw: sqlite3.Connection) -> None:
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count = {pages}")

    await records._db.run(limit)


async def test_a_full_disk_is_told_and_leaves_the_records_as_they_were(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session, bound=["x"])
    number = await opened(sqlite, session)
    before, ledger = await stored(sqlite, session.key), await sqlite.executions(TENANT, "s")
    await _fill(sqlite)

    for _ in range(3):
        with pytest.raises(StoreFullError) as refused:
            await sqlite.close_execution(session.key, number, "ok", bound=["y" * 100_000], removed=[], variable_count=2)

    assert refused.value.retryable
    assert "Free some space" in str(refused.value)
    assert await stored(sqlite, session.key) == before
    assert await sqlite.executions(TENANT, "s") == ledger
    assert not await sqlite._db.run(lambda raw: raw.in_transaction)

    await sqlite._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 1000000").fetchone())
    await sqlite.close_execution(session.key, number, "ok", bound=["y" * 100_000], removed=[], variable_count=2)
    assert await opened(sqlite, session) == 3


async def test_a_disk_without_room_for_the_file_itself_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("orchestrator.adapters.store.connection.os.open", full)

    assert isinstance(await refused_at_opening(path), StoreFullError)


# --- ends in the middle ------------------------------------------------------------------------------------------


async def test_opening_may_be_cancelled_at_any_await(path: Path, clock: ManualClock) -> None:
    async def hold() -> None:
        async with open_records(path, clock):
            await asyncio.Event().wait()

    for steps in range(30):
        task = asyncio.ensure_future(hold())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()

    async with open_records(path, clock) as records:
        assert await records.all_sessions() == []


async def test_a_writer_killed_in_the_middle_leaves_what_it_committed_and_nothing_torn(
    path: Path, clock: ManualClock
) -> None:
    for _ in range(4):
        committed = await _write_and_kill(path)

        async with open_records(path, clock) as records:
            assert await records._db.run(lambda raw: raw.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
            assert await records._db.run(lambda raw: raw.execute("PRAGMA foreign_key_check").fetchall()) == []
            for session in await records.sessions(TENANT):
                closed = [row for row in await records.executions(TENANT, session.session_id) if row.outcome]
                assert closed[0].number >= committed[session.session_id]
                newest = [row.number for row in await records.executions(TENANT, session.session_id)]
                assert newest[0] == session.executions
                assert newest == list(range(newest[0], newest[-1] - 1, -1))


async def _write_and_kill(path: Path) -> dict[str, int]:
    """The last numbers that a writer said it had committed before kill -9."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.records.writer", str(path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    said = [await asyncio.wait_for(writer.stdout.readline(), timeout=30) for _ in range(400)]
    writer.kill()
    said += (await asyncio.wait_for(writer.stdout.read(), timeout=30)).splitlines(keepends=True)
    await writer.wait()
    return {name: int(number) for name, number in (line.decode().split() for line in said if line.endswith(b"\n"))}
