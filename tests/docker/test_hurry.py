"""An end in a hurry: nobody waits for an engine that does not answer, and what it leaves the next owner finds."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import docker
import pytest

from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left
from tests.docker.engine_relay import EngineRelay


def changed(settings: Settings, **fields: object) -> Settings:
    return Settings.load(**{**settings.model_dump(), **fields})


async def test_who_hurries_waits_for_no_removal_and_the_next_owner_makes_up_for_it(
    settings: Settings, engine: docker.APIClient
) -> None:
    relay = EngineRelay()
    slow = changed(settings, docker_host=relay.address, channel="attach")
    try:
        async with Orchestrator.open(slow) as opened:
            await opened.execute("x = 1", session_id="s")
            installation, _ = records_left(settings.data_dir / RECORDS_NAME)
            relay.fault("DELETE /", "hold", seconds=60.0)
            asyncio.get_running_loop().call_later(1, opened.hurry)
            began = time.monotonic()
        assert 1 <= time.monotonic() - began < 5
        assert len(leaks.containers(engine, installation)) == 1
    finally:
        relay.close()
    async with Orchestrator.open(settings):
        for _ in range(300):
            if not leaks.containers(engine, installation) and not records_left(settings.data_dir / RECORDS_NAME)[1]:
                break
            await asyncio.sleep(0.1)
    assert leaks.containers(engine, installation) == []
    assert records_left(settings.data_dir / RECORDS_NAME)[1] == []


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_but_what_it_names(tmp_path: Path, signals: int, number: int) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "ORCHESTRATOR_RUNTIME_DIR": tempfile.mkdtemp()}
    command = [sys.executable, "-m", "orchestrator", "demo", "--output", str(tmp_path / "figures")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if ">>>" in line:
                break
        for _ in range(signals):
            demo.send_signal(number)
            time.sleep(0.3)
        out, err = demo.communicate(timeout=60)
    assert demo.returncode == 1, out + err
    assert "ended by a signal" in out
    kept = list(tmp_path.glob("orchestrator-demo-*"))
    if "no container, process or socket is left" in out:
        assert kept == []
    else:
        assert signals == 2
        assert f"owner --data-dir {kept[0]}" in err
