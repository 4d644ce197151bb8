"""Services over the real records, when one of their writes fails."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.errors import StoreFullError
from orchestrator.services.receipts import Receipt
from orchestrator.services.slots import Ticket
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


async def test_with_a_receipt_a_loss_is_told_again_until_that_says_that_it_came(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:

        async def losses(code: str, receipt: Receipt | None = None) -> list[str]:
            result = await opened.sessions.execute(code, session_id="s", ticket=Ticket(receipt))
            return [note for note in result.notes if note.startswith("Lost")]

        await opened.run("x = 1")
        (lost,) = await losses(KILLED, Receipt())
        receipt = Receipt()
        assert await losses("2", receipt) == [lost]
        receipt.received()
        assert await losses("3") == []
        assert (await opened.row()).untold_loss is None


async def test_a_receipt_for_less_than_there_is_to_tell_by_now_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        receipt = Receipt()
        await opened.run("x = 1")
        await opened.sessions.execute(KILLED, session_id="s", ticket=Ticket(receipt))
        await opened.sessions.execute("y = 3", session_id="s", ticket=Ticket(Receipt()))
        second = Receipt()
        both = await opened.sessions.execute(KILLED, session_id="s", ticket=Ticket(second))
        assert "executions 1 to 4" in both.notes[0]
        receipt.received()
        await asyncio.sleep(0.05)
        assert "executions 1 to 4" in (await opened.run("5")).notes[0]


async def test_a_receipt_that_comes_too_late_harms_nobody_and_what_it_is_for_is_told_again(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as opened:
        receipt = Receipt()
        await opened.run("x = 1")
        await opened.sessions.execute(KILLED, session_id="s", ticket=Ticket(receipt))
        await opened.hibernate()
        receipt.received()
        await opened.run("2")
        assert (await opened.run("3")).notes == ()
        late = Receipt()
        await opened.sessions.execute(KILLED, session_id="s", ticket=Ticket(late))
    late.received()
    async with house(tmp_path) as again:
        assert (await again.run("4")).notes[0].startswith("Lost: the effects of execution")
