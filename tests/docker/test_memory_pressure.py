"""Sandboxes whose memory runs short: what is given up for a cell, what a bomb costs, and where nothing can go on."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from orchestrator.adapters.channel import agent_channel
from orchestrator.domain.errors import SandboxLostError
from orchestrator.domain.hardening import MIB, SandboxProfile
from orchestrator.domain.snapshots import SaveFailedError
from tests.docker.saved_sandbox import Fresh, sandbox, snapshot_engine

BOMBS = {
    "one process": "x = []\nwhile True: x.append(bytearray(5_000_000))",
    "one allocation": "import numpy as np\nx = np.ones(400_000_000)",
    "children": """
import os
while True:
    try:
        if os.fork() == 0: x = [bytearray(5_000_000) for _ in range(400)]
    except OSError: pass
""",
    "children that shield themselves": """
import os
for _ in range(60):
    if os.fork() == 0:
        try: open("/proc/self/oom_score_adj", "w").write("0")
        except OSError: pass
        x = [bytearray(5_000_000) for _ in range(400)]
x = [bytearray(5_000_000) for _ in range(400)]
""",
}


async def test_array_over_half_of_memory_is_rewritten_in_place_and_the_savepoint_given_up(tmp_path: Path) -> None:
    """300 MB under 512 MB: with a copy of each page this would be too much."""
    profile = SandboxProfile(memory=512 * MIB, workspace=64 * MIB)
    async with snapshot_engine(tmp_path / "c", profile=profile) as engine, sandbox(engine, {}) as box:
        await box.kept("import numpy as np\na = np.zeros(230_000_000, dtype=np.uint8)\na += 1")
        for _ in range(3):
            report = await box.run(
                "for _ in range(5): a += 1\nb = np.ones(60_000_000, dtype=np.uint8)\ndel b\nint(a[0])"
            )
            assert report.outcome == "ok"
        assert await box.value("int(a[0])") == "16"
        ended = await box.run("import os\nos._exit(3)")
        assert not ended.namespace_kept


async def test_session_over_half_of_memory_keeps_no_savepoint_and_says_so_once(tmp_path: Path) -> None:
    profile = SandboxProfile(memory=512 * MIB, workspace=64 * MIB)
    async with snapshot_engine(tmp_path / "c", profile=profile) as engine, sandbox(engine, {}) as box:
        await box.kept("import numpy as np")
        large = await box.run("a = np.ones(300_000_000, dtype=np.uint8)")
        assert [note for note in large.notes if "No savepoint is kept" in note]
        await box.no_savepoint()
        again = await box.run("a += 1")
        assert not [note for note in again.notes if "savepoint" in note]
        assert (await box.run("import os\nos._exit(3)")).resumed is None
        await box.kept("b = 1")
        assert (await box.run("import os\nos._exit(3)")).resumed == box.execution - 1


async def test_cell_that_takes_more_and_more_has_a_snapshot_given_up(tmp_path: Path) -> None:
    profile = SandboxProfile(memory=512 * MIB, workspace=64 * MIB)
    async with snapshot_engine(tmp_path / "c", profile=profile) as engine, sandbox(engine, {}) as box:
        await box.value("import numpy as np, time\na = np.random.default_rng(0).random(25_000_000)")
        saving = await box.agent.save(box.order())
        report = await box.run("for _ in range(3):\n    a += 1\n    time.sleep(0.1)\nb = np.ones(8_000_000)")
        assert report.outcome == "ok"  # what is our own goes first, whoever is quicker
        if [note for note in report.notes if "the snapshot that was being made was given up" in note]:
            with pytest.raises(SaveFailedError, match="memory ran short"):
                await box.finish(saving)
        else:  # the kernel was, on a busy machine: it kills what saves before the worker
            with contextlib.suppress(SaveFailedError):
                await box.finish(saving)
        assert await box.value("int(len(a))") == "25000000"


@pytest.mark.parametrize("bomb", BOMBS)
async def test_session_answers_after_bombs_and_says_what_it_stands_at(
    fresh: Fresh, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_channel, "EXECUTE_MARGIN_SECONDS", 60.0)  # hundreds of processes end at their own pace
    async with fresh() as box:
        await box.kept("kept = 1")
        for _ in range(4):
            report = await box.run(BOMBS[bomb], limit=5.0)
            if not report.namespace_kept:
                assert report.outcome in ("oom", "timeout")
                there = await box.value("'kept' in globals()")
                assert there == str(report.resumed is not None)
                await box.kept("kept = 1")


async def test_sandbox_that_files_fill_answers_or_ends_and_never_hangs(tmp_path: Path) -> None:
    """No kill frees what lies in files. Something small that is not the first to die goes on filling meanwhile."""
    profile = SandboxProfile(memory=128 * MIB, workspace=256 * MIB)
    fill = """
import subprocess
subprocess.run("(echo 0 > /proc/self/oom_score_adj) 2>/dev/null; exec dd if=/dev/zero of=fill", shell=True)
"""
    async with snapshot_engine(tmp_path / "c", profile=profile) as engine, sandbox(engine, {}) as box:
        await box.value("x = 1")
        try:
            async with asyncio.timeout(60):
                report = await box.run(fill, limit=20)
                assert report.outcome == "oom"
                assert (await box.run("import os\nos.remove('fill')")).outcome == "ok"
        except SandboxLostError:
            assert box.exit_code() in (71, 137), "its own end, or the kernel's choice"


async def test_kernel_is_told_whom_to_spare(fresh: Fresh) -> None:
    scores = "sorted(int(open(f'/proc/{p}/oom_score_adj').read()) for p in os.listdir('/proc') if p.isdigit())"
    async with fresh() as box:
        await box.kept("import os")
        assert await box.value(scores) == "[0, 0, 100, 500]", "supervisor, zygote, savepoint, worker"
        await box.savepoint()
        assert (await box.run("os._exit(3)")).resumed == 2
        await box.savepoint(2)
        assert await box.value(scores) == "[0, 0, 100, 500]"


async def test_memory_peak_is_of_its_cell(fresh: Fresh) -> None:
    async with fresh() as box:
        quiet = await box.run("1")
        large = await box.run("len(bytearray(300_000_000))")
        after = await box.run("1")
        assert 0 < quiet.memory_peak < 100_000_000
        assert 290_000_000 < large.memory_peak < 500_000_000
        assert 0 < after.memory_peak < 100_000_000
