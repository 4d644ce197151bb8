"""What the engine enforces is found out before anything is served, once, and what is missing is refused by its name."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from orchestrator import app
from orchestrator.adapters.engine import docker_engine, verification
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.verification import Verification
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import NotEnforcedError, StoreFullError
from orchestrator.domain.probing import cell
from orchestrator.provisioning import CHANNELS_NAME, build_engine
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left
from tests.mcp.harness import eventually
from tests.security.weakened import Weakening, weaken

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def known_enforcement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is asked anew for each data directory, and waited for on the slowest of machines."""
    monkeypatch.setattr(app, "_VERIFYING_SECONDS", 300.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images of which a throw-away sandbox was asked."""
    tags: list[str] = []
    ask = Verification._ask

    def counted(self: Verification, image: object, kind: object) -> object:
        tags.append(image.tag)  # type: ignore[attr-defined]
        return ask(self, image, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(Verification, "_ask", counted)
    return tags


@pytest.fixture
def weakened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Weakening], None]:
    """Every orchestrator that is opened from now on has sandboxes that lack that protection."""

    def begin(weakening: Weakening) -> None:
        def build(settings: Settings, records: SqliteRecords, clock: SystemClock) -> DockerEngine:
            engine = build_engine(settings, records, clock)
            weaken(engine, weakening)
            return engine

        monkeypatch.setattr(app, "build_engine", build)

    return begin


async def test_the_first_start_asks_and_the_next_ones_remember(
    settings: Settings, engine: docker.APIClient, asked: list[str]
) -> None:
    held, running = leaks.descriptors(), set(leaks.tasks())
    for _ in range(3):
        async with Orchestrator.open(settings) as orchestrator:
            assert (await orchestrator.execute("6 * 7", session_id="s")).value == "42"
            await orchestrator.delete("s")
        assert len(asked) == 1
    assert not await what_is_left(settings, engine, held, running)


async def test_other_limits_are_other_sandboxes_and_asked_anew(settings: Settings, asked: list[str]) -> None:
    for changes in ({}, {"sandbox_pids": 128}, {"sandbox_pids": 128}, {}):
        async with Orchestrator.open(settings.model_copy(update=changes)):
            pass
    assert len(asked) == 2


async def test_an_engine_that_becomes_another_under_an_owner_is_asked_anew_before_the_next_sandbox(
    settings: Settings, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an upgrade; what runs goes on, and what would not be enforced any more is not begun."""
    engines: list[DockerEngine] = []

    def build(settings: Settings, records: SqliteRecords, clock: SystemClock) -> DockerEngine:
        engines.append(build_engine(settings, records, clock))
        return engines[-1]

    monkeypatch.setattr(app, "build_engine", build)
    monkeypatch.setattr(docker_engine, "SETTLED_SECONDS", 0.0)
    ask, version = DockerEngine._info, ["99.0"]

    async def upgraded(self: DockerEngine, doing: str) -> dict[str, Any]:
        return {**await ask(self, doing), "ServerVersion": version[0]}

    async with Orchestrator.open(settings) as orchestrator:
        await orchestrator.execute("x = 41", session_id="s")
        await orchestrator.execute("1")
        assert len(asked) == 1
        monkeypatch.setattr(DockerEngine, "_info", upgraded)
        for _ in range(2):
            assert (await orchestrator.execute("1")).value == "1"
            assert len(asked) == 2
        version[0] = "100.0"
        weaken(engines[0], "writable root")
        for _ in range(2):
            with pytest.raises(NotEnforcedError, match="root"):
                await orchestrator.execute("1")
        assert (await orchestrator.execute("x + 1", session_id="s")).value == "42"
        await orchestrator.delete("s")


async def test_probes_that_were_ended_themselves_are_run_once_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel may end them when memory ends, which one of them brings about."""
    cells = ["b'x' * 2**30"]
    monkeypatch.setattr(verification, "cell", lambda *asked: cells.pop() if cells else cell(*asked))
    async with Orchestrator.open(settings) as orchestrator:
        assert "is not known yet" not in caplog.text
        assert (await orchestrator.execute("1 + 1")).value == "2"
    assert cells == []


@pytest.mark.parametrize(
    ("weakening", "name"), [("writable root", "root"), ("twice the memory", "memory"), ("a log", "log-driver")]
)
async def test_what_is_not_enforced_stops_the_start_and_leaves_nothing(
    weakening: Weakening,
    name: str,
    settings: Settings,
    engine: docker.APIClient,
    weakened: Callable[[Weakening], None],
) -> None:
    held, running = leaks.descriptors(), set(leaks.tasks())
    weakened(weakening)
    for _ in range(2):  # it is not kept: whoever mends the engine need not wait
        with pytest.raises(NotEnforcedError) as refused:
            async with Orchestrator.open(settings):
                raise AssertionError("it was opened")
    assert f": {name} (" in refused.value.message
    assert (refused.value.hint or "").endswith(f"ORCHESTRATOR_ALLOW_UNENFORCED={name}")
    assert not await what_is_left(settings, engine, held, running)


async def test_what_is_allowed_by_name_is_served_and_warned_of_at_each_start(
    settings: Settings, weakened: Callable[[Weakening], None], asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    weakened("writable root")
    allowing = settings.model_copy(update={"allow_unenforced": "root"})
    for _ in range(2):
        caplog.clear()
        async with Orchestrator.open(allowing) as orchestrator:
            assert (await orchestrator.execute("1 + 1")).value == "2"
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert any(
            "NOT ENFORCED, and allowed to be so: root (the root file system is read-only)" in one for one in told
        )
    assert len(asked) == 1
    with pytest.raises(NotEnforcedError):
        async with Orchestrator.open(settings):
            raise AssertionError("it was opened")


async def test_a_start_that_does_not_wait_lets_no_cell_run_before_the_answer(
    settings: Settings,
    weakened: Callable[[Weakening], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(app, "_VERIFYING_SECONDS", 0.01)
    weakened("writable root")
    async with Orchestrator.open(settings) as orchestrator:
        for session in ("s", None, "s"):
            with pytest.raises(NotEnforcedError, match="root"):
                await orchestrator.execute("open('/workspace/ran', 'w')", session_id=session)
        assert await orchestrator.list_sessions() == []
    assert "it takes long to find out" in caplog.text


async def test_records_that_cannot_be_written_hold_up_no_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(_self: SqliteRecords, _key: str, _value: str) -> None:
        raise StoreFullError("The disk is full.")

    monkeypatch.setattr(SqliteRecords, "remember", full)
    async with Orchestrator.open(settings) as orchestrator:
        assert "what the engine enforces is not kept: The disk is full." in caplog.text
        assert (await orchestrator.execute("1 + 1")).value == "2"


async def test_a_start_that_is_cancelled_while_it_asks_leaves_nothing(
    settings: Settings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, running = leaks.descriptors(), set(leaks.tasks())
    begun = asyncio.Event()
    look = Verification._ask

    async def told(self: Verification, image: object, kind: object) -> object:
        begun.set()
        return await look(self, image, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(Verification, "_ask", told)

    async def open_it() -> None:
        async with Orchestrator.open(settings):
            raise AssertionError("it was opened")

    opening = asyncio.create_task(open_it())
    await begun.wait()
    await asyncio.sleep(0.2)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert not await what_is_left(settings, engine, held, running)


async def test_what_a_killed_start_has_left_the_next_one_removes(settings: Settings, engine: docker.APIClient) -> None:
    program = (
        "import asyncio, sys\nfrom orchestrator.app import Orchestrator\nfrom orchestrator.settings import Settings\n"
        "async def main():\n    async with Orchestrator.open(Settings.load()): pass\nasyncio.run(main())\n"
    )
    environment = {
        **os.environ,
        "ORCHESTRATOR_DATA_DIR": str(settings.data_dir),
        "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir),
        "ORCHESTRATOR_CHANNEL": "unix",
    }
    starting = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)  # noqa: ASYNC220
    try:
        await eventually((settings.data_dir / RECORDS_NAME).exists, "the records were made")
        deadline = time.monotonic() + 30
        installation = ""
        while not (installation and leaks.containers(engine, installation)):
            assert time.monotonic() < deadline, "no throw-away sandbox was made"
            installation = installation or _installation(settings)
            await asyncio.sleep(0.005)
    finally:
        starting.send_signal(signal.SIGKILL)
        starting.wait()
    assert leaks.containers(engine, installation)
    async with Orchestrator.open(settings) as orchestrator:
        assert (await orchestrator.execute("1 + 1")).value == "2"
        await eventually(lambda: not leaks.containers(engine, installation), "what was left was removed")
    assert leaks.files(settings.runtime_dir / CHANNELS_NAME) == []


def _installation(settings: Settings) -> str:
    try:
        return records_left(settings.data_dir / RECORDS_NAME)[0]
    except Exception:  # noqa: BLE001 - it is being made
        return ""
