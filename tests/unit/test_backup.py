"""A backup of a house that is in use, what a restore makes of it, and what it refuses."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.adapters.signing_key import SigningKey
from orchestrator.adapters.store import backup as backups
from orchestrator.adapters.store import restore as restoring
from orchestrator.adapters.store import schema
from orchestrator.adapters.store.backup import MANIFEST_NAME, back_up
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.adapters.store.restore import FENCE, restore
from orchestrator.adapters.store.setback import Setback
from orchestrator.domain.errors import InvalidRequestError, OwnedError, StoreFullError, StoreUnusableError
from orchestrator.domain.signing import KEY_NAME
from orchestrator.offline import look_at_backup, migrate
from tests.unit.pretended_engine import house

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def untold(_done: int, _total: int) -> None:
    return


@pytest.fixture
async def made(tmp_path: Path) -> Path:
    """A backup of one saved session, in which more was done since."""
    async with house(tmp_path / "data") as opened:
        await opened.run("x = 1")
        await opened.save()
        made = tmp_path / "backup"
        await back_up(tmp_path / "data" / RECORDS_NAME, opened.pieces, made, NOW, untold)
        await opened.run("x = 2")
        await opened.save()
    return made


async def test_a_restored_session_is_as_the_backup_has_it_and_the_check_approves(made: Path, tmp_path: Path) -> None:
    done = await asyncio.to_thread(restore, made, tmp_path / "data", NOW, force=True)
    assert done.is_same_installation
    assert done.set_aside is not None
    assert (done.set_aside / RECORDS_NAME).exists()
    async with house(tmp_path / "data") as again:
        assert (await again.histories.check()).problems == ()
        assert (await again.run("x")).value == "1"
        assert (await again.row()).executions == FENCE + 2


async def test_saves_while_files_are_copied_trim_no_head_that_the_records_name(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as opened:
        await opened.run("x = 0")
        await opened.save()
        genuine = opened.pieces.copy

        async def late(*arguments: object) -> None:
            for number in range(1, 9):  # beyond what a history keeps
                await opened.run(f"x = {number}")
                await opened.save()
            await genuine(*arguments)  # type: ignore[arg-type]

        opened.pieces.copy = late  # type: ignore[method-assign,assignment]
        await back_up(tmp_path / "data" / RECORDS_NAME, opened.pieces, tmp_path / "backup", NOW, untold)
    await asyncio.to_thread(restore, tmp_path / "backup", tmp_path / "other", NOW)
    async with house(tmp_path / "other") as again:
        assert (await again.histories.check()).problems == ()
        assert (await again.run("x")).value == "0"


async def test_a_session_that_is_deleted_meanwhile_is_in_neither_part(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as opened:
        await opened.run("x = 0")
        await opened.save()
        key = (await opened.row()).key
        genuine = opened.pieces.copy

        async def late(*arguments: object) -> None:
            await opened.pieces.delete(key)
            await genuine(*arguments)  # type: ignore[arg-type]

        opened.pieces.copy = late  # type: ignore[method-assign,assignment]
        await back_up(tmp_path / "data" / RECORDS_NAME, opened.pieces, tmp_path / "backup", NOW, untold)
    told = json.loads((tmp_path / "backup" / MANIFEST_NAME).read_text())
    assert told["deleted_meanwhile"] == [key]
    with closing(sqlite3.connect(tmp_path / "backup" / RECORDS_NAME)) as raw:
        assert raw.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def test_a_backup_is_private_and_holds_no_sandbox(made: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in made.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (made, *made.rglob("*")) if path.is_dir()} == {0o700}
    with closing(sqlite3.connect(made / RECORDS_NAME)) as raw:
        assert raw.execute("SELECT count(*) FROM sandboxes").fetchone() == (0,)


async def test_a_full_target_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreFullError("full")

    monkeypatch.setattr(backups, "_finish", full)
    async with house(tmp_path / "data") as opened:
        await opened.run("x = 0")
        await opened.save()
        with pytest.raises(StoreFullError):
            await back_up(tmp_path / "data" / RECORDS_NAME, opened.pieces, tmp_path / "to" / "backup", NOW, untold)
    assert list((tmp_path / "to").iterdir()) == []


def test_elsewhere_it_becomes_an_installation_of_its_own(made: Path, tmp_path: Path) -> None:
    done = restore(made, tmp_path / "other", NOW)
    assert not done.is_same_installation
    assert done.set_aside is None
    assert done.installation != json.loads((made / MANIFEST_NAME).read_text())["installation"]
    taken = restore(made, tmp_path / "third", NOW, take_over=True)
    assert taken.installation == json.loads((made / MANIFEST_NAME).read_text())["installation"]


def test_what_is_there_is_not_replaced_unless_forced_or_while_it_is_owned(made: Path, tmp_path: Path) -> None:
    before = (tmp_path / "data" / RECORDS_NAME).read_bytes()
    with pytest.raises(InvalidRequestError):
        restore(made, tmp_path / "data", NOW)
    held = DataDirectory.own(tmp_path / "data", kind="library", version="1")
    with pytest.raises(OwnedError):
        restore(made, tmp_path / "data", NOW, force=True)
    held.release()
    assert (tmp_path / "data" / RECORDS_NAME).read_bytes() == before


@pytest.mark.parametrize("harm", ["altered", "missing", "newer", "strange name"])
def test_a_backup_that_is_not_as_it_was_made_is_refused(made: Path, tmp_path: Path, harm: str) -> None:
    manifest = json.loads((made / MANIFEST_NAME).read_text())
    name = next(name for name in manifest["files"] if name != RECORDS_NAME)
    if harm == "altered":
        (made / name).write_bytes((made / name).read_bytes()[:-1] + b"?")
    elif harm == "missing":
        (made / name).unlink()
    elif harm == "newer":
        manifest["schema"] = 10_000
    else:
        manifest["files"]["../outside"] = manifest["files"].pop(name)
    (made / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(StoreUnusableError):
        restore(made, tmp_path / "other", NOW)
    assert not (tmp_path / "other" / RECORDS_NAME).exists()


def test_an_old_directory_that_cannot_be_put_aside_is_not_removed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "data" / RECORDS_NAME).read_bytes()

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "an error")

    monkeypatch.setattr(restoring, "_put_aside", failing)
    with pytest.raises(StoreUnusableError):
        restore(made, tmp_path / "data", NOW, force=True)
    (old,) = tmp_path.glob("data.restoring-*")
    assert (old / RECORDS_NAME).read_bytes() == before


@pytest.mark.parametrize("step", ["_copy", "_fence", "_agree", "_sync", "_exchange", "_put_aside"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_the_old_directory_or_the_new_one(
    made: Path, tmp_path: Path, step: str, when: str
) -> None:
    killing = f"""
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from orchestrator.adapters.store import restore as restoring
genuine = restoring.{step}
def dying(*a, **k):
    if {when == "after"}: genuine(*a, **k)
    os.kill(os.getpid(), signal.SIGKILL)
restoring.{step} = dying
restoring.restore(Path(sys.argv[1]), Path(sys.argv[2]), datetime.now(UTC), force=True)
"""
    data = tmp_path / "data"
    before = (data / RECORDS_NAME).read_bytes()
    ended = subprocess.run([sys.executable, "-c", killing, str(made), str(data)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    is_new = (step, when) in {("_exchange", "after"), ("_put_aside", "before"), ("_put_aside", "after")}
    assert ((data / RECORDS_NAME).read_bytes() == before) == (not is_new)
    if is_new:
        (old,) = [path for path in tmp_path.glob("data.*") if path.is_dir()]
        assert (old / RECORDS_NAME).read_bytes() == before
        with closing(sqlite3.connect(data / RECORDS_NAME)) as raw:
            assert raw.execute("SELECT min(executions) >= ? FROM sessions", (FENCE,)).fetchone() == (1,)
    assert os.listdir(data)  # noqa: PTH208 - that it is there


async def test_newer_files_that_somebody_puts_beside_restored_records_are_reported_and_no_wake_takes_them(
    made: Path, tmp_path: Path
) -> None:
    done = await asyncio.to_thread(restore, made, tmp_path / "data", NOW, force=True)
    assert done.set_aside is not None
    (ahead,) = (done.set_aside / "sessions").glob("*.pieces")
    shutil.copyfile(ahead, tmp_path / "data" / "sessions" / ahead.name)
    async with house(tmp_path / "data") as again:
        (problem,) = (await again.histories.check()).problems
        assert "which the records have never intended" in problem
        assert (await again.run("x")).value == "1"


@pytest.mark.usefixtures("made")
def test_a_kill_while_a_backup_is_made_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    killing = """
import asyncio, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from orchestrator.adapters.store import backup
from orchestrator.adapters.store.pieces.store import PiecesPolicy, open_pieces
from orchestrator.adapters.system_clock import SystemClock
async def main():
    data = Path(sys.argv[1])
    async with open_pieces(data, SystemClock(), PiecesPolicy()) as pieces:
        told = lambda done, total: done == total and os.kill(os.getpid(), signal.SIGKILL)
        await backup.back_up(data / "records.sqlite3", pieces, Path(sys.argv[2]), datetime.now(UTC), told)
asyncio.run(main())
"""
    target = tmp_path / "killed"
    ended = subprocess.run(
        [sys.executable, "-c", killing, str(tmp_path / "data"), str(target)], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert not target.exists()
    (left,) = tmp_path.glob("killed.*.partial")
    assert not (left / MANIFEST_NAME).exists()
    with pytest.raises(StoreUnusableError):
        restore(left, tmp_path / "other", NOW)


async def test_a_backup_of_an_older_schema_is_migrated(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = (*schema.MIGRATIONS, ("CREATE TABLE of_a_later_version (a INTEGER) STRICT",))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    await asyncio.to_thread(restore, made, tmp_path / "other", NOW)
    with closing(sqlite3.connect(tmp_path / "other" / RECORDS_NAME)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert raw.execute("SELECT count(*) FROM of_a_later_version").fetchone() == (0,)


async def test_the_signing_key_stays_the_installations(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with house(data) as opened:
        await opened.run("x = 1")
        await opened.save()
        own = SigningKey(data).public_key()
        await back_up(data / RECORDS_NAME, opened.pieces, tmp_path / "backup", NOW, untold)
    restore(tmp_path / "backup", tmp_path / "trial", NOW)
    assert not (tmp_path / "trial" / KEY_NAME).exists(), "a trial beside the server signs with a key of its own"
    restore(tmp_path / "backup", tmp_path / "new disk", NOW, take_over=True)
    assert SigningKey(tmp_path / "new disk").public_key() == own
    (tmp_path / "backup" / KEY_NAME).write_bytes(bytes(32))
    with pytest.raises(StoreUnusableError, match=KEY_NAME):
        restore(tmp_path / "backup", data, NOW, force=True)


async def test_a_backup_from_before_the_signing_key_does_not_take_it_away(made: Path, tmp_path: Path) -> None:
    own = SigningKey(tmp_path / "data").public_key()
    restore(made, tmp_path / "data", NOW, force=True)
    assert SigningKey(tmp_path / "data").public_key() == own


async def test_what_a_restore_would_take_back_is_told(made: Path, tmp_path: Path) -> None:
    async with house(tmp_path / "data") as opened:
        await opened.run("y = 1", session_id="later")
    seen = look_at_backup(made, tmp_path / "data")
    assert seen.setback is not None
    assert {(one.session_id, one.before, one.after) for one in seen.setback.sessions} == {
        ("s", 2, 1),
        ("later", 1, None),
    }
    assert seen.created_at == NOW
    (tmp_path / "data" / RECORDS_NAME).write_bytes(b"no records" * 100)
    assert look_at_backup(made, tmp_path / "data").setback is None
    assert look_at_backup(made, tmp_path / "nowhere").setback == Setback()


def test_older_records_are_migrated_with_a_copy_of_before(tmp_path: Path) -> None:
    DataDirectory.own(tmp_path / "data", kind="command", version="1").release()
    path = tmp_path / "data" / RECORDS_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        schema.migrate(raw, schema.MIGRATIONS[:-1])
    done = migrate(tmp_path / "data")
    newest = len(schema.MIGRATIONS)
    assert (done.before, done.after) == (newest - 1, newest)
    assert done.copy is not None
    with closing(sqlite3.connect(done.copy)) as raw:
        assert schema.schema_version(raw) == newest - 1
    assert done.copy.stat().st_mode & 0o777 == 0o600
    assert migrate(tmp_path / "data").copy is None
