"""Forks, comparisons, saves that were asked for, and deletes."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.app import RECORDS_NAME
from orchestrator.domain.errors import (
    InvalidRequestError,
    SandboxLostError,
    SessionNotFoundError,
    StoreFullError,
    StoreUnusableError,
)
from orchestrator.domain.model import SessionState
from orchestrator.domain.snapshots import SnapshotDamagedError, SnapshotNotFoundError
from tests.unit.pretended_agent import OPEN_FILE
from tests.unit.pretended_engine import FullOnce, House, house, until
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


async def test_a_check_beside_a_delete_finds_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        opened.engine.may_destroy.clear()
        deleting = asyncio.create_task(opened.sessions.delete("s"))
        await until(lambda: is_destroying(opened))
        assert (await opened.histories.check()).problems == ()  # its file waits for its sandbox

        genuine = opened.pieces.keys

        async def then_deleted() -> frozenset[str]:
            found = await genuine()
            opened.engine.may_destroy.set()
            await asyncio.wait([deleting])
            return found

        with monkeypatch.context() as patched:
            patched.setattr(opened.pieces, "keys", then_deleted)
            assert (await opened.histories.check()).problems == ()
        await deleting


async def test_the_file_of_a_session_whose_delete_failed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        key = (await opened.row()).key

        async def stuck(_key: str) -> None:
            raise StoreUnusableError("The disk does not answer.")

        monkeypatch.setattr(opened.pieces, "delete", stuck)
        await opened.sessions.delete("s")
        assert (await opened.histories.check()).problems == (f"a file of a deleted session: {key}",)


async def is_destroying(opened: House) -> bool:
    return (await opened.row()).state is SessionState.DESTROYING


async def test_records_and_files_agree_whatever_was_done(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:

        async def agrees() -> None:
            assert (await opened.histories.check()).problems == ()

        await agrees()
        await opened.run(f'x = 1\nf = "{OPEN_FILE}"')
        await agrees()
        await opened.save()
        await agrees()
        await opened.run("y = 2")
        await opened.save()
        await opened.histories.roll_back("s", 1)
        await agrees()
        await opened.run("z = 3")
        await opened.save()
        await agrees()
        await opened.histories.fork("s", "copy")
        await agrees()
        await opened.run("x = 5", "copy")
        await agrees()
        await opened.histories.save("copy")
        await agrees()
        await opened.histories.roll_back("copy", 1)
        await opened.sessions.clear("s")
        await agrees()
        await opened.hibernate()
        await agrees()
        await opened.sessions.delete("copy")
        await agrees()


DISAGREEMENTS = {
    "UPDATE snapshots SET head_execution = 1": "By the records the head, snapshot 3, holds execution 1, by the file 2",
    "UPDATE snapshots SET head_activity = head_activity + 9": "The head covers activity",
    "UPDATE sessions SET executions = 1": "The head holds execution 2, and the session's last is 1",
    "UPDATE sessions SET incarnation = 0": "The head is of incarnation 1, and the session's is 0",
    "UPDATE snapshots SET seed = seed - 1": "made under another seed",
    "DELETE FROM heads": "The records list no names of the head, snapshot 3",
    "UPDATE heads SET python = '2.7'": "By the records the head is of Python 2.7",
    "UPDATE heads SET unlisted = 3": "The records list 5 names of the head, and the file has 2",
    "UPDATE heads SET names = replace(names, 'int', 'str')": "are others in the records than in the file, such as x",
    "UPDATE snapshots SET head = 1": "the file 1",
    "UPDATE snapshots SET sequence = 1": "The file holds snapshot 3, which the records have never intended",
    "DELETE FROM heads; DELETE FROM snapshots": "The file holds snapshot 3, which the records have never intended",
    """UPDATE snapshots SET intended = 2, intended_incarnation = 1, intended_execution = 2, intended_activity = 2,
       intended_replaces = 0""": "The intended snapshot, 2, is not between the head, 3, and 3",
    """UPDATE snapshots SET sequence = 4, intended = 4, intended_incarnation = 1, intended_execution = 1,
       intended_activity = 0, intended_replaces = 0""": "is of an earlier moment than the head",
}


@pytest.mark.parametrize(("change", "said"), DISAGREEMENTS.items(), ids=map(str, range(len(DISAGREEMENTS))))
async def test_records_that_say_something_else_than_the_file_are_named(tmp_path: Path, change: str, said: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("y = 2")
        await opened.save()
        await opened.hibernate()
    changed = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-changed"))
    async with house(changed) as opened:
        with closing(sqlite3.connect(changed / RECORDS_NAME)) as records:
            records.executescript(change)
        problems = (await opened.histories.check()).problems
        assert [problem for problem in problems if said in problem], problems
