"""Real clients, real relays, a real owner process; only the sandboxes behind it are pretended."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.mcp.fake_owner import FakeSessions
from tests.mcp.harness import Installation, Relay


@pytest.fixture
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that leaves no owner and no socket behind."""
    made = Installation(tmp_path_factory.mktemp("i"))
    yield made
    made.stop_owner()
    run = made.settings.runtime_dir
    assert not run.exists() or not list(run.iterdir()), "a socket was left"


@pytest.fixture
async def spawn(installation: Installation) -> AsyncIterator[Callable[..., Awaitable[Relay]]]:
    """Start relays, with changes to their environment; all are put away at the end."""
    relays: list[Relay] = []

    async def start(**changed: str) -> Relay:
        relays.append(await Relay.spawn(installation, **changed))
        return relays[-1]

    yield start
    for relay in relays:
        await relay.put_away()


@pytest.fixture
def sessions(tmp_path: Path) -> FakeSessions:
    """Fake sessions in the test's own process."""
    return FakeSessions(tmp_path / "events", {})
