"""Real commands about all that is stored: beside a server that runs, and where none does."""

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.settings import Settings
from tests.docker.test_cli_sessions import PATIENCE, ordered
from tests.docker.test_hurry import changed
from tests.docker.test_serve import client, keys_of, run, server

RED = ("shop", "--tenant", "red")


@pytest.mark.usefixtures("engine")
async def test_beside_a_server_all_is_checked_measured_and_backed_up(settings: Settings, tmp_path: Path) -> None:
    keys = await keys_of(settings)
    async with server(settings) as (url, process):
        async with client(url, keys["red"]) as speaking:
            await run(speaking, "x = 41\nopen('note', 'w').write('kept')")
        await ordered(settings, "session", "snapshot", *RED)
        ((found,), said) = await ordered(settings, "db", "check")
        assert str(process.pid) in said
        assert (found["sessions"], found["snapshots"] > 0, found["problems"]) == (1, True, [])
        ((sizes,), _) = await ordered(settings, "db", "stats")
        assert (sizes["files"], sizes["largest"][0]["session"], sizes["largest"][0]["tenant"]) == (1, "shop", "red")
        assert {"sessions", "executions", "audit"} <= {table["table"] for table in sizes["tables"]}
        ((freed,), _) = await ordered(settings, "db", "vacuum")
        assert freed["records_in_use"] is False
        ((made,), _) = await ordered(settings, "db", "backup", str(tmp_path / "backup"))
        assert (made["sessions"], (tmp_path / "backup" / "manifest.json").exists()) == (1, True)
        _, said = await ordered(settings, "db", "backup", str(tmp_path / "backup"), code=2)
        assert "is there already" in said
        _, said = await ordered(settings, "db", "restore", str(tmp_path / "backup"), "--yes", "--force", code=4)
        assert str(process.pid) in said
        async with client(url, keys["red"]) as speaking:
            assert (await run(speaking, "x = 42\nx"))["value"] == "42"
    _, said = await ordered(settings, "db", "restore", str(tmp_path / "backup"), "--dry-run")
    assert "session shop" in said
    assert "goes back to execution 1" in said
    _, said = await ordered(settings, "db", "restore", str(tmp_path / "backup"), "--yes", code=2)
    assert "not empty" in said
    ((done,), _) = await ordered(settings, "db", "restore", str(tmp_path / "backup"), "--yes", "--force")
    assert done["is_same_installation"] is True
    (lost,) = done["set_back"]["sessions"]
    assert (lost["session_id"], lost["before"], lost["after"]) == ("shop", 2, 1)
    assert (settings.data_dir.parent / done["set_aside"] / RECORDS_NAME).exists()
    assert (await ordered(settings, "db", "check"))[0][0]["problems"] == []
    async with server(settings) as (url, _), client(url, keys["red"]) as speaking:
        assert (await run(speaking, "x, open('note').read()"))["value"] == "(41, 'kept')"


@pytest.mark.usefixtures("engine")
async def test_what_is_wrong_is_named_and_fails_the_command(settings: Settings) -> None:
    async with Orchestrator.open(settings) as o:
        await o.execute("import random\nx = random.randbytes(200_000)", session_id="s")
    (file,) = (settings.data_dir / "sessions").glob("*.pieces")
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("UPDATE pieces SET data = zeroblob(length(data))")
    ((found,), _) = await ordered(settings, "db", "check", code=1)
    assert found["problems"]


@pytest.mark.usefixtures("engine")
async def test_a_session_goes_to_another_installation_that_trusts_its_signer(
    settings: Settings, tmp_path: Path
) -> None:
    there = changed(settings, data_dir=tmp_path / "there")
    async with Orchestrator.open(settings) as o:
        await o.execute("x = 41\nprint('said')", session_id="s")
    capsule = tmp_path / "s.capsule"
    ((written,), _) = await ordered(settings, "session", "export", "s", str(capsule))
    assert written["bytes"] == capsule.stat().st_size
    assert capsule.stat().st_mode & 0o777 == 0o600
    _, said = await ordered(settings, "session", "export", "s", str(capsule), code=2)
    assert "--force" in said
    await ordered(settings, "session", "export", "s", str(capsule), "--force")
    await ordered(settings, "session", "export", "s", str(tmp_path / "s.ipynb"), "--ipynb")
    cells = json.loads((tmp_path / "s.ipynb").read_text())["cells"]
    assert "said" in str(cells[0]["outputs"])
    assert [name for name in os.listdir(tmp_path) if name.endswith(".partial")] == []  # noqa: PTH208

    _, said = await ordered(there, "session", "import", "copy", str(capsule), "--yes", code=4)
    assert "not trusted" in said
    ((own,), _) = await ordered(settings, "trust", "key")
    await ordered(there, "trust", "add", "home", own["key"])
    ((came,), said) = await ordered(there, "session", "import", "copy", str(capsule), "--yes")
    assert (came["session"], came["signer"], came["fingerprint"]) == ("copy", "home", own["fingerprint"])
    assert "code of its author runs" in said
    altered = bytearray(capsule.read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / "altered").write_bytes(altered)
    await ordered(there, "session", "import", "other", str(tmp_path / "altered"), "--yes", code=2)
    await ordered(there, "session", "show", "other", code=3)
    assert [one["name"] for one in (await ordered(there, "trust", "list"))[0]] == ["home"]
    await ordered(there, "trust", "remove", "home", "--yes")
    await ordered(there, "session", "import", "third", str(capsule), "--yes", code=4)
    async with Orchestrator.open(there) as o:
        assert (await o.execute("x", session_id="copy")).value == "41"
        await o.delete("copy")


@pytest.mark.usefixtures("engine")
async def test_a_session_goes_through_a_pipe(settings: Settings, tmp_path: Path) -> None:
    there = changed(settings, data_dir=tmp_path / "there")
    async with Orchestrator.open(settings) as o, Orchestrator.open(there) as other:
        await o.execute("import random\nx = random.randbytes(3_000_000)\nlen(x)", session_id="s")
        await other.capsules.trust.add("home", o.capsules.trust.own_key(), by=LOCAL_CALLER)
    program = f"{sys.executable} -m orchestrator session"
    line = (
        f"{program} export s - --data-dir {settings.data_dir} | {program} import t - --json --data-dir {there.data_dir}"
    )
    _, said = await piped(settings, line, code=2)
    assert "--yes" in said
    out, _ = await piped(settings, f"{line} --yes")
    assert json.loads(out)["stored_bytes"] > 3_000_000


async def piped(settings: Settings, line: str, *, code: int = 0) -> tuple[str, str]:
    """What the last command of a shell's line prints, and what all say beside that."""
    process = await asyncio.create_subprocess_shell(
        line,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir)},
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode(), err.decode()


async def test_older_records_are_migrated_with_a_copy_of_before(settings: Settings) -> None:
    _, said = await ordered(settings, "db", "migrate", code=2)
    assert "no records" in said
    await ordered(settings, "tenant", "list")
    ((done,), _) = await ordered(settings, "db", "migrate")
    assert (done["before"], done["copy"]) == (done["after"], None)
