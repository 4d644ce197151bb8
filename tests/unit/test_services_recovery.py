"""What the next owner finds after a kill: all that was saved, and the truth about the rest."""

import shutil
from pathlib import Path

import pytest

from orchestrator.app import RECORDS_NAME
from orchestrator.domain.snapshots import StoredSnapshot
from orchestrator.services.adoption_notes import gone_note
from tests.unit.pretended_engine import REMOVED, SANDBOX_GONE, House, house
from tests.unit.pretended_faults import Fault, Sufferer


def dying(opened: House, found: list[Path]) -> Fault:
    async def fault(_: Sufferer) -> None:
        found.append(opened.die())

    return fault


async def test_a_snapshot_committed_by_the_dead_owner_is_adopted_and_not_told_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        genuine = opened.records.snapshot_committed

        async def killed(key: str, stored: StoredSnapshot) -> bool:
            found.append(opened.die())
            return await genuine(key, stored)

        monkeypatch.setattr(opened.records, "snapshot_committed", killed)
        await opened.save()
    async with house(found[0]) as again:
        assert (await again.row()).saved_through == 2
        result = await again.run("x")
        assert (result.value, result.notes) == ("2", (gone_note(REMOVED, 2),))


async def test_a_loss_excludes_what_was_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Path] = []
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        genuine = opened.records.snapshot_committed

        async def killed(key: str, stored: StoredSnapshot) -> bool:
            # A cell had come in since the moment of the snapshot.
            number = await opened.records.open_execution(key, 1)
            assert number == 3
            found.append(opened.die())
            await opened.records.close_execution(key, 3, "ok", bound=[], removed=[], variable_count=None)
            return await genuine(key, stored)

        monkeypatch.setattr(opened.records, "snapshot_committed", killed)
        await opened.save()
    async with house(found[0]) as again:
        result = await again.run("x")
        assert result.value == "2"
        assert result.notes == (f"Lost: the effects of execution 3, because {SANDBOX_GONE}.",)


@pytest.mark.parametrize("point", ["save", "piece", "report"])
async def test_a_snapshot_that_was_only_intended_is_lost_and_told(tmp_path: Path, point: str) -> None:
    found: list[Path] = []
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        opened.faults.at(point, dying(opened, found))
        await opened.save()
    async with house(found[0]) as again:
        result = await again.run("x")
        assert result.value == "1"
        assert result.notes == (f"Lost: the effects of execution 2, because {SANDBOX_GONE}. They had left: x.",)
        await again.run("x = 3")
        await again.hibernate()
        assert await again.value("x") == "3"
        assert (await again.histories.check()).problems == ()


async def test_a_kill_under_a_hibernation_loses_nothing_once_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        genuine = opened.records.hibernate_saved

        async def killed(key: str, incarnation: int, activity: int) -> bool:
            found.append(opened.die())
            return await genuine(key, incarnation, activity)

        monkeypatch.setattr(opened.records, "hibernate_saved", killed)
        await opened.hibernate()
    async with house(found[0]) as again:
        result = await again.run("x")
        assert (result.value, result.notes) == ("1", (gone_note(REMOVED, 1),))


async def test_a_kill_under_a_wake_loses_nothing(tmp_path: Path) -> None:
    found: list[Path] = []
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        opened.faults.at("restore namespace", dying(opened, found))
        await opened.run("x")
    async with house(found[0]) as again:
        result = await again.run("x")
        assert (result.value, result.notes) == ("1", ())


@pytest.mark.parametrize("asleep", [False, True])
async def test_a_kill_under_a_clear_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asleep: bool
) -> None:
    found: list[Path] = []
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        if asleep:
            await opened.hibernate()
        for name in ("intend_replacement", "snapshot_committed", "session_cleared"):
            genuine = getattr(opened.records, name)

            async def killed(*arguments: object, genuine=genuine) -> object:  # type: ignore[no-untyped-def] # noqa: ANN001
                found.append(opened.die(f"{len(found)}"))
                answer = await genuine(*arguments)
                found.append(opened.die(f"{len(found)}"))
                return answer

            monkeypatch.setattr(opened.records, name, killed)
        await opened.sessions.clear("s")
    said = []
    for path in found[:6]:  # the close saves once more
        async with house(path) as again:
            result = await again.run("x")
            said.append((result.value, len([note for note in result.notes if note.startswith("Lost")])))
    cleared = ("NameError", 0)
    before = ("2", 0) if asleep else ("1", 1)
    assert said == [before, before, cleared, cleared, cleared, cleared]


@pytest.mark.parametrize("operation", ["clear", "roll back"])
async def test_a_replacement_that_failed_is_not_found_by_the_next_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 0")
        await opened.save()
        await opened.run("x = 1")
        await opened.hibernate()

        async def refused(key: str, stored: StoredSnapshot) -> bool:  # noqa: ARG001 - the port's
            raise OSError("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(opened.records, "snapshot_committed", refused)
            replacing = opened.sessions.clear("s") if operation == "clear" else opened.histories.roll_back("s", 1)
            with pytest.raises(OSError, match="no answer"):
                await replacing
        killed = opened.die()
        assert await opened.value("x") == "1"
    async with house(killed) as again:
        assert await again.value("x") == "1"


async def test_a_session_that_older_records_do_not_know_is_set_aside_and_comes_back_with_newer_ones(
    tmp_path: Path,
) -> None:
    async with house(tmp_path / "data") as opened:
        await opened.run("x = 1")
    older = shutil.copytree(tmp_path / "data", tmp_path / "older")
    async with house(tmp_path / "data") as opened:
        await opened.run("y = 2", "newer")
        newer = (await opened.row("newer")).key
    kept = shutil.copy(tmp_path / "data" / RECORDS_NAME, tmp_path / "kept")
    shutil.copy(older / RECORDS_NAME, tmp_path / "data")

    async with house(tmp_path / "data") as opened:
        assert await opened.pieces.keys() == {(await opened.row()).key}
        assert await opened.value("x") == "1"
        (path,) = await opened.pieces.aside()
        assert f"a file of no session, set aside: {path}" in (await opened.histories.check()).problems
    aside = tmp_path / "data" / "sessions" / path
    assert aside.name == f"{newer}.pieces"

    shutil.copy(kept, tmp_path / "data" / RECORDS_NAME)
    aside.rename(tmp_path / "data" / "sessions" / aside.name)
    async with house(tmp_path / "data") as opened:
        assert (await opened.run("y", "newer")).value == "2"


async def test_a_session_whose_delete_was_cut_short_is_gone_with_its_file(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        await opened.records.session_destroying((await opened.row()).key)
        killed = opened.die()
    async with house(killed) as again:
        assert await again.records.all_sessions() == []
        assert await again.pieces.keys() == frozenset()
        assert await again.pieces.aside() == []
        assert await again.value("x") == "NameError"
