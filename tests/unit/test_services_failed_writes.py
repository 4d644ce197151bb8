"""Services over the real records, when one of their writes fails."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.errors import StoreFullError
from tests.unit.pretended_agent import KILLED, LOST
from tests.unit.pretended_engine import FullOnce, house, rows_left


@pytest.mark.parametrize("method", ["begin_creating", "open_sandbox", "session_ready", "open_execution"])
async def test_one_failed_write_before_a_cell_costs_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, method)
        with pytest.raises(StoreFullError):
            await opened.run("1")
        for session_id in ("s", "t"):  # both places for sandboxes are free
            assert (await opened.run("2", session_id)).status == "ok"
    assert rows_left(tmp_path) == []


async def test_a_session_whose_hibernation_failed_is_brought_back_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, "open_sandbox")
        FullOnce(monkeypatch, opened.records, "session_hibernated")
        with pytest.raises(StoreFullError):
            await opened.run("1")
        assert (await opened.row()).state == "creating"
        assert (await opened.run("2")).value == "2"


@pytest.mark.parametrize("code", [KILLED, LOST])
@pytest.mark.parametrize("method", ["namespace_lost", "close_execution"])
async def test_a_loss_that_could_not_be_recorded_is_told_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, method: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        FullOnce(monkeypatch, opened.records, method)
        result = await opened.run(code)
        assert result.error is not None
        assert result.error.code in ("oom", "sandbox_lost")
        assert "could not be recorded yet" in result.notes[-1]
        assert "They had left: x." in (await opened.run("3")).notes[0]
        assert (await opened.run("4")).notes == ()
        outcomes = [record.outcome for record in await opened.records.executions("local", "s")]
        assert None not in outcomes


async def test_a_cell_whose_record_could_not_be_written_is_answered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        FullOnce(monkeypatch, opened.records, "close_execution", 2)
        result = await opened.run("1")
        assert (result.status, result.value) == ("ok", "1")
        assert "could not be recorded yet" in result.notes[0]
        with pytest.raises(StoreFullError):
            await opened.run("2")
        assert (await opened.run("3")).execution == 2
        assert [record.outcome for record in await opened.records.executions("local", "s")] == ["ok", "ok"]


async def test_a_loss_stays_untold_until_an_answer_with_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = opened.records.namespace_lost
        held = asyncio.Event()

        async def slow(key: str, incarnation: int, cause: str, **more: int | None) -> object:
            held.set()
            await asyncio.sleep(0.05)
            return await genuine(key, incarnation, cause, **more)

        monkeypatch.setattr(opened.records, "namespace_lost", slow)
        FullOnce(monkeypatch, opened.records, "loss_told")
        call = asyncio.create_task(opened.run(KILLED))
        await held.wait()
        call.cancel()
        await asyncio.wait([call])
        told = await opened.run("2")  # the first that gets an answer; that it was told cannot be noted
        assert "They had left: x." in told.notes[0]
        assert (await opened.run("3")).notes == ()
        assert (await opened.row()).untold_loss is None
