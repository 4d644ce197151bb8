"""Runs the host's own commands as root, and installs the host's own packages with apt-get."""

import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

Report = Callable[[str], None]

_APT_SECONDS = 900
_LAST_LINES = 15
_UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}


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


def run_told(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    timeout_seconds: float,
    output: IO[bytes] | None = None,
) -> None:
    """Run a long command, handing on each line that it tells as it tells it; failures raise `HostCommandError`.

    With `output` its standard output goes there and the lines are those of standard error.
    """
    told: deque[str] = deque(maxlen=_LAST_LINES)
    out = output if output is not None else subprocess.PIPE
    err = subprocess.PIPE if output is not None else subprocess.STDOUT
    try:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True, errors="replace", env=_UNBUFFERED)
    except OSError as failure:
        raise HostCommandError(f"`{command[0]}` could not be started: {failure}") from failure
    with process:
        watchdog = threading.Timer(timeout_seconds, process.kill)
        watchdog.daemon = True
        watchdog.start()
        for line in process.stderr or process.stdout or ():
            told.append(line.rstrip())
            on_line(line.rstrip())
        watchdog.cancel()
    if process.returncode != 0:
        tail = "\n".join(told)
        raise HostCommandError(f"`{' '.join(command[:3])} …` failed with exit code {process.returncode}:\n{tail}")


def _has_candidate(package: str) -> bool:
    if shutil.which("apt-cache") is None:
        return False
    told = run_checked(["apt-cache", "policy", package], timeout_seconds=60, tolerate=True)
    return any(
        line.strip().startswith("Candidate:") and not line.strip().endswith("(none)") for line in told.splitlines()
    )
