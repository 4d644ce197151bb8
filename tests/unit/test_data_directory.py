"""One process owns a data directory, and whoever comes second is told who."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import places
from orchestrator.adapters.data_directory import DataDirectory, holder
from orchestrator.domain.errors import InvalidRequestError, OwnedError

OWN_AND_WAIT = (
    "import pathlib, sys; from orchestrator.adapters.data_directory import DataDirectory\n"
    "own = DataDirectory.own(pathlib.Path(sys.argv[1]), kind=sys.argv[2], version='9')\n"
    "print('owned', flush=True); sys.stdin.read()"
)


def start_owner(path: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_AND_WAIT, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


def test_an_owned_directory_is_private_and_says_who_owns_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    own = DataDirectory.own(path, kind="owner", version="1", socket=Path("/run/s"))
    found = holder(path)
    assert found is not None
    assert (found.pid, found.kind, found.version, found.socket) == (os.getpid(), "owner", "1", "/run/s")
    assert (path.stat().st_mode & 0o777, (path / places.LOCK_NAME).stat().st_mode & 0o777) == (0o700, 0o600)
    own.release()
    own.release()
    assert holder(path) is None
    DataDirectory.own(path, kind="library", version="1").release()


@pytest.mark.parametrize("kind", ["owner", "library"])
def test_a_second_owner_is_told_pid_and_kind_of_the_first(tmp_path: Path, kind: str) -> None:
    with start_owner(tmp_path / "data", kind) as first:
        with pytest.raises(OwnedError) as caught:
            DataDirectory.own(tmp_path / "data", kind="library", version="1")
        assert f"Process {first.pid}" in caught.value.message
        assert ("library" if kind == "library" else "orchestrator mcp") in caught.value.message
        assert caught.value.hint
        first.communicate()


def test_even_the_same_process_owns_it_once(tmp_path: Path) -> None:
    own = DataDirectory.own(tmp_path / "data", kind="library", version="1")
    with pytest.raises(OwnedError, match=str(os.getpid())):
        DataDirectory.own(tmp_path / "data", kind="library", version="1")
    own.release()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    with start_owner(tmp_path / "data", "owner") as first:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    DataDirectory.own(tmp_path / "data", kind="owner", version="1").release()


@pytest.mark.parametrize("text", ["", "[]", "{}", "not JSON", '{"pid": null}', '{"pid": 1, "kind": "owner"}'])
def test_an_unreadable_record_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / places.LOCK_NAME).write_text(text)
    assert holder(tmp_path) is None


def test_a_file_in_the_way_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(InvalidRequestError, match="cannot be used"):
        DataDirectory.own(tmp_path / "data", kind="owner", version="1")
