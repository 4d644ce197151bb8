"""The host streams pieces: what it holds of a snapshot does not grow with it."""

import asyncio
import sys
from pathlib import Path


async def _most_memory(directory: Path, mebibytes: int) -> int:
    """KiB that saving, reading, forking and checking such a snapshot took at most."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.pieces.filled",
        str(directory),
        str(mebibytes),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=120)
    assert process.returncode == 0
    return int(output)


async def test_memory_does_not_grow_with_the_size_of_a_snapshot(tmp_path: Path) -> None:
    some = await _most_memory(tmp_path / "some", 100)
    much = await _most_memory(tmp_path / "much", 300)

    assert much < some + 16 * 1024, f"100 MiB took {some} KiB, 300 MiB {much} KiB"
