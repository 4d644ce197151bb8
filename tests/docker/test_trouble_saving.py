"""A disk without room, and sandboxes that stand still or die while they are saved: bounded, told, and nothing lost."""

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.channel import saves
from orchestrator.adapters.channel.unix_transport import UnixTransport
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.store.pieces.writer import SqliteSnapshotWriter
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import SandboxLostError, StoreFullError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.domain.model import SessionState
from orchestrator.domain.snapshots import Piece, SaveFailedError
from orchestrator.services import saving_log
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left
from tests.docker.test_hibernation import is_asleep, state_of, until

MIB = 1024 * 1024
_FLOOR = 16 * MIB
_PAUSE = 0.2  # seconds between two tries to save, at first


@asynccontextmanager
async def _opened(settings: Settings, engine: docker.APIClient) -> AsyncIterator[Orchestrator]:
    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as orchestrator:
        yield orchestrator
    left = await what_is_left(settings, engine, held, running)
    assert not left, left


def _settings(directory: Path, **fields: object) -> Settings:
    return Settings.load(
        data_dir=directory / "data",
        runtime_dir=directory / "run",
        channel="unix",
        interrupt_grace=0.5,
        variable_limit=100 * MIB,
        **fields,
    )


def _containers(settings: Settings) -> list[str]:
    label = f"{LABEL_INSTALLATION}={records_left(settings.data_dir / RECORDS_NAME)[0]}"
    with closing(api_client(find_engine())) as api:
        return [found["Id"] for found in api.containers(filters={"label": [label]})]


def _ask(do: Callable[[docker.APIClient], None]) -> None:
    """The engine, through a client of its own: one that stays would look like a leak."""
    with closing(api_client(find_engine())) as api:
        do(api)


# --- a full disk -------------------------------------------------------------------------------------------------


class Disk:
    """A file system of its own for a data directory, and a file that takes all but so much of it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        directory = place / "data"
        self._directory = directory
        self._ballast = directory / "ballast"

    def leave(self, free: int) -> None:
        """So much, and no more."""
        found = os.statvfs(self._directory)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - free)

    def free(self) -> None:
        """All of it."""
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield Disk(tmp_path)
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When saving failed; and the next try comes after fractions of seconds, each time later."""
    failed: list[float] = []
    usual = saving_log.SavingLog.failed

    def noted(self: saving_log.SavingLog, *arguments: object) -> None:
        failed.append(asyncio.get_running_loop().time())
        usual(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(saving_log.SavingLog, "failed", noted)
    monkeypatch.setattr(saving_log, "_PAUSES", (_PAUSE, 2 * _PAUSE, 4 * _PAUSE))
    return failed


@pytest.mark.parametrize(
    ("floor", "left"), [pytest.param(_FLOOR, _FLOOR - MIB, id="floor"), pytest.param(0, 4 * MIB, id="no room")]
)
async def test_on_a_full_disk_a_session_stays_awake_until_it_can_be_saved(
    engine: docker.APIClient, disk: Disk, tries: list[float], floor: int, left: int
) -> None:
    settings = _settings(disk.place, disk_floor=floor, snapshot_after=0.1, hibernate_after=0.3)
    async with _opened(settings, engine) as orchestrator:
        disk.leave(left)
        await orchestrator.execute("import random\nx = random.Random(1).randbytes(8_000_000)", session_id="s")

        async def tried() -> bool:
            return len(tries) >= 4

        await until(tried)
        assert all(later - sooner >= _PAUSE for sooner, later in itertools.pairwise(tries)), tries
        assert tries[3] - tries[2] >= 4 * _PAUSE, "more and more slowly"
        assert await state_of(orchestrator, "s") in (SessionState.READY, SessionState.SNAPSHOTTING)  # as it tries again
        assert len(_containers(settings)) == 1

        told = await orchestrator.execute("y = len(x)\ny", session_id="s")
        assert (told.value, told.saved_through, told.execution) == ("8000000", None, 2)
        assert any("could not be saved" in note and "tried again" in note for note in told.notes), told.notes
        with pytest.raises(StoreFullError) as caught:
            await orchestrator.save("s")
        assert caught.value.code == "store_full"
        assert await state_of(orchestrator, "s") in (SessionState.READY, SessionState.SNAPSHOTTING)
        assert (await orchestrator.list_sessions())[0].total_executions == 2
        assert (await orchestrator.check()).problems == ()

        disk.free()
        await until(lambda: is_asleep(orchestrator, "s"))
        woken = await orchestrator.execute("len(x), y", session_id="s")
        assert (woken.value, woken.saved_through) == ("(8000000, 8000000)", 2)
        assert not [note for note in woken.notes if "Lost" in note]
        assert (await orchestrator.check()).problems == ()


# --- sandboxes that stand still or die -----------------------------------------------------------------------------


@pytest.fixture
def amid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Something is done once, amid the pieces of the next snapshot."""

    def set_up(do: Callable[[], None]) -> None:
        usual = SqliteSnapshotWriter.put
        taken = 0

        async def put(self: SqliteSnapshotWriter, piece: Piece) -> None:
            nonlocal taken
            taken += 1
            if taken == 3:
                await asyncio.to_thread(do)
            await usual(self, piece)

        monkeypatch.setattr(SqliteSnapshotWriter, "put", put)

    return set_up


# More than what is on its way at once.
_LARGE = "import random\nx.append(2); big = random.Random(1).randbytes(30_000_000)"
_READ = "x, 'big' in globals()"


async def _begun(orchestrator: Orchestrator) -> None:
    await orchestrator.execute("x = [1]", session_id="s")
    await orchestrator.save("s")
    assert (await orchestrator.execute(_LARGE, session_id="s")).error is None


async def test_a_sandbox_that_stands_still_while_it_is_saved_is_given_up_on_and_saved_later(
    tmp_path: Path,
    engine: docker.APIClient,
    amid: Callable[[Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(saves, "IDLE_SECONDS", 1.0)
    settings = _settings(tmp_path, snapshot_after=1000)
    async with _opened(settings, engine) as orchestrator:
        await _begun(orchestrator)
        (container,) = _containers(settings)
        live = await orchestrator.sessions.find("s")
        amid(lambda: _ask(lambda api: api.pause(container)))
        try:
            async with asyncio.timeout(20):
                assert not await live.hibernate()
            assert await state_of(orchestrator, "s") is SessionState.READY
        finally:
            _ask(lambda api: api.unpause(container))
        assert _containers(settings) == [container]

        told = await orchestrator.execute(_READ, session_id="s")
        assert (told.value, told.saved_through) == ("([1, 2], True)", 1)
        (note,) = told.notes
        assert "could not be saved" in note
        assert "progress" in note
        monkeypatch.setattr(saves, "IDLE_SECONDS", 60.0)
        await orchestrator.save("s")
        assert await live.hibernate()
        woken = await orchestrator.execute(_READ, session_id="s")
        assert (woken.value, woken.notes) == ("([1, 2], True)", ())
        assert (await orchestrator.check()).problems == ()


async def test_a_sandbox_that_stands_still_for_good_is_a_lost_one(
    tmp_path: Path,
    engine: docker.APIClient,
    amid: Callable[[Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert UnixTransport.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(UnixTransport.__init__.__kwdefaults__, "heartbeat", 1.0)
    settings = _settings(tmp_path, snapshot_after=1000)
    async with _opened(settings, engine) as orchestrator:
        await _begun(orchestrator)
        (container,) = _containers(settings)
        amid(lambda: _ask(lambda api: api.pause(container)))
        async with asyncio.timeout(45):
            with pytest.raises((SandboxLostError, SaveFailedError)):
                await orchestrator.save("s")
        await _is_back_at_the_first(orchestrator)


async def test_a_sandbox_that_is_killed_while_it_is_saved_costs_what_no_snapshot_holds(
    tmp_path: Path, engine: docker.APIClient, amid: Callable[[Callable[[], None]], None]
) -> None:
    settings = _settings(tmp_path, snapshot_after=1000)
    async with _opened(settings, engine) as orchestrator:
        await _begun(orchestrator)
        (container,) = _containers(settings)
        amid(lambda: _ask(lambda api: api.kill(container)))
        with pytest.raises((SandboxLostError, SaveFailedError)):
            await orchestrator.save("s")
        await _is_back_at_the_first(orchestrator)


async def _is_back_at_the_first(orchestrator: Orchestrator) -> None:
    notes: list[str] = []

    async def woken() -> bool:
        result = await orchestrator.execute(_READ, session_id="s")
        assert result.error is None or result.error.code == "sandbox_lost"
        notes.extend(result.notes)
        return result.value == "([1], False)"

    await until(woken)
    assert any("Lost: the effects of execution" in note and "big" in note for note in notes), notes
    await orchestrator.save("s")
    assert (await orchestrator.check()).problems == ()
