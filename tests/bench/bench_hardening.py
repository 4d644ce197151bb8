"""What our system-call profile costs beside Docker's default, in the same spec: starts, calls, and cells that ask much
of the kernel; and what Landlock and the paths that we mask cost.

Run by `make bench`. The sandboxes take turns. Each line has the quickest tenth, which a busy machine disturbs least,
and how it compares with Docker's default.
"""

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from orchestrator.adapters.engine.docker_engine import DockerEngine
from tests.docker.saved_sandbox import SavedSandbox, sandbox, snapshot_engine
from tests.security.weakened import Weakening, weaken

STARTS = 12
ROUNDS = 60
CALLS = 1_000  # of the shortest cell
SPECS: dict[str, tuple[Weakening, ...]] = {
    "Docker's default": ("docker's filter",),
    "ours": (),
    "ours, no Landlock": ("no landlock",),
    "ours, engine's masks": ("engine's masks",),
}
CELLS = {
    "x += 1": "x = globals().get('x', 0) + 1",
    "write and read 200 files": (
        "for n in range(200):\n    with open(f'f{n}', 'w') as file: file.write('x')\n    open(f'f{n}').read()"
    ),
    "map and unmap 500 times": "import mmap\nfor n in range(500): mmap.mmap(-1, 1 << 20).close()",
    "2000 messages over a socket": (
        "import socket\na, b = socket.socketpair()\nfor n in range(2000): a.send(b'x'); b.recv(1)"
    ),
    "a subprocess": "import subprocess\nsubprocess.run(['true'])",
    "numpy, 50 large arrays": "import numpy as np\nfor n in range(50): np.ones(1 << 17).sum()",
}


async def start(engine: DockerEngine) -> float:
    """Milliseconds from nothing to an agent that is claimed."""
    began = time.perf_counter()
    async with sandbox(engine, {}):
        return (time.perf_counter() - began) * 1000


async def run(started: SavedSandbox, code: str) -> float:
    """Milliseconds of a cell, with its way there and back."""
    began = time.perf_counter()
    report = await started.run(code)
    assert report.outcome == "ok", report.traceback
    return (time.perf_counter() - began) * 1000


def line(what: str, taken: dict[str, list[float]]) -> None:
    """Quickest tenths, and how they compare."""
    tenths = {name: statistics.quantiles(times, n=10)[0] for name, times in taken.items()}
    base = tenths["Docker's default"]
    told = (f"{name} {tenth:7.2f} ms ({tenth / base - 1:+6.1%})" for name, tenth in tenths.items())
    print(f"{what:28} {' | '.join(told)}")


async def main() -> None:
    """Print a line for starts and one for each cell."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="so-")))
        engines: dict[str, DockerEngine] = {}
        for number, (name, weakenings) in enumerate(SPECS.items()):
            engines[name] = await stack.enter_async_context(snapshot_engine(folder / str(number)))
            for weakening in weakenings:
                weaken(engines[name], weakening)
        starts: dict[str, list[float]] = {name: [] for name in SPECS}
        for _ in range(STARTS):
            for name, engine in engines.items():
                starts[name].append(await start(engine))
        line("start", starts)
        running = {name: await stack.enter_async_context(sandbox(engine, {})) for name, engine in engines.items()}
        for what, code in CELLS.items():
            taken: dict[str, list[float]] = {name: [] for name in SPECS}
            for _ in range(CALLS if what == "x += 1" else ROUNDS):
                for name, started in running.items():
                    taken[name].append(await run(started, code))
            line(what, taken)


if __name__ == "__main__":
    asyncio.run(main())
