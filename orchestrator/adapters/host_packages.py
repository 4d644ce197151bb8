"""Runs the host's own commands as root, and installs the host's own packages with apt-get."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Report = Callable[[str], None]

_APT_SECONDS = 900
_LAST_LINES = 15


class HostCommandError(Exception):
    """A command of the host failed; the text holds its last lines."""


def root_prefix() -> list[str] | None:
    """What to put before a command so that root runs it: nothing as root, sudo elsewhere, None where neither works."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    # Without a terminal sudo could only hang or fail at its password prompt, so it must work without one.
    prefix = ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    asked = subprocess.run([*prefix, "true"], check=False, stderr=subprocess.DEVNULL, timeout=120)
    return prefix if asked.returncode == 0 else None


def distribution(os_release: Path = Path("/etc/os-release")) -> set[str]:
    """The ids of this distribution and of those it is like, e.g. {'ubuntu', 'debian'}; empty where unknown."""
    ids: set[str] = set()
    try:
        lines = os_release.read_text("utf-8").splitlines()
    except OSError:
        return ids
    for line in lines:
        key, _, value = line.partition("=")
        if key in {"ID", "ID_LIKE"}:
            ids.update(value.strip().strip("\"'").split())
    return ids


def has_apt() -> bool:
    """Whether this is Debian, Ubuntu or one of their kin."""
    return bool(distribution() & {"debian", "ubuntu"}) and shutil.which("apt-get") is not None


def apt_install(packages: Sequence[str], prefix: Sequence[str], report: Report) -> None:
    """Install packages without recommendations; refreshes the lists only where apt knows no candidate yet."""
    if not all(_has_candidate(package) for package in packages):
        report("refreshing the package lists (apt-get update)")
        # A third-party source that fails must not stop us: what counts is whether the install finds its packages.
        run_checked([*prefix, "apt-get", "update", "-q"], timeout_seconds=_APT_SECONDS, tolerate=True)
    report(f"installing {' '.join(packages)} with apt-get")
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *install]
    try:
        run_checked(command, timeout_seconds=_APT_SECONDS)
    except HostCommandError:
        # The lists may be older than the archive's files.
        report("refreshing the package lists and trying again")
        run_checked([*prefix, "apt-get", "update", "-q"], timeout_seconds=_APT_SECONDS, tolerate=True)
        run_checked(command, timeout_seconds=_APT_SECONDS)


def run_checked(command: Sequence[str], *, timeout_seconds: float, tolerate: bool = False) -> str:
    """Run a command quietly and return its output; a failure raises `HostCommandError` with its last lines."""
    try:
        ended = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL if "sudo" not in command else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_seconds,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as late:
        raise HostCommandError(f"`{' '.join(command)}` did not end within {timeout_seconds:g} s") from late
    except OSError as failure:
        raise HostCommandError(f"`{' '.join(command)}` could not be started: {failure}") from failure
    if ended.returncode != 0 and not tolerate:
        tail = "\n".join(ended.stdout.splitlines()[-_LAST_LINES:])
        raise HostCommandError(f"`{' '.join(command)}` failed with exit code {ended.returncode}:\n{tail}")
    return ended.stdout


def _has_candidate(package: str) -> bool:
    if shutil.which("apt-cache") is None:
        return False
    told = run_checked(["apt-cache", "policy", package], timeout_seconds=60, tolerate=True)
    return any(
        line.strip().startswith("Candidate:") and not line.strip().endswith("(none)") for line in told.splitlines()
    )
