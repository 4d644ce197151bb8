"""Savepoints in a real sandbox: what a fork costs, what calls back to back lose, what a copy costs a cell, a takeover.

Run by `make bench`. All figures are of one run; the ratios stand beside them. Without savepoints is the same sandbox
while it is more than half full: then none is kept. Another sandbox would not do: of two alike, with savepoints in
neither, one takes up to a quarter more for the same calls, from its start to its end. The two take turns; a shared
machine is up to twice as fast in one turn as in the next, so both are measured against a control of the same seconds:
what this process, whose work for a call is always the same, takes of the processor for it.
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

CALLS = 1_200  # in one go: some savepoints are made meanwhile
WARM_UP = 50  # calls
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
FILL = "fill = bytearray(600_000_000)"  # of 1 GiB
PROFILE = SandboxProfile(memory=1024 * MIB, workspace=256 * MIB)


class Cost(NamedTuple):
    """Of each of some calls back to back, in seconds."""

    wall: float
    processor: float  # of the whole sandbox, as the engine counts it: what others do on the machine is not in it
    control: float  # processor time of this process, whose work is always the same: how fast the machine was just then


async def calls(box: SavedSandbox, api: docker.APIClient) -> Cost:
    """What they cost."""
    for _ in range(WARM_UP):
        await box.value("x += 1")
    used, began, own = processor_time(box, api), time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        await box.value("x += 1")
    wall, control = time.perf_counter() - began, time.process_time() - own
    return Cost(wall / CALLS, (processor_time(box, api) - used) / CALLS, control / CALLS)


def processor_time(box: SavedSandbox, api: docker.APIClient) -> float:
    """Seconds so far."""
    stats = api.stats(box.handle, stream=False, one_shot=True)
    return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


async def timed(box: SavedSandbox, code: str) -> float:
    """Seconds that a cell ran."""
    report = await box.run(code)
    assert report.outcome == "ok", report.error_message
    return report.duration


async def alone(box: SavedSandbox, api: docker.APIClient) -> Cost:
    """What calls cost where no savepoint is kept."""
    await box.value(FILL)
    await box.no_savepoint()
    cost = await calls(box, api)
    await box.kept("del fill")
    return cost


async def back_to_back(box: SavedSandbox, api: docker.APIClient) -> str:
    """In turn; medians of the pairs, as if the machine had been as fast in both halves of each."""
    pairs = [(await alone(box, api), await calls(box, api)) for _ in range(PAIRS)]
    ratios, shares = [], []
    for without, beside in pairs:
        pace = without.control / beside.control
        ratios.append(beside.wall * pace / without.wall)
        shares.append((beside.processor * pace - without.processor) / (beside.wall * pace))
    walls = (statistics.median(half.wall for half in halves) * 1e6 for halves in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    return f"{next(walls):8.0f} {next(walls):7.0f} {ratio:6.2f}{statistics.median(shares):25.1%}"


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
            print(
                "calls back to back, in µs each, without savepoints and beside them (aims: a ratio of at most 1.1, and"
            )
            print("at most a tenth of the time for what they take of the processor)")
            print("session                 two forks ms  takeover ms   alone  beside  ratio  processor for savepoints")
            for name, code in SESSIONS.items():
                async with sandbox(engine, {}) as box:
                    await box.kept(code)
                    fork = float(await box.value(FORK + "took") or 0)
                    took = await takeovers(box)
                    compared = await back_to_back(box, api)
                    print(f"{name:24}{fork * 1e3:12.1f}{took * 1e3:13.1f}{compared}")
            async with sandbox(engine, {}) as box:
                print(
                    f"{IN_PLACE_MB} MB in place, ms: alone, right after a fork, mean of 20 more; ratio of the first two"
                )
                print(await in_place(box))


if __name__ == "__main__":
    asyncio.run(main())
