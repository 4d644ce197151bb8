"""Saving and waking through the library, beside what they cannot do without: copying, writing, hashing, unpickling.

Run by `make bench`; with letters as arguments only those parts. Each line is the median of turns in which the product
and its raw limit alternate, so ratios mean something on a busy machine and milliseconds mean little.
"""

import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from orchestrator.adapters.channel.link import AgentLink
from orchestrator.adapters.host_memory import keep_freed_memory
from orchestrator.app import Orchestrator
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.slots import Slot
from orchestrator.services.survivors import Sandbox
from orchestrator.settings import Settings
from tests.bench.snapshot_limits import FRESH, HASHED, SPIN, UNPICKLED, VALUES, memcpy_s, sqlite_s

TURNS = 5
MB = 1_000_000
GB = 1_000 * MB
ARRAY = 100 * MB


@asynccontextmanager
async def opened(*, cpus: float = 1.0, memory: str = "4GiB") -> AsyncIterator[Orchestrator]:
    """The product on the disk of this directory, which saves only when it is told to."""
    with tempfile.TemporaryDirectory(prefix="so-") as run, tempfile.TemporaryDirectory(dir=Path.cwd()) as data:
        settings = Settings.load(
            data_dir=data,
            runtime_dir=run,
            channel="unix",
            sandbox_cpus=cpus,
            sandbox_memory=memory,
            sandbox_workspace="64MiB",
            variable_limit="4GiB",
            session_limit="4GiB",
            snapshot_after=80_000,
            snapshot_max_age=80_000,
            snapshot_history=2,
            default_time_limit=600,
        )
        async with Orchestrator.open(settings) as orchestrator:
            yield orchestrator


async def timed(work: Awaitable[Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    gc.collect()
    began = time.perf_counter()
    result = await work
    return time.perf_counter() - began, result


async def run(orchestrator: Orchestrator, session: str, code: str) -> str:
    """A cell that must not fail; its value."""
    result = await orchestrator.execute(code, session_id=session)
    assert result.error is None, result.error
    return result.value or ""


async def asleep(orchestrator: Orchestrator, session: str) -> None:
    """Hibernate it as the reaper would, and wait until its container is gone."""
    live = await orchestrator.sessions.find(session)
    assert await live.hibernate()
    await live._incarnation.removed()


class Wakes:
    """When sandboxes were started: a wake counts from there to the answer of the call that wanted it."""

    def __init__(self) -> None:
        self.started = 0.0

    @classmethod
    @asynccontextmanager
    async def watched(cls) -> AsyncIterator["Wakes"]:
        """Look on while the block runs."""
        wakes, start = cls(), Sandboxes.start

        async def watched(  # noqa: PLR0917 - as what it stands for
            sandboxes: Sandboxes,
            slot: Slot,
            session: str | None,
            incarnation: int,
            environment: str | None = None,
            profile: SandboxProfile | None = None,
        ) -> Sandbox:
            sandbox = await start(sandboxes, slot, session, incarnation, environment, profile)
            await sandbox.agent.list_variables()  # its worker stands, and waits for its first request
            wakes.started = time.perf_counter()
            return sandbox

        Sandboxes.start = watched  # type: ignore[method-assign, assignment]
        try:
            yield wakes
        finally:
            Sandboxes.start = start  # type: ignore[method-assign]

    async def wake(self, orchestrator: Orchestrator, session: str) -> float:
        """Seconds from the started sandbox to the answer."""
        await asleep(orchestrator, session)
        assert await run(orchestrator, session, "1") == "1"
        return time.perf_counter() - self.started


class Traffic:
    """Bytes that came from sandboxes."""

    def __init__(self) -> None:
        self.bytes = 0
        updated = AgentLink.buffer_updated

        def counted(link: AgentLink, nbytes: int) -> None:
            self.bytes += nbytes
            updated(link, nbytes)

        AgentLink.buffer_updated = counted  # type: ignore[method-assign, assignment]


def ms(seconds: float) -> str:
    """As it is printed."""
    return f"{seconds * 1e3:6.0f} ms"


def median(rows: Sequence[Sequence[float]]) -> list[float]:
    """Of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


async def saving(cpus: float) -> None:
    """A: 100 MB of new bytes."""
    data, rows = os.urandom(ARRAY), []
    async with opened(cpus=cpus) as o:
        await run(o, "s", FRESH)
        for _ in range(TURNS):
            await run(o, "s", f"kept = fresh({ARRAY})")
            took, summary = await timed(o.save("s"))
            assert summary.new_bytes >= ARRAY, summary
            rows.append((took, memcpy_s(data), sqlite_s(data)))
    ratios = [took / (copy + write) for took, copy, write in rows]
    took, copy, write = median(rows)
    print(
        f"a  100 MB array, {cpus:.0f} CPU: save {ms(took)}; memcpy {ms(copy)} + SQLite {ms(write)}"
        f"   {statistics.median(ratios):.2f} times their sum, {min(ratios):.2f} at best (aim: at most 2)"
    )


async def waking(cpus: float) -> None:
    """B: 10 MB, of several kinds."""
    async with opened(cpus=cpus) as o, Wakes.watched() as wakes:
        for kind, code in VALUES.items():
            await run(o, kind, code)
            rows = []
            for _ in range(TURNS):
                woken = await wakes.wake(o, kind)
                bare = float(await run(o, kind, UNPICKLED))
                await run(o, kind, "del took, pickle, subprocess, file, sys, _")
                rows.append((woken, bare))
            over, least = statistics.median(by := [woken - bare for woken, bare in rows]), min(by)
            woken, bare = median(rows)
            print(
                f"b  10 MB of {kind:8} {cpus:.0f} CPU: wake {ms(woken)}, unpickling in a fresh process {ms(bare)}"
                f"   {ms(over)} over it, {ms(least)} at best (aim: at most 50)"
            )


async def again(cpus: float) -> None:
    """C: 1 GB, and a small change beside it."""
    traffic, rows = Traffic(), []
    async with opened(cpus=cpus) as o:
        for turn in range(3):
            session = f"s{turn}"
            await run(o, session, f"import sys; x = 0\n{FRESH}\narrays = [fresh({ARRAY}) for _ in range(10)]")
            first, _ = await timed(o.save(session))
            await run(o, session, "x += 1")
            before = traffic.bytes
            second, summary = await timed(o.save(session))
            sent = traffic.bytes - before
            rows.append((first, second, float(await run(o, session, HASHED)), sent, summary.new_bytes))
            await o.delete(session)
    ratio = statistics.median(row[1] / row[0] for row in rows)
    first, second, hashed, came, new = median(rows)
    print(
        f"c  1 GB of arrays, {cpus:.0f} CPU: first save {ms(first)}, after a small change {ms(second)}"
        f"   {ratio:.1%} (aim: at most 10 %); one read through xxh3 {ms(hashed)};"
        f" {came / 1e3:.0f} kB sent, {new / 1e3:.0f} kB of pieces stored"
    )


async def beside() -> None:
    """D: a cell while a snapshot is made, with quota to spare.

    Cell, snapshot child and the owner who writes what comes are three that want a processor at once. So that a machine
    of two measures what a snapshot costs a cell, and not that one of three waits, the owner is kept off one processor;
    what the cell takes where it has none to itself stands beside, and its own processor time, which others cannot take.
    """
    async with opened(cpus=2) as o:
        await run(o, "s", f"{FRESH}\n{SPIN}\narrays = [fresh({ARRAY}) for _ in range(10)]")
        for name, call in (("reads", "timed(spin, 8_000_000)"), ("writes", "timed(write, 100_000)")):
            shared, apart = [], []
            for _ in range(2 * TURNS):
                shared.append(await _slowed(o, call))
                with owner_apart():
                    apart.append(await _slowed(o, call))
            crowded = statistics.median(row[0] for row in shared)
            wall, used = median(apart)
            print(
                f"d  a cell that {name:6} during a snapshot: {wall - 1:+.0%} of its time, {used - 1:+.0%} of its"
                f" processor time (aim where it reads: at most 10 %); {crowded - 1:+.0%} if the owner may take it, too"
            )


async def _slowed(o: Orchestrator, call: str) -> tuple[float, float]:
    """Time and processor time of a call beside a snapshot of 1 GB, all of it new, as parts of what it takes alone."""
    alone = json.loads(await run(o, "s", call))
    await run(o, "s", "for one in arrays: np.bitwise_xor(one, os.urandom(1)[0] | 1, out=one)")
    live = await o.sessions.find("s")
    await live.save_when_due(first=False)
    during = json.loads(await run(o, "s", call))
    assert live.container is not None
    assert live.container.saving, "the snapshot ended before the cell"
    await o.save("s")
    return during[0] / alone[0], during[1] / alone[1]


@contextmanager
def owner_apart() -> Iterator[None]:
    """Keep every thread of this process, which is the owner here, off the machine's first processor."""
    tasks = Path("/proc/self/task")
    threads = {int(task.name): os.sched_getaffinity(int(task.name)) for task in tasks.iterdir()}
    for thread, processors in threads.items():
        os.sched_setaffinity(thread, processors - {min(processors)} or processors)
    try:
        yield
    finally:
        for task in tasks.iterdir():  # those that began meanwhile inherited it
            os.sched_setaffinity(int(task.name), threads.get(int(task.name), threads[os.getpid()]))


async def growth() -> None:
    """E: from 1 MB to 1 GB, and from 10 to 10 000 variables."""
    made = {f"{size:5} MB of arrays": f"a = fresh({size} * 1_000_000)" for size in (1, 10, 100, 1_000)}
    made |= {
        f"{count:6} variables": f"globals().update({{f'v{{i}}': [i, str(i), {{'k': i}}] for i in range({count})}})"
        for count in (10, 100, 1_000, 10_000)
    }
    async with opened() as o, Wakes.watched() as wakes:
        for name, code in made.items():
            rows = []
            for turn in range(3):
                session = f"{name.split()[0]}-{turn}"
                await run(o, session, f"{FRESH}\n{code}\nx = 0")
                first, _ = await timed(o.save(session))
                await run(o, session, "x += 1")
                second, _ = await timed(o.save(session))
                rows.append((first, second, await wakes.wake(o, session)))
                await o.delete(session)
            first, second, wake = median(rows)
            print(f"e  {name:18}: save {ms(first)}, again {ms(second)}, wake {ms(wake)}")


async def main() -> None:
    keep_freed_memory()  # as the owner's process does; a program that embeds the library need not
    wanted = "".join(sys.argv[1:]) or "abcde"
    parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("a", lambda: saving(1)),
        ("a", lambda: saving(2)),
        ("b", lambda: waking(1)),
        ("b", lambda: waking(2)),
        ("c", lambda: again(1)),
        ("c", lambda: again(2)),
        ("d", beside),
        ("e", growth),
    ]
    for letter, part in parts:
        if letter in wanted:
            await part()


if __name__ == "__main__":
    asyncio.run(main())
