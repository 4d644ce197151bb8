"""No file leads outside, and equal sessions are equal bytes.

The scripts of snapshot_programs run in the real image, since what they save belongs to its Python and its libraries.
"""

from pathlib import Path

import docker
import pytest

from tests.docker.sandboxed import run_python

FOLDER = Path(__file__).parent / "snapshot_programs"
BOUND_S = 120


@pytest.mark.parametrize("script", ["workspaces.py", "bytes_and_pieces.py"])
def test_a_script_finds_no_fault(engine: docker.APIClient, script: str) -> None:
    name, *arguments = script.split()
    output = run_python(engine, FOLDER, [f"/cases/{name}", *arguments], bound_s=BOUND_S)
    assert output.splitlines()[-1:] == ["no fault"], output
