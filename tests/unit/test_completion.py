"""Completion in a real bash: commands, and names of tenants and sessions. Other shells are not tried here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.faces.cli import app

PROGRAM = Path(sys.executable).with_name("orchestrator")
# Completes the words that it is given, as a press of the Tab key would.
SCRIPT = """
eval "$(orchestrator --show-completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_orchestrator_completion orchestrator
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str, data: Path) -> list[str]:
    bash = shutil.which("bash")
    assert bash is not None
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "ORCHESTRATOR_DATA_DIR": str(data)}
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    ended = subprocess.run(
        [bash, "--norc", "-c", SCRIPT, "bash", "orchestrator", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    made = CliRunner().invoke(app, ["tenant", "create", "reddish", "--data-dir", str(path)])
    assert made.exit_code == 0, made.output
    return path


def test_bash_completes_commands_and_names(data: Path) -> None:
    assert completed("sess", data=data) == ["session"]
    assert completed("tenant", "show", "red", data=data) == ["reddish"]
    assert completed("session", "show", "nothing-like-it", data=data) == []


def test_where_the_records_cannot_be_read_nothing_is_completed_and_nothing_said(tmp_path: Path) -> None:
    spoilt = tmp_path / "file"
    spoilt.write_text("no directory")
    assert completed("tenant", "show", "red", data=spoilt) == []


def test_a_help_text_waits_for_no_library_of_the_engine_and_no_settings() -> None:
    dear = {"docker", "pydantic_settings", "prompt_toolkit"}
    told = f"import orchestrator.faces.cli, sys; print({dear} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "set()\n"
