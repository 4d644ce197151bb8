"""A backup of an owner at work, killed and restored beside its live containers: the whole system."""

import asyncio
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import docker

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.store.restore import FENCE, restore
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left

BOUND = 60.0  # seconds that something may take before a test fails
_OWNER = """
import asyncio, sys
from pathlib import Path
from orchestrator.app import Orchestrator
from orchestrator.settings import Settings

async def main():
    settings = Settings.load(data_dir=sys.argv[1], runtime_dir=sys.argv[2], channel="unix", snapshot_after=1000)
    async with Orchestrator.open(settings) as orchestrator:
        await orchestrator.execute("x = 'as backed up'", session_id="s")
        await orchestrator.save("s")
        calling = asyncio.create_task(orchestrator.execute("y = sum(range(10))", session_id="other"))
        await orchestrator.back_up(Path(sys.argv[3]))
        await calling
        await orchestrator.execute("x = 'newer'", session_id="s")
        await orchestrator.save("s")
        await orchestrator.execute("x = 'newest'", session_id="s")
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_restored_owner_adopts_no_container_of_the_old_life_and_wakes_what_was_backed_up(
    settings: Settings, engine: docker.APIClient, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OWNER, str(settings.data_dir), str(settings.runtime_dir), str(backup)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    async with asyncio.timeout(BOUND):
        assert await owner.stdout.readline() == b"ready\n"
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    old = set(_containers(records_left(settings.data_dir / RECORDS_NAME)[0]))
    assert old
    done = await asyncio.to_thread(restore, backup, settings.data_dir, datetime.now(UTC), force=True)
    assert done.is_same_installation
    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as opened:
        assert (await opened.check()).problems == ()
        result = await opened.execute("x", session_id="s")
        assert result.value == "'as backed up'"
        assert result.execution is not None
        assert result.execution > FENCE
        assert not any("still alive" in note for note in result.notes)
        for _ in range(int(BOUND / 0.1)):
            if not old & set(_containers(done.installation)):
                break
            await asyncio.sleep(0.1)
        assert not old & set(_containers(done.installation))
        assert (await opened.check()).problems == ()
    assert not await what_is_left(settings, engine, held, running)


def _containers(installation: str) -> list[str]:
    with closing(api_client(find_engine())) as api:
        label = f"session-orchestrator.installation={installation}"
        return [row["Id"] for row in api.containers(all=True, filters={"label": [label]})]
