"""How many system calls are open in a sandbox, beside Docker's default profile and no profile at all.

Run by `make bench`. Each call is tried in a sandbox, with arguments that fit nothing and with zeros; it counts as open
where one of the two got into the kernel. The kernel's own refusals count as closed for all three alike.
"""

import asyncio
import tempfile
from pathlib import Path

from tests.docker.saved_sandbox import sandbox, snapshot_engine
from tests.security.arena import PRELUDE
from tests.security.sweep import reached, swept
from tests.security.weakened import Weakening, weaken
from tests.unit.test_seccomp_profile import POLICY

PROFILES: dict[str, Weakening | None] = {"ours": None, "Docker's default": "docker's filter", "none": "no filter"}


async def open_calls(weakening: Weakening | None) -> set[str]:
    """Those that got into the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        async with snapshot_engine(Path(folder) / "c") as engine:
            if weakening is not None:
                weaken(engine, weakening)
            async with sandbox(engine, {}) as started:
                await started.run(PRELUDE)
                return reached(await swept(started))


async def main() -> None:
    """Print the counts, and what only Docker's default lets through."""
    opened = {name: await open_calls(weakening) for name, weakening in PROFILES.items()}
    for name, calls in opened.items():
        print(f"{name:>18}: {len(calls):3} system calls get into the kernel")
    more = opened["Docker's default"] - opened["ours"]
    filtered = {name for group in POLICY["group"] if "where" in group for name in group["calls"]}
    print(f"open in Docker's default and closed in ours: {len(more - filtered)}: {', '.join(sorted(more - filtered))}")
    print(f"open in ours by their arguments only: {len(filtered)}: {', '.join(sorted(filtered))}")
    print("32-bit and x32 calls: none in ours; Docker's default opens the 32-bit ones as well")


if __name__ == "__main__":
    asyncio.run(main())
