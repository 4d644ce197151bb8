"""An installation is taken off a machine by a real command: all of it, and nothing of anybody else's."""

from pathlib import Path

import docker
import pytest

from orchestrator.app import Orchestrator
from orchestrator.purging import installation_of
from orchestrator.settings import Settings
from tests.docker.test_cli_sessions import ordered
from tests.docker.test_hurry import changed
from tests.docker.test_serve import client, keys_of, run, server
from tests.leaks import containers


async def killed_server(settings: Settings) -> None:
    """It has a session in use, and refuses to be purged; then it is killed, and its container lives on."""
    keys = await keys_of(settings)
    async with server(settings) as (url, process):
        async with client(url, keys["red"]) as speaking:
            await run(speaking, "x = 41")
        _, said = await ordered(settings, "purge", "--yes", code=4)
        if str(process.pid) not in said:
            pytest.fail(said)
        process.kill()
        await process.wait()


async def test_all_of_an_installation_goes_and_nothing_of_anybody_elses(
    settings: Settings, engine: docker.APIClient, tmp_path: Path
) -> None:
    other = changed(settings, data_dir=tmp_path / "other")
    async with Orchestrator.open(other) as neighbour:
        await neighbour.execute("y = 1", session_id="s")
        with pytest.raises(AssertionError):  # the server's own end, which is no good one
            await killed_server(settings)
        installation = installation_of(settings.data_dir / "records.sqlite3")
        assert installation is not None
        assert len(containers(engine, installation)) == 1
        foreign = settings.data_dir / "notes.txt"
        foreign.write_text("somebody else's")
        planned, _ = await ordered(settings, "purge", "--dry-run")
        assert {one["what"] for one in planned} == {"container", "file", "left"}
        assert len(containers(engine, installation)) == 1, "a dry run removes nothing"
        _, said = await ordered(settings, "purge", code=4)
        assert "--yes" in said
        ((left,), _) = await ordered(settings, "purge", "--yes", code=1)
        assert left["name"] == str(foreign)
        assert containers(engine, installation) == []
        assert list(settings.data_dir.iterdir()) == [foreign]
        foreign.unlink()
        await ordered(settings, "purge", "--yes")
        assert not settings.data_dir.exists()
        _, said = await ordered(settings, "purge", "--yes", code=2)
        assert "no data directory" in said
        assert (await neighbour.execute("y", session_id="s")).value == "1"
        await neighbour.delete("s")
