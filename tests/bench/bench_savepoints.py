"""Savepoints in a real sandbox: what a fork costs, what calls back to back lose, what a copy costs a cell, a takeover.

Run by `make bench`. All figures are of one run; the ratios stand beside them. Without savepoints is a second sandbox,
which is more than half full: in it none is kept. Processor time is what holds on a
busy machine; wall time is what a caller sees.
"""

import asyncio
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import docker

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.domain.hardening import MIB, SandboxProfile
from tests.docker.saved_sandbox import SavedSandbox, sandbox, snapshot_engine

CALLS = 300  # in one go
PAIRS = 9
ROUNDS = 7
IN_PLACE_MB = 200
SESSIONS = {
    "bare": "x = 0",
    "pandas": "x = 0\nimport pandas",
    "200 MB in arrays": "x = 0\nimport numpy as np\nkept = np.ones(200_000_000, dtype=np.uint8)",
    "1 000 000 objects": "x = 0\nkept = [[n] for n in range(500_000)]",
}
# In a fork of the worker's own, twice, as it is done for a savepoint.
FORK = """
import os, time
def fork_twice():
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        if os.fork() == 0: time.sleep(0.05)
        os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - began
took = sorted(fork_twice() for _ in range(9))[4]
"""
FILL = "open('/workspace/fill', 'wb').write(bytes(250_000_000))\nfill = bytearray(320_000_000)"  # of 1 GiB
PROFILE = SandboxProfile(memory=1024 * MIB, workspace=256 * MIB)


class Cost(NamedTuple):
    """Of each of some calls back to back, in seconds."""

    wall: float
    processor: float  # of the whole sandbox, as the engine counts it: what others do on the machine is not in it


async def calls(box: SavedSandbox, api: docker.APIClient) -> Cost:
    """What they cost."""
    used, began = processor_time(box, api), time.perf_counter()
    for _ in range(CALLS):
        await box.value("x += 1")
    wall = time.perf_counter() - began
    return Cost(wall / CALLS, (processor_time(box, api) - used) / CALLS)


def processor_time(box: SavedSandbox, api: docker.APIClient) -> float:
    """Seconds so far."""
    stats = api.stats(box.handle, stream=False, one_shot=True)
    return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


async def timed(box: SavedSandbox, code: str) -> float:
    """Seconds that a cell ran."""
    report = await box.run(code)
    assert report.outcome == "ok", report.error_message
    return report.duration


async def back_to_back(box: SavedSandbox, alone: SavedSandbox, api: docker.APIClient) -> str:
    """In turn, so that a busy machine is busy for both; the medians of the pairs' ratios."""
    pairs = [(await calls(alone, api), await calls(box, api)) for _ in range(PAIRS)]
    columns = []
    for kind in range(2):
        without, beside = (statistics.median(cost[kind] for cost in column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(second[kind] / first[kind] for first, second in pairs)
        columns.append(f"{without * 1e6:7.0f} {beside * 1e6:7.0f}   {ratio:5.2f}")
    return "     ".join(columns)


async def takeovers(box: SavedSandbox) -> float:
    """Seconds from the end of a worker to the next answer's beginning."""
    took = []
    for _ in range(ROUNDS):
        await box.kept("x += 1")
        began = time.perf_counter()
        ended = await box.run("import os\nos._exit(3)")
        took.append(time.perf_counter() - began)
        assert ended.resumed == box.execution - 1
        await box.savepoint(box.execution - 1)
    return statistics.median(took)


async def in_place(box: SavedSandbox) -> str:
    """An array that is rewritten, right after a fork and again."""
    await box.kept(f"import numpy as np\na = np.ones({IN_PLACE_MB} * 1_000_000, dtype=np.uint8)")
    first = await timed(box, "a += 1")
    again = statistics.median([await timed(box, "a += 1") for _ in range(3)])
    rest = [await timed(box, "a += 1") for _ in range(20)]
    return f"{again * 1e3:7.1f} {first * 1e3:7.1f} {statistics.mean(rest) * 1e3:7.1f}   {first / again:5.1f}"


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="so-") as scratch, closing(api_client(find_engine())) as api:
        async with snapshot_engine(Path(scratch) / "c", profile=PROFILE) as engine:
            print("calls back to back, in µs each, beside savepoints and without; the aim is a ratio of at most 1.1")
            print(
                "session                 two forks ms   takeover ms      wall: alone  beside  ratio"
                "     processor: alone  beside  ratio"
            )
            for name, code in SESSIONS.items():
                async with sandbox(engine, {}) as box, sandbox(engine, {}) as alone:
                    await box.kept(code)
                    await alone.value(f"{code}\n{FILL}")
                    await alone.no_savepoint()
                    fork = float(await box.value(FORK + "took") or 0)
                    took = await takeovers(box)
                    ratios = await back_to_back(box, alone, api)
                    print(f"{name:24}{fork * 1e3:12.1f}{took * 1e3:14.1f}            {ratios}")
            async with sandbox(engine, {}) as box:
                print(
                    f"{IN_PLACE_MB} MB in place, ms: alone, right after a fork, mean of 20 more; ratio of the first two"
                )
                print(await in_place(box))


if __name__ == "__main__":
    asyncio.run(main())
