"""What was stored is not what is read, or ends whoever loads it: as much as possible comes back, the rest is named."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.domain.errors import SandboxLostError, StoreUnusableError
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import Agent, SandboxImage
from orchestrator.domain.snapshots import SaveFailedError
from tests.unit.pretended_agent import DEADLY, DEADLY_AND_PLAIN, UNLUCKY
from tests.unit.pretended_engine import House, house
from tests.unit.pretended_faults import Fault, Sufferer, fail, lose

TEXT = "a text that takes several pieces of a dozen bytes each"


def damage(path: Path, statement: str, *arguments: object) -> None:
    """Flip bytes in the only session's file."""
    (file,) = (path / "sessions").glob("*.pieces")
    with closing(sqlite3.connect(file)) as raw, raw:
        assert raw.execute(statement, arguments).rowcount > 0


def damage_manifest(path: Path, sequence: int) -> None:
    damage(path, "UPDATE manifests SET namespace_body = zeroblob(9) WHERE sequence = ?", sequence)


def damage_piece(path: Path, data: bytes) -> None:
    damage(path, "UPDATE pieces SET data = zeroblob(length(data)) WHERE data = ?", data)


async def three_snapshots(opened: House) -> None:
    for number in (1, 2, 3):
        await opened.run(f"x = {number}")
        await opened.save()


async def test_a_damaged_head_wakes_from_the_snapshot_before_it_and_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await three_snapshots(opened)
        await opened.hibernate()  # snapshot 4
        damage_manifest(tmp_path, 4)
        damage_manifest(tmp_path, 3)
        result = await opened.run("x")
        assert result.value == "2"
        assert result.saved_through == 2
        (note,) = result.notes
        assert note.startswith("Snapshot 4 is damaged. The session was woken from snapshot 2, ")
        assert "after execution 2; later changes are lost" in note
        assert (await opened.run("y = 1")).notes == ()
        await opened.look(3)
        assert opened.agent.orders[0].head is None
        assert (await opened.row()).saved_through == 5
        assert await opened.hibernate()
        result = await opened.run("x")
        assert (result.value, result.notes) == ("2", ())
        assert await opened.value("y") == "1"


async def test_a_session_none_of_whose_snapshots_can_be_read_starts_empty_and_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        damage_manifest(tmp_path, 1)
        result = await opened.run("x")
        assert result.value == "NameError"
        assert "Snapshot 1 of the session cannot be read" in result.notes[0]
        await opened.run("x = 2")
        await opened.hibernate()
        result = await opened.run("x")
        assert (result.value, result.notes) == ("2", ())
        history = await opened.histories.history("s")
        assert ([snapshot.sequence for snapshot in history.snapshots], list(history.damaged)) == ([2], [1])


async def test_nothing_older_than_a_clear_stands_in_for_its_damaged_head(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await three_snapshots(opened)
        await opened.sessions.clear("s")  # snapshot 4
        await opened.run("y = 1")
        await opened.hibernate()  # snapshot 5
        damage_manifest(tmp_path, 5)
        damage_manifest(tmp_path, 4)
        result = await opened.run("x")
        assert result.value == "NameError"
        assert "cannot be read" in result.notes[0]


async def test_a_damaged_piece_costs_its_own_variable_and_is_sent_again(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f'x = 1\ny = "{TEXT}"\nfile a.txt hello')
        await opened.hibernate()
        damage_piece(tmp_path, b'"a text that')
        result = await opened.run("x")
        assert result.value == "1"
        (note,) = result.notes
        assert note.startswith("Not restored: y (")
        assert (await opened.run(f'y = "{TEXT}"')).notes == ()
        await opened.look(3)
        assert opened.agent.orders[0].head is None
        assert await opened.hibernate()
        result = await opened.run("y")
        assert (result.value, result.notes) == (f'"{TEXT}"', ())
        (problem,) = (await opened.histories.check()).problems  # that of the first snapshot stays
        assert "of snapshots 1 is damaged" in problem


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello\nfile b.txt bye")
        await opened.hibernate()
        damage_piece(tmp_path, b'"hello"')
        result = await opened.run("x")
        assert result.value == "1"
        assert result.notes[0].startswith("Files not restored: a.txt (")
        assert opened.agent.files == {"b.txt": "bye"}


async def test_what_a_wake_has_to_tell_is_told_once_though_the_wake_failed_once(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.hibernate()
        damage_piece(tmp_path, b'"hello"')
        opened.faults.at("execute", lose)
        lost = await opened.run("x")
        assert len([note for note in lost.notes if note.startswith("Files not restored")]) == 1


async def test_an_unreadable_file_leaves_a_session_that_works(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        (file,) = (tmp_path / "sessions").glob("*.pieces")
        file.write_bytes(b"no database" * 1000)
        result = await opened.run("x")
        assert result.value == "NameError"
        assert "cannot be read" in result.notes[0]
        assert (await opened.run("x = 2")).notes == ()
        with pytest.raises(StoreUnusableError):
            await opened.save()
        assert (await opened.histories.check()).problems != ()


async def test_values_that_end_the_worker_are_left_out_and_named(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f'a = 1\nb = "{DEADLY}"\nc = 3\nd = "{DEADLY}"')
        await opened.hibernate()
        result = await opened.run("c")
        assert result.value == "3"
        (note,) = result.notes
        assert note == (
            "Not restored: b (it ended the process that loaded it); d (it ended the process that loaded it)."
        )
        assert await opened.value("a") == "1"
        orders = [order.quarantined for order in opened.agent.restores if order.section == "namespace"]
        assert [sorted(order) for order in orders] == [[], [1], [1, 3]]


@pytest.mark.parametrize(("kills", "named"), [(1, []), (2, ["Not restored: u (it was killed)"])])
async def test_a_worker_that_was_killed_at_a_value_gets_it_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kills: int, named: list[str]
) -> None:
    """Somebody may have killed it from outside, and what it was just loading is innocent."""
    async with house(tmp_path) as opened:
        await opened.run(f'a = 1\nu = "{UNLUCKY}"')
        await opened.hibernate()
        genuine = opened.engine.launch

        async def launch(record: SandboxRecord, image: SandboxImage) -> tuple[str, Agent]:
            handle, agent = await genuine(record, image)
            opened.agent.unlucky = kills
            return handle, agent

        monkeypatch.setattr(opened.engine, "launch", launch)
        result = await opened.run("a")
        assert (result.value, [note.rstrip(".") for note in result.notes]) == ("1", named)


async def test_very_many_values_that_end_the_worker_cost_a_session_nothing_but_themselves(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("a = 1\n" + "\n".join(f'x{number} = "{DEADLY}"' for number in range(30)))
        await opened.hibernate()
        result = await opened.run("a")
        assert result.value == "1"
        assert all(f"x{number} (" in result.notes[0] for number in range(5))
        orders = [order for order in opened.agent.restores if order.section == "namespace"]
        assert [order.careful for order in orders] == [0] * 8 + [1]


async def test_a_session_that_ends_every_worker_stays_asleep_and_every_call_tries_again(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("\n".join(f'x{number} = "{DEADLY_AND_PLAIN}"' for number in range(17)))
        await opened.hibernate()
        for _ in range(2):
            with pytest.raises(SaveFailedError, match="end every process"):
                await opened.run("1")
            assert (await opened.row()).state == "hibernated"
            assert len([order for order in opened.agent.restores if order.section == "namespace"]) == 16
            await opened.assert_nothing_leaks()
        await opened.sessions.clear("s")
        assert await opened.value("1") == "1"


@pytest.mark.parametrize("point", ["restore workspace", "restore namespace", "taken"])
@pytest.mark.parametrize("fault", [fail, lose])
async def test_a_wake_that_fails_leaves_the_session_asleep_and_the_next_call_tries_again(
    tmp_path: Path, point: str, fault: Fault
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.hibernate()
        opened.faults.at(point, fault)
        with pytest.raises((SaveFailedError, SandboxLostError), match=r"could not do it|gone"):
            await opened.run("x = 2")
        assert (await opened.row()).state == "hibernated"
        await opened.assert_nothing_leaks()
        result = await opened.run("x")
        assert (result.value, result.notes, result.execution) == ("1", (), 2)
        assert opened.agent.files == {"a.txt": "hello"}
        await opened.assert_nothing_leaks()


async def test_a_store_that_breaks_under_a_wake_leaves_no_half_namespace(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\ny = 2")
        await opened.hibernate()

        async def breaks(agent: Sufferer) -> None:
            agent.namespace = {"x": 1}
            raise StoreUnusableError("The disk does not answer.")

        opened.faults.at("restore namespace", breaks)
        result = await opened.run("x")
        assert result.value == "NameError"
        assert "The disk does not answer" in result.notes[0]
