"""Directories of ours: private, and refused where a stranger could have a hand in them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import places

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
STRANGER = 12_345


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_runtime_directory_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    places.private_directory(str(path))
    places.private_directory(str(path))
    assert mode(path) == 0o700


def test_a_link_is_refused_as_runtime_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(places.PlaceError, match="not a directory"):
        places.private_directory(str(tmp_path / "link"))


def test_a_runtime_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o755)
    with pytest.raises(places.PlaceError, match="mode 0755"):
        places.private_directory(str(path))
    assert mode(path) == 0o755


@pytest.mark.parametrize(("found", "left"), [(0o755, 0o700), (0o777, None)])
def test_one_of_our_name_is_closed_unless_others_could_write_to_it(
    tmp_path: Path, found: int, left: int | None
) -> None:
    path = tmp_path / places.DIRECTORY_NAME
    path.mkdir()
    path.chmod(found)
    if left is None:
        with pytest.raises(places.PlaceError, match="open to other users"):
            places.private_directory(str(path))
    else:
        places.private_directory(str(path))
        assert mode(path) == left


@AS_ROOT
@pytest.mark.parametrize("check", [places.private_directory, places.ensure_data_directory])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, check: Callable[[str], None]) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(places.PlaceError, match=f"belongs to user {STRANGER}"):
        check(str(path))


def test_an_empty_data_directory_is_closed_and_a_full_one_is_not_touched(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    for path in (empty, full):
        path.mkdir()
        path.chmod(0o755)
    (full / "letters").touch()
    places.ensure_data_directory(str(empty))
    assert mode(empty) == 0o700
    with pytest.raises(places.PlaceError, match="open to other users") as caught:
        places.ensure_data_directory(str(full))
    assert "chmod 700" in caught.value.hint
    assert mode(full) == 0o755


def test_a_data_directory_may_be_a_link_and_has_one_socket_either_way(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    places.ensure_data_directory(str(tmp_path / "link"))
    assert places.socket_path("/run/x", str(tmp_path / "link")) == places.socket_path("/run/x", str(tmp_path / "disk"))
    assert places.socket_path("/run/x", str(tmp_path)) != places.socket_path("/run/x", str(tmp_path / "disk"))


def test_a_path_too_long_for_a_socket_is_refused_in_words() -> None:
    longest = "/" + "r" * (places.MAX_SOCKET_PATH_BYTES - len("/" + "/0123456789abcdef.sock"))
    assert len(places.socket_path(longest, "/data")) == places.MAX_SOCKET_PATH_BYTES
    with pytest.raises(places.PlaceError, match="too long"):
        places.socket_path(longest + "r", "/data")


def test_the_users_runtime_directory_is_preferred_where_it_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(places.RUNTIME_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert places.runtime_directory() == f"{tmp_path}/{places.DIRECTORY_NAME}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert not places.runtime_directory().startswith(str(tmp_path))


def test_without_a_runtime_directory_it_lies_among_temporary_files_under_the_users_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(places.RUNTIME_DIR_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/temporary")
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert places.runtime_directory() == f"/temporary/{places.DIRECTORY_NAME}-{STRANGER}"
