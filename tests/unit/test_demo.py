"""The demo looks first whether its figures can be written, and says in a sentence where they cannot."""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mcp_types import CallToolResult, ImageContent

from orchestrator.faces.cli.demo import _Tour
from orchestrator.settings import Settings

IS_ROOT = os.geteuid() == 0
PNG = base64.b64encode(b"figure").decode()


def demo(output: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "orchestrator", "demo", "--output", str(output)]
    nowhere = {**os.environ, "ORCHESTRATOR_DOCKER_HOST": "unix:///nowhere.sock"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=nowhere)


def assert_told(ended: subprocess.CompletedProcess[str], output: Path, why: str) -> None:
    assert ended.returncode == 1
    sentence, hint = ended.stderr.splitlines()
    assert sentence == f"error: The directory {output} for the figures cannot be written to: {why}."
    assert "--output" in hint
    assert ended.stdout == ""  # nothing was started


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "figures").touch()
    assert_told(demo(tmp_path / "figures"), tmp_path / "figures", "File exists")


@pytest.mark.skipif(IS_ROOT and shutil.which("setpriv") is None, reason="root may write anywhere")
def test_a_directory_of_another_user_is_named(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir(mode=0o555)
    unprivileged = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if IS_ROOT else ()
    assert_told(demo(tmp_path / "figures", *unprivileged), tmp_path / "figures", "Permission denied")


def test_a_figure_that_cannot_be_written_is_a_failure_of_its_own(tmp_path: Path) -> None:
    tour = _Tour(tmp_path, Settings.load(data_dir=tmp_path / "data"))
    (tmp_path / "1-s.png").mkdir()
    result = CallToolResult(content=[ImageContent(type="image", data=PNG, mime_type="image/png")])
    assert tour._keep_figures(result, "s") == 1
    assert [failure.partition(":")[0] for failure in tour.failures] == [
        f"the figure {tmp_path}/1-s.png cannot be written"
    ]
    (tmp_path / "1-s.png").rmdir()
    assert tour._keep_figures(result, "s") == 1
    assert (tmp_path / "1-s.png").read_bytes() == b"figure"
