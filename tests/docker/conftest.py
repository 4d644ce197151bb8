"""A real engine, a real image, and an orchestrator for each test that has to leave nothing behind."""

import asyncio
import fcntl
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
from mcp import StdioServerParameters

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.verification import KEPT_AS
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.provisioning import CHANNELS_NAME
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.saved_sandbox import ENFORCED, Fresh, Pieces, sandbox, snapshot_engine
from tests.mcp.harness import Installation
from tests.pace import paced
from tests.security.weakened import weaken


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.APIClient]:
    """The engine that `make test` has brought up."""
    with closing(api_client(find_engine())) as api:
        yield api


@pytest.fixture
def alone_among_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of all test processes only one makes and removes images: what one removes another may be building upon."""
    with (tmp_path_factory.getbasetemp().parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def known_enforcement(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test found out about engine, image and spec need not be asked for the next test's data directory."""
    remembered, remember = SqliteRecords.remembered, SqliteRecords.remember

    async def recall(self: SqliteRecords, key: str) -> str | None:
        return ENFORCED.get(key) if key == KEPT_AS else await remembered(self, key)

    async def keep(self: SqliteRecords, key: str, value: str) -> None:
        if key == KEPT_AS:
            ENFORCED[key] = value
        else:
            await remember(self, key, value)

    monkeypatch.setattr(SqliteRecords, "remembered", recall)
    monkeypatch.setattr(SqliteRecords, "remember", keep)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation of its own. The channel is named, so that not every test probes for it."""
    runtime = tmp_path / "run"
    return Settings.load(data_dir=tmp_path / "data", runtime_dir=runtime, channel="unix", interrupt_grace=paced(0.5))


@pytest.fixture
async def orchestrator(settings: Settings, engine: docker.APIClient) -> AsyncIterator[Orchestrator]:
    """Opened as a library would, closed at the end; then nothing may be left."""
    held = leaks.descriptors()
    running = set(leaks.tasks())
    async with Orchestrator.open(settings) as opened:
        yield opened
    left = await what_is_left(settings, engine, held, running)
    assert not left, left


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Fresh]:
    """Sandboxes without an orchestrator that know each other's pieces, as through a store."""
    pieces: Pieces = {}
    async with snapshot_engine(tmp_path / "c") as made:
        yield lambda: sandbox(made, pieces)


@pytest.fixture
async def fresh_without_landlock(tmp_path: Path) -> AsyncIterator[Fresh]:
    """The same as on an older kernel, where a cell can reach the process that its worker was forked from."""
    async with snapshot_engine(tmp_path / "c") as made:
        weaken(made, "no landlock")
        yield lambda: sandbox(made, {})


@pytest.fixture
def served(tmp_path: Path, engine: docker.APIClient) -> Iterator[StdioServerParameters]:
    """How a client's configuration starts the product; its owner is ended afterwards, and nothing may be left."""
    installation = Installation(tmp_path)
    environment = {**installation.environment, "ORCHESTRATOR_CHANNEL": "unix"}
    yield StdioServerParameters(command=sys.executable, args=["-m", "orchestrator", "mcp"], env=environment, cwd="/")
    installation.stop_owner()
    identity, rows = records_left(installation.settings.data_dir / RECORDS_NAME)
    left = [
        *rows,
        *leaks.containers(engine, identity),
        *leaks.files(installation.settings.runtime_dir / CHANNELS_NAME),
        *(f"socket {path}" for path in installation.settings.runtime_dir.rglob("*") if path.is_socket()),
    ]
    assert not left, left


async def what_is_left(settings: Settings, engine: docker.APIClient, held: set[str], running: set[str]) -> list[str]:
    """Everything that a closed orchestrator has left, named."""
    await asyncio.sleep(0)  # tasks that have just ended leave the loop
    # First: the engine's client below opens connections of its own.
    descriptors = await _descriptors_beyond(held)
    installation, rows = records_left(settings.data_dir / RECORDS_NAME)
    return [
        *leaks.containers(engine, installation),
        *(task for task in leaks.tasks() if task not in running),
        *leaks.files(settings.runtime_dir / CHANNELS_NAME),
        *(f"descriptor {name}" for name in descriptors),
        *rows,
        *(["a transaction"] if leaks.transaction_open(settings.data_dir / RECORDS_NAME) else []),
    ]


async def _descriptors_beyond(held: set[str]) -> set[str]:
    """What is open beyond that; disposable threads close theirs within a moment of the end."""
    for _ in range(40):
        if not leaks.descriptors() - held:
            break
        await asyncio.sleep(0.05)
    return leaks.descriptors() - held


def records_left(path: Path) -> tuple[str, list[str]]:
    """The installation's id, and rows that a clean end should have closed."""
    with closing(sqlite3.connect(path)) as records:
        (installation,) = records.execute("SELECT id FROM installation").fetchone()
        sandboxes = records.execute("SELECT id, state FROM sandboxes").fetchall()
        opened = records.execute("SELECT session, number FROM executions WHERE outcome IS NULL").fetchall()
    rows = [f"sandbox row {name} ({state})" for name, state in sandboxes]
    return installation, rows + [f"open execution {number} of {session}" for session, number in opened]
