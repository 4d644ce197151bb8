"""Fetches wheels for an image's Python with the host's pip, so that the build itself needs no network.

The host's pip brings its own settings (mirrors, proxies, certificates) along, which is the point.
"""

import hashlib
import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.adapters.host_packages import HostCommandError, Report, run_checked, run_told
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.images import BasePython

_VENV_SECONDS = 300
_DOWNLOAD_SECONDS = 1800
_WHEEL_TOLD = re.compile(r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?(\S+\.whl)")


class WheelsUnavailableError(OrchestratorError):
    """The host's pip could not bring the wheels."""

    code = "engine_unavailable"
    retryable = True


def download_wheels(requirements: bytes, python: BasePython, target: Path, report: Report) -> dict[str, str]:
    """Fetch wheels for `python` into `target`; returns each file's name with its SHA-256."""
    target.mkdir(parents=True, exist_ok=True)
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python.minor]
    for abi in (f"cp{python.minor.replace('.', '')}", "abi3", "none"):
        options += ["--abi", abi]
    for platform in python.platforms():
        options += ["--platform", platform]
    if b"--hash=" in requirements:
        options += ["--require-hashes", "--no-deps"]
    with _host_pip(report) as pip, tempfile.TemporaryDirectory(prefix="so-wheels-") as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_bytes(requirements)
        fixed = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        command = [*pip, "download", *fixed, *options, "--dest", str(target), "--requirement", str(listed)]
        _run_pip(command, report)
    return {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in sorted(target.glob("*.whl"))}


@contextmanager
def _host_pip(report: Report) -> Iterator[list[str]]:
    """The pip beside us, else one on PATH, else one in a throw-away virtual environment."""
    if importlib.util.find_spec("pip") is not None:
        yield [sys.executable, "-m", "pip"]
        return
    for name in ("pip3", "pip"):
        if shutil.which(name):
            yield [name]
            return
    report("no pip was found on this host: making a throw-away one")
    with tempfile.TemporaryDirectory(prefix="so-pip-") as folder:
        try:
            run_checked([sys.executable, "-m", "venv", folder], timeout_seconds=_VENV_SECONDS)
        except HostCommandError as failure:
            raise WheelsUnavailableError(
                f"No pip was found to fetch packages with: {failure}",
                hint="Install pip (Debian, Ubuntu: `apt-get install python3-venv`), then try again.",
            ) from failure
        yield [f"{folder}/bin/python", "-m", "pip"]


def _run_pip(command: list[str], report: Report) -> None:
    def tell(line: str) -> None:
        if match := _WHEEL_TOLD.match(line):
            report(match[1])

    try:
        run_told(command, tell, timeout_seconds=_DOWNLOAD_SECONDS)
    except HostCommandError as failure:
        raise WheelsUnavailableError(
            f"The packages of the environment could not be fetched: {failure}",
            hint="Let this host's pip reach a package index, then run `orchestrator image build` again.",
        ) from failure
