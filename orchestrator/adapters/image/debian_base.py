"""Makes a base image from the host's own Debian or Ubuntu packages, for engines that reach no image registry."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.host_packages import (
    HostCommandError,
    Report,
    apt_install,
    has_apt,
    root_prefix,
    run_checked,
    run_told,
)
from orchestrator.adapters.image.apt_sources import AptSource, host_sources
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.images import digest

# `python3` and not `python3-minimal`, which lacks parts of the standard library; wheels in C++ need the other.
_PACKAGES = "python3,libstdc++6"
_BOOTSTRAP_SECONDS = 1800.0
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
_KEPT = ("/usr/share/doc/*/copyright",)
# A proxy or a relaxed date check of the host's apt is needed for the same archive here as well.
_APT_SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::Check-")

# What mmdebstrap and debootstrap say of their larger steps.
_TOLD_STEPS = ("I: running apt-get", "I: downloading", "I: extracting", "I: installing", "I: creating", "I: Retrieving")


class NoBaseError(EngineUnavailableError):
    """This host cannot make a base image."""


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The release's name, such as bookworm; empty where unknown."""
    for line in os_release.read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip("\"'")
    return ""


def base_identity(sources: Sequence[AptSource]) -> str:
    """A digest of what a base is made from."""
    return digest(
        {
            "sources": "\n".join(source.stanza() for source in sources),
            "packages": _PACKAGES,
            "machine": os.uname().machine,
            "left out": " ".join(_LEFT_OUT),
        }
    )


def base_sources() -> list[AptSource]:
    """The sources to make a base from; raises `NoBaseError` where the host is no Debian or Ubuntu."""
    if not has_apt():
        raise NoBaseError(
            "No image registry answers, and this host is no Debian or Ubuntu to make a base image from.",
            hint="Let the engine reach a registry, or load an image with Python 3.11 or newer and name it with --from.",
        )
    sources = host_sources(codename=codename())
    if not sources:
        raise NoBaseError(
            "No image registry answers, and the host's apt sources name no archive of its own release.",
            hint="Look at /etc/apt/sources.list and /etc/apt/sources.list.d, or name an image with --from.",
        )
    return sources


def make_base(sources: Sequence[AptSource], archive: Path, report: Report) -> None:
    """Write the root file system of a minimal Debian with Python to `archive` as a tar file."""
    prefix = root_prefix()
    try:
        if shutil.which("mmdebstrap") is None and prefix is not None:
            _install_tool(prefix, report)
        if shutil.which("mmdebstrap") is not None:
            _mmdebstrap(sources, archive, prefix, report)
        elif shutil.which("debootstrap") is not None and prefix is not None:
            _debootstrap(sources, archive, prefix, report)
        else:
            raise NoBaseError(
                "No image registry answers, and mmdebstrap, which makes a base image instead, is not installed.",
                hint="Run `apt-get install mmdebstrap` as root, then try again.",
            )
    except HostCommandError as failure:
        raise NoBaseError(f"The base image could not be made: {failure}") from failure


def _install_tool(prefix: Sequence[str], report: Report) -> None:
    try:
        apt_install(["mmdebstrap"], prefix, report)
    except HostCommandError:
        if shutil.which("debootstrap") is None:
            apt_install(["debootstrap"], prefix, report)


def _mmdebstrap(sources: Sequence[AptSource], archive: Path, prefix: Sequence[str] | None, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="so-base-") as folder:
        listed = Path(folder) / "host.sources"
        listed.write_text("\n".join(source.stanza() for source in sources), "utf-8")
        settings = Path(folder) / "apt.conf"
        settings.write_text(_apt_settings(), "utf-8")
        command = [
            *(prefix or []),
            "mmdebstrap",
            f"--mode={'unshare' if prefix is None else 'root'}",
            "--variant=essential",
            f"--include={_PACKAGES}",
            f"--aptopt={settings}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
            *(f"--dpkgopt=path-include={pattern}" for pattern in _KEPT),
            # The settings were for this run; an image must not name the host's proxy.
            '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list.d/*',
            '--customize-hook=find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +',
            codename(),
            "-",
            str(listed),
        ]
        report("making a minimal Debian with mmdebstrap")
        Path(folder).chmod(0o755)  # in the mode unshare another uid reads these files
        _run_into(command, archive, report)


def _apt_settings() -> str:
    dumped = run_checked(["apt-config", "dump"], timeout_seconds=30, tolerate=True)
    return "\n".join(line for line in dumped.splitlines() if line.startswith(_APT_SETTINGS)) + "\n"


def _debootstrap(sources: Sequence[AptSource], archive: Path, prefix: Sequence[str], report: Report) -> None:
    """Older and plainer: one archive only, so its security updates come with the next point release."""
    release = codename()
    main = next(source for source in sources if release in source.suites)
    with tempfile.TemporaryDirectory(prefix="so-base-") as folder:
        root = f"{folder}/root"
        report("making a minimal Debian with debootstrap")
        options = ["--variant=minbase", f"--include={_PACKAGES}"]
        try:
            run_checked(
                [*prefix, "debootstrap", *options, release, root, main.uris[0]], timeout_seconds=_BOOTSTRAP_SECONDS
            )
            trim = 'cd "$0" && rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/man usr/share/locale usr/share/info'
            run_checked([*prefix, "sh", "-c", trim, root], timeout_seconds=_BOOTSTRAP_SECONDS)
            packed = ["tar", "-C", root, "--one-file-system", "--numeric-owner", "--exclude=./dev/*", "-c", "."]
            _run_into([*prefix, *packed], archive, report)
        finally:
            run_checked([*prefix, "rm", "-rf", "--one-file-system", root], timeout_seconds=300, tolerate=True)


def _run_into(command: Sequence[str], archive: Path, report: Report) -> None:
    """Run a command that writes an archive to its standard output and tells its steps on standard error."""

    def tell(line: str) -> None:
        if line.startswith(_TOLD_STEPS):
            report(line.removeprefix("I: ").removesuffix("..."))

    with archive.open("wb") as output:
        run_told(command, tell, timeout_seconds=_BOOTSTRAP_SECONDS, output=output)
