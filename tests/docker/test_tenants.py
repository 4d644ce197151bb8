"""Tenants on a real engine: their limits reach the kernel, their figures come from it, and nothing crosses."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import QuotaError, SessionNotFoundError
from orchestrator.settings import Settings
from tests.pace import paced

MIB = 1024 * 1024


async def caller(orchestrator: Orchestrator, name: str, **quotas: float | None) -> Caller:
    await orchestrator.tenants.create(name, by=LOCAL_CALLER, quotas=quotas)
    issued = await orchestrator.tenants.create_key(name, "key", by=LOCAL_CALLER)
    found = await orchestrator.credentials.verify(issued.token)
    assert found is not None
    return found


async def test_memory_and_cpus_of_a_tenant_are_what_its_cells_find(settings: Settings) -> None:
    async with Orchestrator.open(settings) as orchestrator:
        small = orchestrator.on_behalf(await caller(orchestrator, "small", memory=200 * MIB, cpus=0.5))
        usual = orchestrator.on_behalf(await caller(orchestrator, "usual"))
        greedy = "x = bytearray(400 * 2**20)\nlen(x)"
        refused = await small.execute(greedy, session_id="s")
        assert refused.error is not None
        assert refused.error.code == "oom"
        assert "200 MiB" in refused.error.message
        assert (await usual.execute(greedy, session_id="s")).value == str(400 * MIB)
        await small.delete("s")
        await usual.delete("s")


async def test_processor_time_is_the_kernels_figure_and_a_quota_on_it_holds(settings: Settings) -> None:
    busy = "import time\nend = time.process_time() + 1.5\nwhile time.process_time() < end: pass"
    async with Orchestrator.open(settings) as orchestrator:
        sessions = orchestrator.on_behalf(await caller(orchestrator, "a", cpu_seconds_a_day=3))
        await sessions.execute("1", session_id="s")
        result = await sessions.execute(busy, session_id="s")
        assert result.cpu is not None
        assert 1.4 < result.cpu < 4
        idle = await sessions.execute("import time; time.sleep(1)", session_id="s")
        assert idle.cpu is not None
        assert idle.cpu < 0.9
        await sessions.execute(busy, session_id="s")
        with pytest.raises(QuotaError) as caught:
            await sessions.execute(busy, session_id="s")
        assert caught.value.quota == "cpu_seconds_a_day"
        ends = [r.entry.cpu async for r in orchestrator.audit.entries(AuditQuery(act="execute"))]
        assert sum(cpu or 0 for cpu in ends) >= 3
        await sessions.delete("s")


async def test_processor_time_between_cells_counts_when_the_session_sleeps(settings: Settings) -> None:
    spin = """
import subprocess, sys, threading, time
def work():
    end = time.process_time() + 1.5
    while time.process_time() < end: pass
threading.Thread(target=work).start()
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 1.5: pass"])
"""
    async with Orchestrator.open(settings) as orchestrator:
        sessions = orchestrator.on_behalf(await caller(orchestrator, "a", cpu_seconds_a_day=3))
        answer = await sessions.execute(spin, session_id="s")
        assert answer.cpu is not None
        assert answer.cpu < 2
        await asyncio.sleep(paced(5))
        await sessions.hibernate("s")
        (entry,) = [record.entry async for record in orchestrator.audit.entries(AuditQuery(act="between"))]
        assert entry.session == "s"
        assert 3 < (entry.cpu or 0) + answer.cpu < 6
        with pytest.raises(QuotaError) as caught:
            await sessions.execute("1", session_id="s")
        assert caught.value.quota == "cpu_seconds_a_day"
    async with Orchestrator.open(settings) as orchestrator:
        again = orchestrator.on_behalf(replace(LOCAL_CALLER, tenant=(await orchestrator.tenants.find("a")).id))
        with pytest.raises(QuotaError):
            await again.execute("1", session_id="s")
        await again.delete("s")


async def test_tenants_with_the_same_names_see_only_their_own(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    names = ("red", "blue", "green")
    async with Orchestrator.open(settings) as orchestrator:
        tenants = {name: orchestrator.on_behalf(await caller(orchestrator, name)) for name in names}

        async def work(name: str) -> str:
            sessions = tenants[name]
            steps = (
                f"secret = 'mark-{name}'; open('mark-{name}.txt', 'w').write(secret)",
                "import os; print(os.listdir('.'), secret)",
                "raise ValueError(secret)",
            )
            said = [repr(await sessions.execute(step, session_id="shared")) for step in steps]
            await sessions.save("shared")
            said += [repr(await sessions.list_variables("shared")), repr(await sessions.list_sessions())]
            said += [repr(await sessions.history("shared")), repr(await sessions.result("shared", 2))]
            return "".join(said)

        for name, said in zip(names, await asyncio.gather(*map(work, names)), strict=True):
            assert said.count(f"mark-{name}") >= 3
            assert not any(f"mark-{other}" in said for other in names if other != name)
        await tenants["red"].delete("shared")
        with pytest.raises(SessionNotFoundError):
            await tenants["red"].list_variables("shared")
        assert (await tenants["blue"].execute("secret", session_id="shared")).value == "'mark-blue'"
        for name in names[1:]:
            await tenants[name].delete("shared")
    assert "mark-" not in caplog.text


async def test_a_retried_call_is_answered_by_the_next_owner(settings: Settings, tmp_path: Path) -> None:
    del tmp_path
    async with Orchestrator.open(settings) as orchestrator:
        local = orchestrator.on_behalf(LOCAL_CALLER)
        first = await local.execute("import random\nx = random.random()\nx", session_id="s", idempotency_key="k")
    async with Orchestrator.open(settings) as orchestrator:
        local = orchestrator.on_behalf(LOCAL_CALLER)
        again = await local.execute("import random\nx = random.random()\nx", session_id="s", idempotency_key="k")
        assert again.value == first.value
        assert (await local.execute("x", session_id="s")).value == first.value
        await local.delete("s")
