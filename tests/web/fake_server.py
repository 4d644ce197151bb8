"""`orchestrator serve` with sessions that only pretend, as a program."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import __version__
from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.domain.access import Caller
from orchestrator.domain.errors import OrchestratorError
from orchestrator.serve_process import run_server
from orchestrator.settings import Settings
from tests.mcp.fake_owner import FakeOperations, FakeReloading, FakeSessions
from tests.web.harness import KnownKeys


@dataclass
class Opened:
    """What `Orchestrator.open` gives to the real server."""

    sessions: FakeSessions
    operations: FakeOperations = field(default_factory=FakeOperations)
    credentials: KnownKeys = field(default_factory=KnownKeys)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def reloading(self) -> FakeReloading:
        """Of this one."""
        return FakeReloading(self.sessions)

    def on_behalf(self, _caller: Caller) -> FakeSessions:
        """The same for everybody."""
        return self.sessions

    async def ready(self) -> Mapping[str, bool]:
        """All is there."""
        return {"engine": True}

    async def figures(self) -> bytes:
        """One."""
        return b"orchestrator_up 1\n"

    def hurry(self) -> None:
        """As an end with nothing to do."""
        self.hurried.set()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """With a file `slow` beside the events, its end takes a minute unless somebody is in a hurry."""
    directory = DataDirectory.own(settings.data_dir, kind="server", version=__version__, socket=settings.owner_socket)
    events = settings.data_dir.parent / "events"
    orchestrator = Opened(FakeSessions(events, {}))
    try:
        yield orchestrator
    finally:
        orchestrator.sessions.note("closing")
        if events.with_name("slow").exists():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(orchestrator.hurried.wait(), 60)
        orchestrator.sessions.note("closed")
        directory.release()


def main() -> None:
    """Serve, and print the address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()

    def started(address: str) -> None:
        print(address, flush=True)  # noqa: T201 - for the test that waits for it

    try:
        run_server(lambda: Settings.load(data_dir=options.data_dir), opened, started=started)
    except OrchestratorError as failure:
        raise SystemExit(str(failure)) from failure


if __name__ == "__main__":
    main()
