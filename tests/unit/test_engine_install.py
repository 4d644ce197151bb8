"""Where no engine can be brought up, the advice names the very command of that system."""

from pathlib import Path

import pytest

from orchestrator.adapters.engine.install import advice
from orchestrator.adapters.host_packages import HostCommandError, distribution, run_checked, run_told


@pytest.mark.parametrize(
    ("platform", "ids", "named"),
    [
        ("darwin", set[str](), "colima"),
        ("win32", set[str](), "WSL2"),
        ("linux", {"fedora"}, "dnf install moby-engine"),
        ("linux", {"opensuse-leap", "suse", "opensuse"}, "zypper install docker"),
        ("linux", {"arch"}, "pacman -S docker"),
        ("linux", {"alpine"}, "apk add docker"),
        ("linux", {"ubuntu", "debian"}, "apt-get install docker.io"),
        ("linux", set[str](), "distribution's packages"),
    ],
)
def test_the_advice_fits_the_system(platform: str, ids: set[str], named: str) -> None:
    assert named in advice(platform, ids)


def test_a_distribution_counts_as_what_it_is_like(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('NAME="Pop!_OS"\nID=pop\nID_LIKE="ubuntu debian"\n')
    assert distribution(tmp_path / "os-release") == {"pop", "ubuntu", "debian"}
    assert distribution(tmp_path / "none") == set()


def test_a_failing_command_tells_its_last_lines() -> None:
    with pytest.raises(HostCommandError, match=r"exit code 3:\nwhy"):
        run_checked(["sh", "-c", "echo why; exit 3"], timeout_seconds=10)


def test_a_command_that_hangs_is_given_up() -> None:
    with pytest.raises(HostCommandError, match="did not end within"):
        run_checked(["sleep", "30"], timeout_seconds=0.2)
    with pytest.raises(HostCommandError, match="failed"):
        run_told(["sleep", "30"], lambda _line: None, timeout_seconds=0.2)


def test_a_command_that_does_not_exist_is_a_plain_failure() -> None:
    with pytest.raises(HostCommandError, match="could not be started"):
        run_told(["no-such-command-here"], lambda _line: None, timeout_seconds=1)


def test_lines_are_handed_on_and_the_output_goes_to_its_file(tmp_path: Path) -> None:
    told: list[str] = []
    with (tmp_path / "out").open("wb") as output:
        run_told(["sh", "-c", "echo data; echo step >&2"], told.append, timeout_seconds=10, output=output)
    assert told == ["step"]
    assert (tmp_path / "out").read_text() == "data\n"
