"""The fixtures that say "nothing leaked" see what is planted for them."""

import asyncio
import secrets
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import docker
import pytest

from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.provisioning import CHANNELS_NAME, find_image
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left


@pytest.fixture
async def closed(settings: Settings) -> Settings:
    """An installation whose orchestrator has run and ended."""
    async with Orchestrator.open(settings) as opened:
        await opened.execute("x = 1", session_id="s")
    return settings


async def left(settings: Settings, engine: docker.APIClient, held: set[str]) -> list[str]:
    return await what_is_left(settings, engine, held, set(leaks.tasks()))


async def test_nothing_is_found_where_nothing_is_left(closed: Settings, engine: docker.APIClient) -> None:
    assert await left(closed, engine, leaks.descriptors()) == []


async def test_a_container_left_behind_is_seen(closed: Settings, engine: docker.APIClient) -> None:
    image = find_image()
    assert image is not None
    installation, _ = records_left(closed.data_dir / RECORDS_NAME)
    planted = engine.create_container(image.tag, labels={LABEL_INSTALLATION: installation})
    held = leaks.descriptors()
    try:
        found = await left(closed, engine, held)
    finally:
        engine.remove_container(planted["Id"], force=True)
    assert [name.split()[0] for name in found] == ["container"]


async def test_a_task_left_behind_is_seen(closed: Settings, engine: docker.APIClient) -> None:
    held, running = leaks.descriptors(), set(leaks.tasks())
    planted = asyncio.create_task(asyncio.sleep(60), name="planted")
    found = await what_is_left(closed, engine, held, running)
    planted.cancel()
    assert found == ["task planted"]


async def test_a_descriptor_left_behind_is_seen(closed: Settings, engine: docker.APIClient) -> None:
    held = leaks.descriptors()
    with closing(socket.socket()):
        found = await left(closed, engine, held)
    assert [name.split(":")[0] for name in found] == ["descriptor socket"]


async def test_a_channel_directory_left_behind_is_seen(closed: Settings, engine: docker.APIClient) -> None:
    planted = closed.runtime_dir / CHANNELS_NAME / "planted"
    planted.mkdir(parents=True)
    assert await left(closed, engine, leaks.descriptors()) == ["file planted"]


async def test_rows_left_open_are_seen(closed: Settings, engine: docker.APIClient) -> None:
    with closing(sqlite3.connect(closed.data_dir / RECORDS_NAME)) as records:
        records.execute("PRAGMA foreign_keys = OFF")
        records.execute(
            "INSERT INTO sandboxes (id, state, uid, secret, image) VALUES ('planted', 'claimed', 1, ?, 'i')",
            (secrets.token_hex(),),
        )
        records.execute("INSERT INTO executions (session, number, incarnation, started_at) VALUES ('planted', 7, 1, 0)")
        records.commit()
    found = await left(closed, engine, leaks.descriptors())
    assert found == ["sandbox row planted (claimed)", "open execution 7 of planted"]


async def test_a_transaction_left_open_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "held.sqlite3"
    held = leaks.descriptors()
    with closing(sqlite3.connect(path)) as records:
        records.execute("CREATE TABLE t (x)")
        assert leaks.descriptors() - held
        assert leaks.transaction_open(path) is False
        records.execute("INSERT INTO t VALUES (1)")
        assert leaks.transaction_open(path) is True
        records.rollback()
