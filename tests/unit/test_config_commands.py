"""`orchestrator config`, as a person or a program runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".config" / "session-orchestrator").mkdir(parents=True)
    return tmp_path


def orchestrator(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), **{f"ORCHESTRATOR_{name}": value for name, value in variables.items()}}
    command = [sys.executable, "-m", "orchestrator", "config", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)


def configured(home: Path, text: str) -> Path:
    file = home / ".config" / "session-orchestrator" / "config.toml"
    file.write_text(text)
    return file


def test_every_setting_is_shown_with_where_it_comes_from(home: Path) -> None:
    file = configured(home, '[sandbox]\nmemory = "2GiB"\n')
    shown = orchestrator(home, "show", "--json", DOCKER_HOST="tcp://somebody:secret@127.0.0.1:2375")
    lines = {line["setting"]: line for line in map(json.loads, shown.stdout.splitlines())}
    assert lines["sandbox_memory"] == {
        "setting": "sandbox_memory",
        "value": 2 * 1024**3,
        "origin": "file",
        "where": str(file),
    }
    assert lines["docker_host"]["value"] == "tcp://somebody:***@127.0.0.1:2375"
    assert lines["docker_host"]["where"] == "ORCHESTRATOR_DOCKER_HOST"
    assert (lines["queue_limit"]["origin"], lines["queue_limit"]["where"]) == ("default", None)
    changed = orchestrator(home, "show", "--changed", "--data-dir", str(home / "data"), CHANNEL="unix")
    assert changed.stdout.splitlines() == [
        f"data_dir = {home}/data  (given)",
        f"sandbox_memory = {2 * 1024**3}  ({file})",
        "channel = unix  (ORCHESTRATOR_CHANNEL)",
    ]


def test_all_that_is_wrong_has_a_line_and_the_exit_code_is_2(home: Path) -> None:
    assert orchestrator(home, "check").stdout == "All settings are right. Configuration file: none.\n"
    file = configured(home, "queue_limit = 0\nqueue = 1\n")
    checked = orchestrator(home, "check", CHANEL="unix")
    assert checked.returncode == 2
    assert checked.stdout == ""
    assert checked.stderr.splitlines() == [
        f"queue_limit in {file}: input should be greater than or equal to 1",
        "ORCHESTRATOR_CHANEL: there is no such setting (is ORCHESTRATOR_CHANNEL meant?)",
        f"queue in {file}: there is no such setting (is queue_limit meant?)",
    ]


def test_a_command_refuses_a_file_that_is_no_toml_in_one_sentence(home: Path) -> None:
    file = configured(home, "[sandbox\n")
    shown = orchestrator(home, "show")
    assert shown.returncode == 2
    assert f"{file} is no TOML: " in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_relay_says_so_too(home: Path) -> None:
    file = configured(home, "[sandbox\n")
    command = [sys.executable, "-m", "orchestrator", "mcp"]
    environment = {"HOME": str(home)}
    relay = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60, input="")
    assert relay.returncode == 1
    assert f"{file} is no TOML: " in relay.stderr
    assert relay.stdout == ""
