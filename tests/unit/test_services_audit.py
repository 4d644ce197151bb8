"""The audit of calls: two entries for each execution, its figures and no secret."""

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.domain.audit import AuditEntry, AuditQuery, hash_of
from orchestrator.domain.errors import OrchestratorError, SessionNotFoundError, StoreFullError
from orchestrator.services.auditing import line_of
from orchestrator.settings import Settings
from tests.unit.pretended_agent import ENDLESS
from tests.unit.pretended_engine import FullOnce, House, house, runs, until

KEY = "so_0123456789ab_" + "cd" * 32


async def entries(opened: House) -> list[AuditEntry]:
    return [record.entry async for record in opened.tenancy.audit.entries(AuditQuery())]


async def test_an_execution_has_an_entry_before_it_and_one_after_it(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.on_behalf("a").execute("x = 1", session_id="s")
        begin, end = await entries(opened)
        assert (begin.act, begin.tenant, begin.key, begin.session) == ("begin", "a", "key of a", "s")
        assert (end.act, end.begun, end.session, end.incarnation, end.execution) == ("execute", 1, "s", 1, 1)
        assert (end.outcome, end.bytes_out, end.code_hash, end.code) == ("ok", 0, hash_of("x = 1"), None)
        assert end.duration is not None


async def test_acts_are_noted_with_their_outcome_and_what_found_nothing_is_not(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await sessions.execute("x = 1", session_id="s")
        sequence = (await sessions.save("s")).sequence
        await sessions.roll_back("s", sequence)
        await sessions.fork("s", "t")
        await sessions.clear("s")
        await sessions.delete("s")
        with pytest.raises(SessionNotFoundError):
            await sessions.delete("s")
        acts = [(entry.act, entry.session, entry.outcome) for entry in (await entries(opened))[2:]]
        assert acts == [(act, "s", "ok") for act in ("save", "roll back", "fork", "clear", "delete")]


async def test_asking_for_what_there_is_nothing_to_do_fills_no_audit(tmp_path: Path) -> None:
    """No quota bounds interrupts, so that they come through when one is exceeded: those that end nothing are none."""
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await sessions.execute("x = 1", session_id="s")
        assert await sessions.hibernate("s")
        before = [entry.act for entry in await entries(opened)]
        assert before[-1] == "hibernate"
        for _ in range(50):
            assert not await sessions.interrupt("s")
            assert not await sessions.hibernate("s")
        assert [entry.act for entry in await entries(opened)] == before


async def test_a_call_whose_caller_goes_away_has_its_end_noted_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        call = asyncio.create_task(opened.on_behalf("a").execute(ENDLESS, session_id="s"))
        await until(lambda: runs(opened))
        call.cancel()
        await asyncio.wait([call])

        async def noted() -> bool:
            return len(await entries(opened)) == 2

        await until(noted)
        assert [entry.outcome for entry in await entries(opened)] == [None, "interrupted"]


async def test_a_call_that_is_cancelled_while_it_waits_is_noted_as_that(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.may_launch.clear()
        call = asyncio.create_task(opened.on_behalf("a").execute("x = 1", session_id="s"))

        async def begun() -> bool:
            return bool(await opened.records.sandboxes())

        await until(begun)
        call.cancel()
        await asyncio.wait([call])
        opened.engine.may_launch.set()
        assert [(entry.act, entry.outcome) for entry in await entries(opened)] == [("execute", "cancelled")]


async def test_nothing_runs_that_cannot_be_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        monkeypatch.setattr(opened.records.audit, "append_audit", fails)
        with pytest.raises(StoreFullError):
            await opened.on_behalf("a").execute("x = 1")
        assert opened.engine.agents == []
        refuse = "CREATE TRIGGER refused BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'refused'); END"
        await opened.records._db.run(lambda raw: raw.execute(refuse))
        with pytest.raises(OrchestratorError):
            await opened.on_behalf("a").execute("x = 1", session_id="s")
        assert [agent.ran for agent in opened.engine.agents] == [[]]
        assert await opened.records.executions("a", "s") == []


async def test_an_execution_is_written_down_by_the_two_commits_of_its_row(tmp_path: Path) -> None:
    """The audit costs no commit, and no end of the owner can leave a row without its entry, or the other way round."""
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await sessions.execute("x = 1", session_id="s")
        asked: list[str] = []
        raw = opened.records._db._raw
        await opened.records._db.run(lambda _: raw.set_trace_callback(asked.append))
        await sessions.execute("x = 2", session_id="s")
        await opened.records._db.run(lambda _: raw.set_trace_callback(None))
        assert asked.count("BEGIN IMMEDIATE") == 2
        begin, end = (await entries(opened))[2:]
        assert (begin.act, begin.incarnation, begin.execution) == ("begin", 1, 2)
        assert (end.act, end.execution, end.begun) == ("execute", 2, 3)


async def test_a_cell_whose_session_is_deleted_under_it_has_its_end_once(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        call = asyncio.create_task(sessions.execute(ENDLESS, session_id="s"))
        await until(lambda: runs(opened))
        await sessions.delete("s")
        await asyncio.wait([call])

        async def noted() -> bool:
            return len([entry for entry in await entries(opened) if entry.act == "execute"]) == 1

        await until(noted)
        assert [entry.act for entry in await entries(opened)].count("begin") == 1


async def fails(_entries: object) -> None:
    raise StoreFullError("The disk is full.")


async def test_an_end_that_the_records_do_not_take_is_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        sessions = opened.on_behalf("a")
        await sessions.execute("x = 1", session_id="s")
        full = FullOnce(monkeypatch, opened.records.audit, "append_audit")
        await sessions.clear("s")
        assert full.left == 0
        assert [entry.act for entry in await entries(opened)] == ["begin", "execute"]
        await sessions.delete("s")
        assert [entry.act for entry in await entries(opened)][2:] == ["clear", "delete"]


@pytest.mark.parametrize(("kept", "text"), [("hash", False), ("text", True), ("nothing", False)])
async def test_code_is_kept_as_is_wanted_and_never_a_key_in_it(kept: str, text: bool, tmp_path: Path) -> None:  # noqa: FBT001
    settings = Settings.load(audit_code=kept, max_running=4)
    code = f'x = "{KEY}"'
    async with house(tmp_path, settings=settings) as opened:
        await opened.on_behalf("a").execute(code, session_id="s")
        begin, end = await entries(opened)
        assert (begin.code is not None) == text
        assert (end.code_hash is not None) == (kept != "nothing")
        lines = [json.dumps(line_of(r)) async for r in opened.tenancy.audit.entries(AuditQuery())]
        assert all(KEY not in line for line in lines)
        assert not text or "[key removed]" in lines[0]


async def test_the_export_reads_page_by_page_whatever_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.auditing._PAGE", 7)
    async with house(tmp_path) as opened:
        await opened.records.audit.append_audit([AuditEntry("clear", "a", "k")] * 20)
        seen = []
        async for record in opened.tenancy.audit.entries(AuditQuery(tenant="a")):
            seen.append(record.id)
            if record.id == 10:
                await opened.records.audit.append_audit([AuditEntry("clear", "a", "k")] * 3)
        assert seen == list(range(1, 24))


async def test_old_entries_go_with_the_errands(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.on_behalf("a").execute("x = 1", session_id="s")
        opened.clock.advance(91 * 86_400)
        await opened.on_behalf("a").execute("x = 1", session_id="s")
        await opened.tenancy.audit.upkeep()
        assert len(await entries(opened)) == 2
