"""The host streams pieces: what it holds of a snapshot does not grow with it."""

import asyncio
import os
import sys
from pathlib import Path


async def _most_memory(directory: Path, amount: int, program: str = "filled") -> int:
    """KiB that such a program took at most: saving, reading, forking and checking so many MiB, or dust."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.contract.pieces.{program}",
        str(directory),
        str(amount),
        stdout=asyncio.subprocess.PIPE,
        # What is freed goes back at once, so that the most it used is the most it held.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=120)
    assert process.returncode == 0
    return int(output)


async def test_memory_does_not_grow_with_the_size_of_a_snapshot(tmp_path: Path) -> None:
    some = await _most_memory(tmp_path / "some", 200)
    much = await _most_memory(tmp_path / "much", 500)

    # One batch of 32 MiB more or less is what the disk's pace decides.
    assert much < some + 64 * 1024, f"200 MiB took {some} KiB, 500 MiB {much} KiB"


async def test_what_is_remembered_of_a_piece_that_was_sent_is_small(tmp_path: Path) -> None:
    some = await _most_memory(tmp_path / "some", 10_000, "dust")
    much = await _most_memory(tmp_path / "much", 110_000, "dust")

    assert much < some + 100_000 * 240 // 1024, f"10,000 pieces took {some} KiB, 110,000 pieces {much} KiB"


async def test_a_capsule_is_written_and_read_in_memory_that_does_not_grow_with_it(tmp_path: Path) -> None:
    some = await _most_memory(tmp_path / "some", 200, "capsuled")
    much = await _most_memory(tmp_path / "much", 500, "capsuled")

    assert much < some + 64 * 1024, f"200 MiB took {some} KiB, 500 MiB {much} KiB"
