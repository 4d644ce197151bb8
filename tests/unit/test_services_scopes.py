"""What a caller's scopes allow in the sessions of its tenant."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.domain.access import Scope
from orchestrator.domain.errors import PermissionDeniedError
from orchestrator.services.tenant_sessions import TenantSessions
from tests.unit.pretended_agent import ENDLESS
from tests.unit.pretended_engine import House, house, runs, until

Act = Callable[[TenantSessions], Awaitable[object]]

USES: dict[str, Act] = {
    "execute": lambda tenant: tenant.execute("x = 2", session_id="s"),
    "execute without a session": lambda tenant: tenant.execute("x = 2"),
    "interrupt": lambda tenant: tenant.interrupt("s"),
    "clear": lambda tenant: tenant.clear("s"),
    "delete": lambda tenant: tenant.delete("s"),
    "save": lambda tenant: tenant.save("s"),
    "roll back": lambda tenant: tenant.roll_back("s", 1),
    "fork": lambda tenant: tenant.fork("s", "t"),
}
READS: dict[str, Act] = {
    "list variables": lambda tenant: tenant.list_variables("s"),
    "list sessions": lambda tenant: tenant.list_sessions(),
    "history": lambda tenant: tenant.history("s"),
    "compare": lambda tenant: tenant.compare("s", 1, 1),
}


async def asleep(opened: House) -> None:
    """A session that holds a value and has no sandbox."""
    await opened.on_behalf("a").execute("x = 1", session_id="s")
    assert await (await opened.sessions.find("s", tenant="a")).hibernate()


@pytest.mark.parametrize("scope", ["read", "admin"])
@pytest.mark.parametrize("act", USES)
async def test_who_may_not_use_sessions_changes_nothing(act: str, scope: Scope, tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        before = await opened.records.all_sessions()
        with pytest.raises(PermissionDeniedError):
            await USES[act](opened.on_behalf("a", scope))
        assert await opened.records.all_sessions() == before


@pytest.mark.parametrize("act", READS)
async def test_the_operator_opens_no_session(act: str, tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        with pytest.raises(PermissionDeniedError):
            await READS[act](opened.on_behalf("a", "admin"))


@pytest.mark.parametrize("act", READS)
async def test_reading_wakes_nothing_and_changes_nothing(act: str, tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        before = await opened.records.all_sessions()
        assert await READS[act](opened.on_behalf("a", "read"))
        assert await opened.records.all_sessions() == before
        assert len(opened.engine.agents) == 1


async def test_reading_asks_no_sandbox_that_is_awake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        await opened.on_behalf("a").execute("x = 1", session_id="s")
        asked: list[str] = []

        async def reached(point: str) -> None:
            asked.append(point)

        monkeypatch.setattr(opened.agent, "reach", reached)
        listed = await opened.on_behalf("a", "read").list_variables("s")
        assert [(variable.name, variable.type) for variable in listed.variables] == [("x", "unknown")]
        assert asked == []


async def test_an_interrupt_ends_the_cell_that_runs_and_says_whether_one_did(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        tenant = opened.on_behalf("a")
        await tenant.execute("x = 1", session_id="s")
        assert not await tenant.interrupt("s")
        call = asyncio.create_task(tenant.execute(ENDLESS, session_id="s"))
        await until(lambda: runs(opened))
        await until(lambda: tenant.interrupt("s"))
        async with asyncio.timeout(5):
            result = await call
        assert result.error is not None
        assert result.error.code == "interrupted"
