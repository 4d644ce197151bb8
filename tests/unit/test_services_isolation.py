"""Nothing of one tenant reaches another: not by its names, not by what is asked of the records, not in what is said."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.domain.access import Caller, Scope
from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import OrchestratorError
from orchestrator.services.tenant_sessions import TenantSessions
from tests.unit.pretended_engine import House, house, until

Act = Callable[[TenantSessions], Awaitable[object]]

ACTS: dict[str, Act] = {
    "list variables": lambda sessions: sessions.list_variables("s"),
    "interrupt": lambda sessions: sessions.interrupt("s"),
    "clear": lambda sessions: sessions.clear("s"),
    "delete": lambda sessions: sessions.delete("s"),
    "hibernate": lambda sessions: sessions.hibernate("s"),
    "wake": lambda sessions: sessions.wake("s"),
    "save": lambda sessions: sessions.save("s"),
    "roll back": lambda sessions: sessions.roll_back("s", 1),
    "fork": lambda sessions: sessions.fork("s", "t"),
    "history": lambda sessions: sessions.history("s"),
    "compare": lambda sessions: sessions.compare("s", 1, 1),
    "result": lambda sessions: sessions.result("s", 1),
}


async def said(call: Awaitable[object]) -> tuple[str, str, str | None]:
    with pytest.raises(OrchestratorError) as caught:
        await call
    error = caught.value
    return error.code, error.message, error.hint


async def statements(opened: House, call: Awaitable[object]) -> tuple[tuple[str, str, str | None], list[str]]:
    """What is answered, and every statement that the records were asked meanwhile."""
    asked: list[str] = []
    raw = opened.records._db._raw
    await opened.records._db.run(lambda _: raw.set_trace_callback(asked.append))
    try:
        answer = await said(call)
    finally:
        await opened.records._db.run(lambda _: raw.set_trace_callback(None))
    return answer, asked


async def emptied(opened: House) -> bool:
    return not await opened.records.all_sessions() and not await opened.records.sandboxes()


READS = ("list variables", "history", "compare", "result")
CASES: list[tuple[str, Scope]] = [*((act, "use") for act in ACTS), *((act, "read") for act in READS)]


@pytest.mark.parametrize(("act", "scope"), CASES)
@pytest.mark.parametrize("state", ["awake", "asleep"])
async def test_another_tenants_session_is_answered_as_an_absent_one_by_the_same_statements(
    act: str, scope: Scope, state: str, tmp_path: Path
) -> None:
    async with house(tmp_path) as opened:
        owner = opened.on_behalf("a")
        await owner.execute("x = 1", session_id="s")
        await owner.save("s")
        if state == "asleep":
            assert await (await opened.sessions.find("s", tenant="a")).hibernate()
        other = opened.on_behalf("b", scope)
        await said(ACTS[act](other))  # what is looked up once is known now
        theirs = await statements(opened, ACTS[act](other))
        await owner.delete("s")
        await until(lambda: emptied(opened))
        absent = await statements(opened, ACTS[act](other))
        assert theirs == absent
        assert theirs[0][0] == "not_found"
        assert any("sessions" in statement for statement in theirs[1])


async def export(opened: House, by: Caller, sequence: int | None) -> None:
    async with aclosing(opened.tenancy.capsules.exports.export("s", sequence=sequence, caller=by)) as chunks:
        async for _ in chunks:
            raise AssertionError("something left")


LEAVING: dict[str, Callable[[House, Caller], Awaitable[object]]] = {
    "export": lambda opened, by: export(opened, by, None),
    "export of a snapshot": lambda opened, by: export(opened, by, 1),
    "notebook": lambda opened, by: opened.tenancy.capsules.exports.notebook("s", caller=by),
}


@pytest.mark.parametrize("way", LEAVING)
async def test_no_way_out_tells_another_tenants_session_from_an_absent_one(way: str, tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.on_behalf("a").execute("x = 1", session_id="s")
        await opened.on_behalf("a").save("s")
        other = opened.on_behalf("b").caller
        await said(LEAVING[way](opened, other))  # what is looked up once is known now
        theirs = await statements(opened, LEAVING[way](opened, other))
        await opened.on_behalf("a").delete("s")
        await until(lambda: emptied(opened))
        absent = await statements(opened, LEAVING[way](opened, other))
        assert theirs == absent
        assert theirs[0][0] == "not_found"


async def test_listings_are_of_ones_own(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.on_behalf("a").execute("x = 1", session_id="s")
        assert await opened.on_behalf("b").list_sessions() == []


NAMES = ("a", "b", "c")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["set", "read", "list", "clear", "delete", "hibernate", "fork", "repeat"]),
        st.sampled_from("st"),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_tenants_do_under_the_same_names_each_finds_its_own(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    asyncio.run(played(tmp_path_factory.mktemp("isolation"), steps))


class Play:
    """Tenants at work, and what each of their sessions should hold."""

    def __init__(self, opened: House) -> None:
        self.opened = opened
        self.model: dict[tuple[str, str], str | None] = {}  # its variable; None: it has none

    async def begin(self, sessions: TenantSessions, step: str, key: tuple[str, str], number: int) -> None:
        """Steps that make a session where there is none."""
        if step == "set":
            self.model[key] = f'"{key[0]}-{number}"'
            await sessions.execute(f"x = {self.model[key]}", session_id=key[1])
        else:
            await sessions.execute("y = 1", session_id=key[1], idempotency_key=str(number))
            self.model.setdefault(key, None)

    async def go_on(self, sessions: TenantSessions, step: str, key: tuple[str, str]) -> None:
        """Steps in a session that is there."""
        name, session_id = key
        match step:
            case "read":
                found = (await sessions.execute("x", session_id=session_id)).value
                assert found == (self.model[key] or "NameError")
            case "list":
                own = {session_id for tenant, session_id in self.model if tenant == name}
                assert {one.session_id for one in await sessions.list_sessions()} == own
            case "clear":
                await sessions.clear(session_id)
                self.model[key] = None
            case "delete":
                await sessions.delete(session_id)
                del self.model[key]
            case "hibernate":
                await (await self.opened.sessions.find(session_id, tenant=name)).hibernate()
            case "fork" if (name, "f") not in self.model:
                await sessions.execute("z = 1", session_id=session_id)
                await sessions.fork(session_id, "f")
                self.model[name, "f"] = self.model[key]


async def played(path: Path, steps: list[tuple[str, str, str]]) -> None:
    async with house(path, sandboxes=8, wait=5) as opened:
        play = Play(opened)
        for number, (name, step, session_id) in enumerate(steps):
            sessions, key = opened.on_behalf(name), (name, session_id)
            if step in {"set", "repeat"}:
                await play.begin(sessions, step, key, number)
            elif key in play.model:
                await play.go_on(sessions, step, key)
            else:
                assert (await said(sessions.list_variables(session_id)))[0] == "not_found"


async def test_many_tenants_at_once_under_the_same_names_cross_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    names = [f"tenant{number}" for number in range(12)]
    async with house(tmp_path, sandboxes=6, wait=20) as opened:

        async def work(name: str) -> str:
            sessions = opened.on_behalf(name)
            heard: list[object] = []
            for number in range(6):
                session_id = f"s{number % 2}"
                code = f'mark_{name} = "mark-{name}-{number}"\nfile {name}.txt mark-{name}\nmark_{name}'
                heard.append(await sessions.execute(code, session_id=session_id, idempotency_key=str(number)))
                heard.append(await sessions.execute(code, session_id=session_id, idempotency_key=str(number)))
                heard.append(await sessions.list_variables(session_id))
                heard.append(await sessions.list_sessions())
                heard.append(await asyncio.gather(sessions.execute("nothing"), return_exceptions=True))
            heard.append(await sessions.history("s0"))
            heard.append(await sessions.result("s1", 1))
            with pytest.raises(OrchestratorError) as caught:
                await sessions.fork("s0", "s1")
            heard.append(str(caught.value))
            return repr(heard)

        for name, heard in zip(names, await asyncio.gather(*map(work, names)), strict=True):
            others = [other for other in names if other != name and not other.startswith(name)]
            others = [other for other in others if not name.startswith(other)]
            assert f"mark-{name}-5" in heard
            assert [other for other in others if f"{other}." in heard or f"mark-{other}-" in heard] == []
            entries = [r.entry async for r in opened.tenancy.audit.entries(AuditQuery(tenant=name))]
            assert {entry.key for entry in entries} == {f"key of {name}"}
            assert "mark" not in repr(entries)
    assert "mark-" not in caplog.text
