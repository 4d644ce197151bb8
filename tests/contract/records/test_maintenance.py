"""The records' file stays small and quick by itself, and nobody who uses it waits for that."""

import asyncio
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.store import maintenance, schema
from orchestrator.adapters.store.records import SqliteRecords, open_records
from tests.contract.records.steps import TENANT, ready_session, run_cell
from tests.manual_clock import ManualClock

MEGABYTE = 1_000_000
QUIET = 1.0  # seconds


def log_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def pragma(records: SqliteRecords, name: str) -> int:
    return int(await records._db.run(lambda raw: raw.execute(f"PRAGMA {name}").fetchone()[0]))


async def filled_and_emptied(records: SqliteRecords) -> None:
    """Some MB that come and go."""
    for number in range(40):
        await records.remember(str(number), "x" * (MEGABYTE // 10))
    for number in range(40):
        await records.remember(str(number), "")


async def maintained(records: SqliteRecords, clock: ManualClock) -> int:
    """All of it, as when nobody else is there: in how many steps."""
    clock.advance(QUIET)
    steps = 0
    while await records.upkeep.maintain() == "more":
        steps += 1
    return steps


async def test_what_is_free_goes_back_to_the_disk_in_small_steps(sqlite: SqliteRecords, clock: ManualClock) -> None:
    await filled_and_emptied(sqlite)
    free = await pragma(sqlite, "freelist_count")
    assert free > 800

    steps = await maintained(sqlite, clock)

    assert steps >= (free - maintenance._SPARE_PAGES) // maintenance._STEP_PAGES
    assert await pragma(sqlite, "freelist_count") == maintenance._SPARE_PAGES
    assert await pragma(sqlite, "page_count") * 4096 < 2 * MEGABYTE


async def test_the_log_is_copied_back_and_emptied(sqlite: SqliteRecords, path: Path, clock: ManualClock) -> None:
    await sqlite.remember("k", "v" * 10_000)
    assert log_size(path) > 10_000

    await maintained(sqlite, clock)

    assert log_size(path) == 0
    assert await sqlite.remembered("k") == "v" * 10_000


async def test_where_somebody_reads_an_older_state_the_log_is_kept_for_them(
    sqlite: SqliteRecords, path: Path, clock: ManualClock
) -> None:
    await sqlite.remember("k", "old")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM remembered").fetchall()
        await sqlite.remember("k", "new")

        await maintained(sqlite, clock)

        assert log_size(path) > 0
        assert ("k", "old") in reader.execute("SELECT * FROM remembered").fetchall()
    assert await sqlite.remembered("k") == "new"


async def test_while_another_process_writes_nothing_is_waited_for(
    sqlite: SqliteRecords, path: Path, clock: ManualClock
) -> None:
    await sqlite.remember("k", "v")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(4):  # less than a write waits for another one
            await maintained(sqlite, clock)
        writer.execute("ROLLBACK")


async def test_nothing_is_done_while_the_records_are_in_use(sqlite: SqliteRecords, clock: ManualClock) -> None:
    clock.advance(QUIET)
    held = threading.Event()
    call = asyncio.create_task(sqlite._db.run(lambda _: held.wait(10)))
    await asyncio.sleep(0)
    assert await sqlite.upkeep.maintain() == "in use"
    held.set()
    await call
    assert await sqlite.upkeep.maintain() == "in use", "it was used a moment ago"
    clock.advance(QUIET)
    assert await sqlite.upkeep.maintain() == "done"


async def test_indexes_are_looked_after_once_an_hour(
    sqlite: SqliteRecords, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine: Callable[[sqlite3.Connection], None] = maintenance._optimize
    done: list[float] = []

    def optimize(raw: sqlite3.Connection) -> None:
        done.append(clock.monotonic())
        genuine(raw)

    monkeypatch.setattr(maintenance, "_optimize", optimize)
    for _ in range(130):
        await maintained(sqlite, clock)
        clock.advance(60 - QUIET)

    assert len(done) == 3


async def test_a_file_of_a_version_that_could_not_shrink_learns_it_once(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(schema, "_INCREMENTAL", 0)
        async with open_records(path, clock) as records:
            await run_cell(records, await ready_session(records), bound=["x"])
            assert await pragma(records, "auto_vacuum") == 0

    async with open_records(path, clock) as records:
        assert await pragma(records, "auto_vacuum") == schema._INCREMENTAL
        assert [session.session_id for session in await records.sessions(TENANT)] == ["s"]
        await filled_and_emptied(records)
        assert await maintained(records, clock) > 5


async def test_a_file_that_cannot_learn_it_now_is_used_as_it_is(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(raw: sqlite3.Connection) -> None:
        raw.execute("BEGIN")  # in which SQLite does not write a file anew
        genuine(raw)
        raw.execute("COMMIT")

    genuine = schema._learn_to_shrink
    with monkeypatch.context() as older:
        older.setattr(schema, "_INCREMENTAL", 0)
        async with open_records(path, clock) as records:
            await records.remember("k", "v")
    monkeypatch.setattr(schema, "_learn_to_shrink", refused)
    async with open_records(path, clock) as records:
        assert await pragma(records, "auto_vacuum") == 0
        assert await records.remembered("k") == "v"
        await filled_and_emptied(records)
        assert await maintained(records, clock) == 0


async def test_calls_beside_the_copying_of_a_long_log_do_not_wait_for_it(
    sqlite: SqliteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def latency() -> float:
        began = time.perf_counter()
        await sqlite.remember("k", "v")
        return time.perf_counter() - began

    genuine = maintenance._copy_log_back
    held, copying = threading.Event(), threading.Event()

    def slow(place: Path) -> None:
        copying.set()
        held.wait(30)  # a disk that does not answer
        genuine(place)

    monkeypatch.setattr(maintenance, "_copy_log_back", slow)
    sqlite._db._used_at -= QUIET
    step = asyncio.create_task(sqlite.upkeep.maintain())
    assert await asyncio.to_thread(copying.wait, 10)

    took = [await latency() for _ in range(100)]

    held.set()
    assert await step == "done"
    assert statistics.median(took) < 1.0
