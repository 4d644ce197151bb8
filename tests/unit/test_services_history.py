"""Forks, comparisons, saves that were asked for, and deletes."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.errors import InvalidRequestError, SandboxLostError, SessionNotFoundError, StoreFullError
from orchestrator.domain.snapshots import SnapshotDamagedError, SnapshotNotFoundError
from tests.unit.pretended_engine import FullOnce, house
from tests.unit.pretended_faults import Hang, lose
from tests.unit.test_services_damage import damage_piece


async def test_a_fork_goes_its_own_way(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.histories.fork("s", "t")
        await opened.run("x = 2")
        result = await opened.run("x", "t")
        assert (result.value, result.notes) == ("1", ())
        assert opened.agent.files == {"a.txt": "hello"}
        await opened.run("x = 3", "t")
        await opened.save("t")
        assert opened.agent.orders[0].head is None  # its digests were made under another seed
        await opened.hibernate("t")
        assert await opened.value("x", "t") == "3"
        assert await opened.value("x") == "2"
        with pytest.raises(InvalidRequestError):
            await opened.histories.fork("s", "t")
        assert await opened.value("x", "t") == "3"


async def test_a_fork_that_fails_leaves_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        with pytest.raises(SnapshotNotFoundError):
            await opened.histories.fork("s", "t", sequence=77)
        for method in ("intend_replacement", "snapshot_committed"):
            FullOnce(monkeypatch, opened.records, method)
            with pytest.raises(StoreFullError):
                await opened.histories.fork("s", "t", sequence=1)
        damage_piece(tmp_path, b"1")
        with pytest.raises(SnapshotDamagedError):
            await opened.histories.fork("s", "t", sequence=1)
        with pytest.raises(SessionNotFoundError):
            await opened.sessions.list_variables("t")
        assert await opened.pieces.keys() == {(await opened.row()).key}
        await opened.assert_nothing_leaks()


async def test_a_fork_into_a_name_that_somebody_just_took_leaves_that_session_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = opened.records.find_session

        async def late(tenant: str, session_id: str) -> object:
            found = await genuine(tenant, session_id)
            if session_id == "t" and found is None:
                monkeypatch.undo()
                await opened.run("x = 5", "t")
            return found

        monkeypatch.setattr(opened.records, "find_session", late)
        with pytest.raises(InvalidRequestError):
            await opened.histories.fork("s", "t")
        assert await opened.value("x", "t") == "5"


async def test_snapshots_can_be_compared(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        first = await opened.save()
        await opened.run("y = 2")
        second = await opened.save()
        assert list((await opened.histories.compare("s", first, second)).names.added) == ["y"]
        with pytest.raises(SnapshotNotFoundError):
            await opened.histories.compare("s", first, 77)


async def test_a_save_that_was_asked_for_says_why_it_failed(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        opened.faults.at("report", lose)
        with pytest.raises(SandboxLostError):
            await opened.save()
        assert "Lost: the effects of execution 1" in (await opened.run("1")).notes[0]


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("point", ["save", "piece", "report"])
async def test_a_session_deleted_under_a_save_is_gone_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, *, deaf: bool
) -> None:
    monkeypatch.setattr("orchestrator.services.saving._ENDED_BOUND", 0.1)
    async with house(tmp_path, stop_seconds=1) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        hang = Hang(deaf=deaf)
        opened.faults.at(point, hang)
        opened.clock.advance(30)
        opened.reaper.look()
        await hang.entered.wait()
        if deaf and point == "save":
            asyncio.get_running_loop().call_later(0.2, hang.go.set)
        await opened.sessions.delete("s")
        assert await opened.records.all_sessions() == []
        assert await opened.pieces.keys() == frozenset()
        assert await opened.value("x") == "NameError"
        await opened.assert_nothing_leaks()
