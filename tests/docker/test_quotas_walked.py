"""Each quota of a tenant, met on the real engine: what is told, and that many calls at once do not get past it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.errors import QuotaError
from orchestrator.domain.model import ExecutionResult
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.settings import Settings
from tests.docker.test_hurry import changed
from tests.docker.test_tenants import caller
from tests.pace import paced

MANY = 50
KEPT = 2.1  # seconds after which what is stored is counted anew


async def told(call: Awaitable[object]) -> tuple[str, float, float, bool]:
    """Which quota stood in the way, how much of how much is used, and whether time alone frees it."""
    with pytest.raises(QuotaError) as caught:
        await call
    error = caught.value
    assert error.code == "quota"
    assert f"{error.limit:,.15g}" in error.message
    return error.quota, error.used, error.limit, error.frees_in is not None


async def outcomes(calls: list[Coroutine[Any, Any, Any]]) -> Counter[str]:
    """How many of calls at once ended how: `ok`, or by the quota that stood in the way."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException) and not isinstance(one, QuotaError):
            raise one
    return Counter(one.quota if isinstance(one, QuotaError) else "ok" for one in ended)


async def tenant(orchestrator: Orchestrator, name: str, **quotas: float) -> TenantSessions:
    return orchestrator.on_behalf(await caller(orchestrator, name, **quotas))


async def begun(sessions: TenantSessions, session_id: str) -> asyncio.Task[ExecutionResult]:
    """A call that lasts, first in the line."""
    busy = asyncio.create_task(sessions.execute("import time; time.sleep(60)", session_id=session_id))
    while not await sessions.list_sessions():  # noqa: ASYNC110 - its session is there when it has been admitted
        await asyncio.sleep(0.02)
    return busy


async def ended(sessions: TenantSessions, busy: asyncio.Task[ExecutionResult]) -> None:
    while not await sessions.interrupt("s"):  # noqa: ASYNC110 - it may not run yet
        await asyncio.sleep(0.05)
    assert (await busy).error is not None


async def sessions_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "sessions", sessions=2)
    assert await outcomes([red.execute("1", session_id=f"s{n}") for n in range(MANY)]) == {
        "ok": 2,
        "sessions": MANY - 2,
    }
    assert await told(red.execute("1", session_id="more")) == ("sessions", 2, 2, False)
    first = (await red.list_sessions())[0].session_id
    await red.delete(first)
    assert (await red.execute("1", session_id="more")).status == "ok"


async def rate_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "rate", executions_a_minute=5)
    calls = [red.execute(f"{n}", session_id="s") for n in range(MANY)]
    assert await outcomes(calls) == {"ok": 5, "executions_a_minute": MANY - 5}
    quota, used, limit, frees = await told(red.execute("1", session_id="s"))
    assert (quota, used, limit, frees) == ("executions_a_minute", 5, 5, True)
    assert [summary.total_executions for summary in await red.list_sessions()] == [5], "no refused call has run"


async def time_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "time", time_limit=1)
    assert await told(red.execute("1", session_id="s", timeout=2)) == ("time_limit", 2, 1, False)
    answer = await red.execute("import time; time.sleep(60)", session_id="s")
    assert answer.error is not None
    assert (answer.error.code, "1 s" in answer.error.message) == ("timeout", True)


async def stored_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "stored", stored_bytes=1_000_000)
    await red.execute("import random; x = random.randbytes(2_000_000)", session_id="s")
    await red.save("s")
    await asyncio.sleep(KEPT)
    quota, used, limit, _ = await told(red.execute("1", session_id="s"))
    assert (quota, used > limit) == ("stored_bytes", True)
    assert (await told(red.execute("1", session_id="t")))[0] == "stored_bytes"
    assert (await told(red.fork("s", "t")))[0] == "stored_bytes"
    await red.delete("s")
    assert (await red.execute("1", session_id="t")).status == "ok"


async def files_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "files", files=3)
    await red.execute("for n in range(4): open(f'f{n}', 'w').write('x')", session_id="s")
    await red.save("s")
    await asyncio.sleep(KEPT)
    assert await told(red.execute("1", session_id="s")) == ("files", 4, 3, False)
    await red.delete("s")
    assert (await red.execute("1", session_id="s")).status == "ok"


async def live_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "live", live_sandboxes=1)
    busy = await begun(red, "s")
    assert await outcomes([red.execute("1") for _ in range(8)]) == {"live_sandboxes": 8}
    assert await told(red.execute("1", session_id="t")) == ("live_sandboxes", 1, 1, False)
    await ended(red, busy)
    assert (await red.execute("1", session_id="t")).status == "ok", "the idle one made room"


async def running_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "running", running=1)
    busy = await begun(red, "s")
    assert await told(red.execute("1", session_id="t")) == ("running", 1, 1, False)
    await ended(red, busy)


async def cpu_walk(orchestrator: Orchestrator) -> None:
    red = await tenant(orchestrator, "cpu", cpu_seconds_a_day=1)
    await red.execute("import time\nwhile time.process_time() < 1.5: pass", session_id="s")
    quota, used, limit, frees = await told(red.execute("1", session_id="s"))
    assert (quota, used >= 1.2, limit, frees) == ("cpu_seconds_a_day", True, 1, True)
    assert (await told(red.execute("1")))[0] == "cpu_seconds_a_day", "nor without a session"


WALKS: dict[str, Callable[[Orchestrator], Awaitable[None]]] = {
    "sessions": sessions_walk,
    "executions a minute": rate_walk,
    "time limit": time_walk,
    "stored bytes": stored_walk,
    "files": files_walk,
    "live sandboxes": live_walk,
    "running": running_walk,
    "CPU seconds": cpu_walk,
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("quota", WALKS)
async def test_a_quota_is_told_and_holds(settings: Settings, quota: str) -> None:
    impatient = changed(settings, sandbox_wait=paced(2.0))
    async with Orchestrator.open(impatient) as orchestrator:
        await WALKS[quota](orchestrator)
        neighbour = await tenant(orchestrator, "neighbour")
        assert (await neighbour.execute("1 + 1", session_id="s")).value == "2", "nobody else feels it"
