"""Every implementation of the records runs through the same suite; a new one is a line in the table here."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.ports import Clock, Records
from tests.contract.records.steps import Opener
from tests.manual_clock import ManualClock


@asynccontextmanager
async def _sqlite(path: Path, clock: Clock) -> AsyncIterator[Records]:
    threads = set(threading.enumerate())
    async with open_records(path, clock) as records:
        yield records
        if not records._db._is_closing:
            assert not await records._db.run(lambda raw: raw.in_transaction), "a transaction was left open"
    # The loop's own executor may have grown meanwhile; what must end is the connection's thread.
    for thread in set(threading.enumerate()) - threads:
        if "_connection_worker" in thread.name:
            thread.join(timeout=5)
            assert not thread.is_alive(), "the connection's thread was left"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "records.db"


@pytest.fixture(params=[pytest.param(_sqlite, id="sqlite")])
def open_again(request: pytest.FixtureRequest, path: Path, clock: ManualClock) -> Opener:
    return lambda: request.param(path, clock)


@pytest.fixture
async def records(open_again: Opener) -> AsyncIterator[Records]:
    async with open_again() as opened:
        yield opened


@pytest.fixture
async def sqlite(path: Path, clock: ManualClock) -> AsyncIterator[SqliteRecords]:
    async with open_records(path, clock) as records:
        yield records
