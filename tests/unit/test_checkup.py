"""What the doctor says of disk, records, clock, ports, keys and leftovers, and what its bundle holds."""

import json
import os
import socket
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator import __version__, places
from orchestrator.adapters.data_directory import DataDirectory, is_owned
from orchestrator.adapters.store.health import look_at_records
from orchestrator.adapters.store.pieces.file import SUFFIX
from orchestrator.adapters.store.records import RECORDS_NAME, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.checkup import checks_of, versions
from orchestrator.domain import checkup
from orchestrator.domain.checkup import Check, KeyExpiry, RecordsHealth
from orchestrator.domain.errors import InvalidRequestError, StoreUnusableError
from orchestrator.domain.examination import Examination
from orchestrator.domain.hardening import MIB
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.settings import Settings
from orchestrator.support_bundle import without_names, write_bundle

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
WHOLE = RecordsHealth(3, 3, (), 4096, 0, (("sessions", 2),), NOW, (), frozenset(), frozenset(), "i")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir(mode=0o700)
    places.ensure_data_directory(str(tmp_path / "data"))
    return Settings.load(data_dir=tmp_path / "data", runtime_dir=tmp_path / "run", http_port=0)


def by_name(checks: tuple[Check, ...]) -> Mapping[str, Check]:
    return {check.name: check for check in checks}


async def recorded(settings: Settings, *sessions: str) -> RecordsHealth:
    """Records of a real owner that has ended."""
    async with open_records(settings.data_dir / RECORDS_NAME, SystemClock()) as records:
        for name in sessions:
            await records.ensure_session(LOCAL_TENANT, name, "environment")
    return look_at_records(settings.data_dir / RECORDS_NAME)


@pytest.mark.parametrize(("free", "verdict"), [(3, "fine"), (1, "look"), (0.5, "wrong")])
def test_room_is_told_by_the_floor(free: float, verdict: str) -> None:
    assert checkup.disk("disk", "/data", int(free * 512 * MIB), 512 * MIB).verdict == verdict


def test_records_that_are_damaged_or_newer_are_wrong_and_a_long_log_is_worth_a_look() -> None:
    assert [check.verdict for check in checkup.records("r", WHOLE)] == ["fine"]
    assert [check.verdict for check in checkup.records("r", replace(WHOLE, faults=("row 3 missing",)))] == ["wrong"]
    assert [check.verdict for check in checkup.records("r", replace(WHOLE, schema=4))] == ["wrong"]
    assert [check.verdict for check in checkup.records("r", replace(WHOLE, wal=100 * MIB))] == ["fine", "look"]


def test_a_clock_that_went_back_behind_what_was_written_is_wrong() -> None:
    assert checkup.clock(None, NOW).verdict == "fine"
    assert checkup.clock(NOW + timedelta(minutes=4), NOW).verdict == "fine"
    assert checkup.clock(NOW + timedelta(minutes=6), NOW).verdict == "wrong"


def test_keys_that_expire_soon_are_named_with_the_command_that_helps() -> None:
    def key(days: float) -> KeyExpiry:
        return KeyExpiry("red", "laptop", f"k{days:g}", NOW + timedelta(days=days))

    told = list(checkup.keys([key(13), key(-1), key(15), key(1)], NOW))
    assert [check.seen[:3] for check in told] == ["k1 ", "k13"]
    assert told[0].remedy == "`orchestrator key rotate k1` makes another one like it."
    assert [check.verdict for check in checkup.keys([key(15)], NOW)] == ["fine"]


async def test_an_installation_in_order_is_fine_in_every_line(settings: Settings) -> None:
    found = await recorded(settings, "s")
    checks = checks_of(settings, {"other": "somebody else's"})
    assert {check.verdict for check in checks} == {"fine"}
    assert found.counts[2] == ("sessions", 1)
    assert by_name(checks)["data directory"].seen.endswith("nobody owns it")


async def test_what_belongs_to_nobody_is_named(settings: Settings) -> None:
    found = await recorded(settings, "s")
    stray = "f" * 32
    (settings.data_dir / "sessions").mkdir()
    (settings.data_dir / "sessions" / f"{stray}{SUFFIX}").touch()
    (settings.data_dir / "sessions" / f"{min(found.sessions)}{SUFFIX}").touch()
    checks = by_name(checks_of(settings, {"lost": found.installation}))
    assert (checks["orphaned files"].verdict, checks["orphaned files"].seen) == ("look", f"1: {stray}")
    assert (checks["orphaned containers"].verdict, checks["orphaned containers"].seen) == ("look", "1: lost")


async def test_the_records_are_read_beside_an_owner_that_writes(settings: Settings) -> None:
    path = settings.data_dir / RECORDS_NAME
    async with open_records(path, SystemClock()) as records:
        await records.ensure_session(LOCAL_TENANT, "before", "environment")
        assert len(look_at_records(path).sessions) == 1
        await records.ensure_session(LOCAL_TENANT, "after", "environment")
        assert len(look_at_records(path).sessions) == 2
    assert len(look_at_records(path).sessions) == 2
    async with open_records(path, SystemClock()) as records:
        assert len(await records.all_sessions()) == 2


async def test_records_that_are_damaged_are_wrong_and_none_is_changed(settings: Settings) -> None:
    await recorded(settings, *(f"s{number}" for number in range(500)))
    path = settings.data_dir / RECORDS_NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3 * 4096] = os.urandom(3 * 4096)
    path.write_bytes(content)
    assert by_name(checks_of(settings, None))["records"].verdict == "wrong"
    assert path.read_bytes() == content
    path.write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(StoreUnusableError, match="file is not a database"):
        look_at_records(path)
    assert by_name(checks_of(settings, None))["records"].verdict == "wrong"


async def test_records_of_a_newer_version_are_told_as_such(settings: Settings) -> None:
    await recorded(settings)
    with sqlite3.connect(settings.data_dir / RECORDS_NAME) as raw:
        raw.execute("PRAGMA user_version = 1000")
    assert "has schema 1000" in by_name(checks_of(settings, None))["records"].seen


def test_a_port_that_is_taken_is_worth_a_look(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        checks = by_name(checks_of(settings.model_copy(update={"http_port": port}), None))
    assert checks["port"].verdict == "look"
    assert f"{port} at 127.0.0.1 cannot be had: Address already in use" in checks["port"].seen


def test_an_owner_that_does_not_answer_is_wrong(settings: Settings) -> None:
    directory = DataDirectory.own(settings.data_dir, kind="owner", version=__version__, socket=settings.owner_socket)
    try:
        assert is_owned(settings.data_dir)
        checks = by_name(checks_of(settings, None))
        assert checks["socket"].verdict == "wrong"
        assert f"process {os.getpid()} owns it (owner, {__version__})" in checks["data directory"].seen
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(settings.owner_socket))
            listener.listen()
            assert by_name(checks_of(settings, None))["socket"].verdict == "fine"
    finally:
        directory.release()
    assert not is_owned(settings.data_dir)


def test_a_data_directory_that_is_open_to_others_is_wrong(settings: Settings) -> None:
    (settings.data_dir / "something").touch()
    settings.data_dir.chmod(0o755)
    assert by_name(checks_of(settings, None))["data directory"].verdict == "wrong"


def test_one_that_is_not_there_yet_is_fine(tmp_path: Path, settings: Settings) -> None:
    absent = settings.model_copy(update={"data_dir": tmp_path / "a" / "b"})
    assert {check.verdict for check in checks_of(absent, None)} == {"fine"}
    assert not (tmp_path / "a").exists()


def test_what_is_wrong_decides_the_exit_code_and_what_is_worth_a_look_does_not() -> None:
    sound = Examination("1", {}, protections=(), versions=versions())
    assert replace(sound, checks=(Check("disk", "wrong", "1 MiB", "Free some."),)).exit_code == 1
    assert replace(sound, checks=(Check("port", "look", "taken"),)).exit_code == sound.exit_code
    told = "\n".join(replace(sound, checks=(Check("disk", "wrong", "1 MiB", "Free some."),)).lines())
    assert "WRONG         disk               1 MiB" in told
    assert "what to do: Free some." in told
    assert "Not in order: disk." in told
    assert f"SQLite {sqlite3.sqlite_version}" in told


def members(bundle: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(bundle) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, file.read().decode()


async def test_the_bundle_has_what_helps_and_none_of_what_is_secret(settings: Settings, tmp_path: Path) -> None:
    await recorded(settings, "my divorce")
    (settings.data_dir / places.LOG_NAME).write_text(
        "session 'my divorce' of so_abc_S3cretS3cret ended\nAuthorization: Bearer eyJhbGciOi.eyJzdWIi.c2ln\n"
    )
    chosen = settings.model_copy(update={"docker_host": "tcp://me:hunter2@127.0.0.1:1"})
    bundle = tmp_path / "bundle.tar.gz"
    origins = {name: {"origin": "default", "where": None} for name in Settings.model_fields}
    write_bundle(bundle, chosen, origins, Examination(__version__, {"session": "my divorce"}, versions=versions()))
    parts = dict(members(bundle))
    everything = "\n".join(parts.values())
    for secret in ("my divorce", "S3cret", "hunter2", "eyJ"):
        assert secret not in everything
    folder = "session-orchestrator-support"
    assert json.loads(parts[f"{folder}/settings.json"])["docker_host"]["value"] == "tcp://me:***@127.0.0.1:1"
    assert "CREATE TABLE sessions" in parts[f"{folder}/schema.sql"]
    assert "session 'name-" in parts[f"{folder}/owner.log"]
    assert json.loads(parts[f"{folder}/report.json"])["version"] == __version__
    assert bundle.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidRequestError, match="cannot be made: File exists"):
        write_bundle(bundle, chosen, origins, Examination(__version__, {}))


def test_names_are_replaced_where_they_stand_by_themselves() -> None:
    told = without_names("s and sessions of a.b, a", {"s", "a.b", "a"})
    assert told.count("name-") == 3
    assert "sessions of" in told
