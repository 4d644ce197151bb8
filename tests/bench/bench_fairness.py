"""One tenant floods; what another one's calls take then, against what they take alone.

The aim: the other's p95 stays within twice its quiet value and one cell of the flood. Arguments: calls to measure (40),
seconds of processor of a cell (0.1).
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.errors import OrchestratorError
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.settings import Settings

SESSIONS, CALLS_AT_ONCE = 6, 24


async def caller(orchestrator: Orchestrator, name: str) -> Caller:
    await orchestrator.tenants.create(name, by=LOCAL_CALLER)
    issued = await orchestrator.tenants.create_key(name, "bench", by=LOCAL_CALLER)
    found = await orchestrator.credentials.verify(issued.token)
    assert found is not None
    return found


def cell(seconds: float) -> str:
    return f"import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


async def timed(sessions: TenantSessions, code: str, calls: int) -> list[float]:
    """Milliseconds of each, as a person would make them: not all at once."""
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        result = await sessions.execute(code, session_id="s")
        assert result.status == "ok", result.error
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.05)
    return took


async def flood(sessions: TenantSessions, code: str, number: int, done: list[float]) -> None:
    while True:
        try:
            result = await sessions.execute(code, session_id=f"s{number % SESSIONS}")
            done.append(result.duration_ms)
        except OrchestratorError:
            await asyncio.sleep(0.01)


def p95(took: list[float]) -> float:
    return statistics.quantiles(took, n=20)[-1]


async def measured(settings: Settings, calls: int, seconds: float) -> None:
    async with Orchestrator.open(settings) as orchestrator:
        noisy = orchestrator.on_behalf(await caller(orchestrator, "noisy"))
        other = orchestrator.on_behalf(await caller(orchestrator, "other"))
        code = cell(seconds)
        await timed(other, code, 3)
        for number in range(SESSIONS):
            await noisy.execute("1", session_id=f"s{number}")
        quiet = await timed(other, code, calls)
        done: list[float] = []  # what each cell of the flood took, in milliseconds
        flooding = [asyncio.create_task(flood(noisy, code, number, done)) for number in range(CALLS_AT_ONCE)]
        await asyncio.sleep(1)
        before, began = len(done), time.perf_counter()
        under = await timed(other, code, calls)
        rate = (len(done) - before) / (time.perf_counter() - began)
        for task in flooding:
            task.cancel()
        await asyncio.wait(flooding)
        one = statistics.median(done[before:] or done)
        bound = 2 * p95(quiet) + one
        print(f"cells of {seconds:g} s; {CALLS_AT_ONCE} calls at once of the one, {rate:.1f} cells a second of its own")
        print(f"one cell of the flood: {one:.1f} ms at the median")
        print(f"alone:       p50 {statistics.median(quiet):7.1f} ms  p95 {p95(quiet):7.1f} ms")
        print(f"under flood: p50 {statistics.median(under):7.1f} ms  p95 {p95(under):7.1f} ms")
        print(f"p95 under flood / (2 * p95 alone + one cell): {p95(under) / bound:.2f} (aim: at most 1)")
        for sessions, names in ((noisy, [f"s{number}" for number in range(SESSIONS)]), (other, ["s"])):
            for name in names:
                await sessions.delete(name)


def main() -> None:
    """Print the ratio."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1
    with tempfile.TemporaryDirectory(prefix="fair-") as directory:
        root = Path(directory)
        settings = Settings.load(
            data_dir=root / "data",
            runtime_dir=root / "run",
            channel="unix",
            quota_executions_a_minute=0,
        )
        asyncio.run(measured(settings, calls, seconds))


if __name__ == "__main__":
    main()
