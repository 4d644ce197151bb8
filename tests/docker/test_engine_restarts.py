"""The engine crashes and comes back, or has no room: sessions go on meanwhile, and what it cost is told.

On an engine of our own.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing

import pytest

from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.provisioning import CHANNELS_NAME
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left
from tests.docker.private_engine import PrivateEngine, why_not

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.xdist_group("private engine"),
    # The SDK leaves a socket that could not connect to the garbage collector.
    pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

BOUND = 30.0  # seconds for an answer, on a machine that may be slow


@pytest.fixture(scope="module")
def loaded() -> Iterator[PrivateEngine]:
    """With the sandbox image in it, which takes seconds and is done once."""
    private = PrivateEngine()
    try:
        private.start(live_restore=False)
        private.load_image()
        yield private
    finally:
        private.end()


@pytest.fixture
async def private(loaded: PrivateEngine, settings: Settings) -> AsyncIterator[PrivateEngine]:
    """Stopped: a test starts it as it likes. Nothing of the installation may be left in it afterwards."""
    loaded.kill()
    yield loaded
    loaded.free_disk()
    gc.collect()  # here, and not in another test
    _, rows = records_left(settings.data_dir / RECORDS_NAME)
    with closing(loaded.client()) as api:
        left = [f"container {row['Names']}" for row in api.containers(all=True)]
    left += [*rows, *leaks.files(settings.runtime_dir / CHANNELS_NAME)]
    assert not left, left


@pytest.fixture
def settings(settings: Settings, loaded: PrivateEngine) -> Settings:
    """Nothing is saved by itself, so that a loss is one."""
    changed = {"docker_host": loaded.address, "snapshot_after": 3600, "sandbox_wait": BOUND}
    return Settings.load(**{**settings.model_dump(), **changed})


async def value(orchestrator: Orchestrator, code: str, session_id: str | None = "s") -> str | None:
    async with asyncio.timeout(BOUND):
        result = await orchestrator.execute(code, session_id=session_id)
    assert result.error is None, result.error
    return result.value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(600):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never")


@pytest.mark.parametrize("live_restore", [True, False])
async def test_sessions_go_on_while_the_engine_is_away_and_what_its_return_cost_is_told(
    private: PrivateEngine, settings: Settings, *, live_restore: bool
) -> None:
    """Without live-restore an engine kills, when it starts, what the one before it has left running."""
    private.start(live_restore=live_restore)
    async with Orchestrator.open(settings) as opened:
        await value(opened, "saved = 1")
        await opened.save("s")
        await value(opened, "unsaved = 2")
        await asyncio.to_thread(private.kill)
        began = time.monotonic()
        for session_id in ("new", None):
            with pytest.raises(EngineUnavailableError):
                await opened.execute("1", session_id=session_id)
        assert time.monotonic() - began < BOUND
        assert await value(opened, "saved + unsaved") == "3"
        assert "s" in [row.session_id for row in await opened.list_sessions()]
        await asyncio.to_thread(private.start, live_restore=live_restore)
        async with asyncio.timeout(BOUND):
            result = await opened.execute("saved, 'unsaved' in globals()", session_id="s")
            if result.error is not None:  # it was found out by this very call
                assert result.error.code == "sandbox_lost"
                told = result.notes
                result = await opened.execute("saved, 'unsaved' in globals()", session_id="s")
            else:
                told = result.notes
        assert result.value == ("(1, True)" if live_restore else "(1, False)")
        assert bool(told) == (not live_restore)
        assert all("Lost" in note and "unsaved" in note for note in told), told
        assert await value(opened, "1", "new") == "1"
        assert await value(opened, "2", None) == "2"


async def test_a_place_that_the_engine_kept_while_it_was_away_is_had_again_when_it_is_back(
    private: PrivateEngine, settings: Settings
) -> None:
    private.start(live_restore=True)
    only_one = Settings.load(**{**settings.model_dump(), "max_sandboxes": 1})
    async with Orchestrator.open(only_one) as opened:
        running = asyncio.create_task(value(opened, "import time; time.sleep(2); 1", None))
        await until(lambda: claimed(opened))
        await asyncio.to_thread(private.kill)
        assert await running == "1", "the answer does not wait for the engine"
        waiting = asyncio.create_task(value(opened, "2", None))
        await until(lambda: crowded(opened))
        await asyncio.to_thread(private.start, live_restore=True)
        assert await waiting == "2"


async def claimed(orchestrator: Orchestrator) -> bool:
    return [str(row.state) for row in await orchestrator.sessions._records.sandboxes()] == ["claimed"]


async def crowded(orchestrator: Orchestrator) -> bool:
    return orchestrator.sessions._sandboxes._slots.waiting == 1


async def test_a_full_disk_of_the_engine_is_told_as_that_and_sessions_with_sandboxes_go_on(
    private: PrivateEngine, settings: Settings
) -> None:
    private.start(live_restore=False)
    async with Orchestrator.open(settings) as opened:
        await value(opened, "x = 1")
        await asyncio.to_thread(private.fill_disk)
        for session_id in ("new", None):
            with pytest.raises(EngineUnavailableError, match="no space left on device") as full:
                await opened.execute("1", session_id=session_id)
            assert "docker system df" in str(full.value.hint)
        assert await value(opened, "x") == "1"
        private.free_disk()
        assert await value(opened, "2", "new") == "2"


@pytest.mark.parametrize("milliseconds", [60, 250])
async def test_an_engine_that_dies_under_a_start_is_a_typed_error_and_leaves_nothing(
    private: PrivateEngine, settings: Settings, milliseconds: int
) -> None:
    private.start(live_restore=False)
    async with Orchestrator.open(settings) as opened:
        await value(opened, "1", "first")  # so that the image is known and a start is what is under way
        starting = asyncio.create_task(opened.execute("6 * 7", session_id="s"))
        await asyncio.sleep(milliseconds / 1000)
        await asyncio.to_thread(private.kill)
        async with asyncio.timeout(2 * BOUND):
            (outcome,) = await asyncio.gather(starting, return_exceptions=True)
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, EngineUnavailableError)
        else:
            assert (outcome.value, outcome.error) == ("42", None)
        await asyncio.to_thread(private.start, live_restore=False)
        result = await opened.execute("6 * 7", session_id="s")
        if result.error is not None:
            assert result.error.code == "sandbox_lost"
            result = await opened.execute("6 * 7", session_id="s")
        assert result.value == "42"
