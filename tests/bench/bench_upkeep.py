"""What a call's two commits cost beside the upkeep of the records: maintenance, and looking for what is due.

Run by `make bench`. Upkeep waits until nobody calls; here it does not, and is done again and again, which is worse than
what ever happens. The ways take turns, so that what else the machine does comes to all of them.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from orchestrator.adapters.store import maintenance
from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.ageing import DAY, AgeingPolicy
from orchestrator.domain.model import Session
from orchestrator.domain.ticks import Counted

TURNS, CALLS = 5, 200
SLEEPING = 10_000
PAUSE = 0.002  # seconds between two calls, and between two steps of upkeep
GARBAGE = 20_000_000  # bytes
Work = Callable[[], Awaitable[object]]


async def calls(records: SqliteRecords, session: Session) -> list[float]:
    """Milliseconds that the commits of each call took."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        number = await records.open_execution(session.key, session.incarnation)
        assert number is not None
        await records.close_execution(session.key, number, "ok", bound=["x"], removed=[], variable_count=1)
        took.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(PAUSE)
    return took


async def beside(records: SqliteRecords, session: Session, work: Work) -> tuple[list[float], list[float]]:
    """Calls while that is done again and again: how long they took, and how long it took."""
    lasted: list[float] = []

    async def again() -> None:
        while True:
            began = time.perf_counter()
            await work()
            lasted.append((time.perf_counter() - began) * 1_000)
            await asyncio.sleep(PAUSE)

    task = asyncio.create_task(again())
    took = await calls(records, session)
    task.cancel()
    await asyncio.wait([task])
    return took, lasted


async def nothing() -> None:
    """What the others are held against."""


async def leave_garbage(records: SqliteRecords) -> None:
    """Free pages, as sessions leave them that were deleted."""
    for content in ("x" * GARBAGE, ""):
        await records.remember("bench", content)


async def look(records: SqliteRecords, policy: AgeingPolicy) -> None:
    """All that a round asks of the records."""
    await records.upkeep.count(await records.upkeep.counted())
    await records.upkeep.ageing_counts(30 * DAY)
    await records.upkeep.between()
    await records.upkeep.open_executions()
    await records.upkeep.held_sandboxes()
    for state, seconds in policy.horizons():
        last = None
        while page := await records.upkeep.aged(state, seconds, after=last, limit=50):
            last = page[-1]


def ways(records: SqliteRecords) -> Mapping[str, Work]:
    """What calls are made beside."""
    return {
        "nothing": nothing,
        "giving pages back": lambda: records._db.run(maintenance._give_back, counts=False),
        "copying the log back, as it is done": lambda: asyncio.to_thread(maintenance._copy_log_back, records._db.path),
        "(over the records' connection instead)": lambda: records._db.run(
            lambda raw: raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone(), counts=False
        ),
        f"rounds, none of {SLEEPING:,} is due": lambda: look(records, AgeingPolicy(300 * DAY, 300 * DAY)),
        f"rounds, all of {SLEEPING:,} are due": lambda: look(records, AgeingPolicy()),
    }


async def main() -> None:
    """Print it."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_records(Path(directory) / "records.sqlite3", SystemClock()) as records:
            for number in range(SLEEPING):
                await records.ensure_session("local", f"s{number}", "e")
            await records.upkeep.count(Counted(60.0))
            await records.upkeep.count(Counted(40 * DAY))
            session = await records.ensure_session("local", "s", "e")
            await records.begin_creating(session.key, 0)
            ready = await records.session_ready(session.key, 1)
            assert ready is not None
            figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways(records)}
            for _ in range(TURNS):
                for name, work in ways(records).items():
                    await leave_garbage(records)
                    for kept, new in zip(figures[name], await beside(records, ready, work), strict=True):
                        kept.extend(new)
            base = statistics.median(figures["nothing"][0])
            print("A call's two commits in ms, beside …")
            for name, (took, lasted) in figures.items():
                took.sort()
                print(
                    f"  {name:40} median {statistics.median(took):6.2f} ({statistics.median(took) / base:4.1f} times)"
                    f"  p99 {took[-len(took) // 100]:6.1f}  worst {took[-1]:6.1f};"
                    f"  {len(lasted):5} times, each {statistics.median(lasted):6.2f}"
                )


asyncio.run(main())
