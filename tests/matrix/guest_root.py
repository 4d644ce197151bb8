"""The guest's disk: the distribution's next release with its engine, this checkout, its wheels and the sandbox image.

All of it is fetched and laid out here, on the host: the guest has no network.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.image import debian_base
from orchestrator.adapters.image.apt_sources import AptSource
from tests.docker.sandboxed import image_tag

NEXT = {"bookworm": ("trixie", "3.13")}  # of which release, and its Python
ROOT = Path(__file__).parents[2]
_PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "udev", "kmod", "e2fsprogs", "util-linux", "procps", "iproute2"),
    *("docker.io", "docker-cli", "iptables", "python3", "ca-certificates"),
)
_DISK = "8G"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class NotHereError(Exception):
    """This host cannot make such a guest."""


def _run(command: Sequence[str | Path], **options: object) -> None:
    subprocess.run([str(one) for one in command], check=True, **options)  # type: ignore[call-overload]


def sources() -> list[AptSource]:
    """The host's own, for the next release."""
    release = debian_base.codename()
    if release not in NEXT:
        raise NotHereError(f"no later release than {release!r} is known")
    following = NEXT[release][0]
    return [
        replace(source, suites=tuple(suite.replace(release, following) for suite in source.suites))
        for source in debian_base.base_sources()
    ]


def root_archive(cache: Path) -> Path:
    """The system as a tar file; made once for its sources and packages."""
    listed = "\n".join(source.stanza() for source in sources())
    identity = hashlib.sha256(f"{listed}\n{' '.join(_PACKAGES)}".encode()).hexdigest()[:12]
    archive = cache / f"root-{identity}.tar"
    if archive.exists():
        return archive
    print("matrix: making the guest's system with mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="so-matrix-") as folder:
        (Path(folder) / "guest.sources").write_text(listed, "utf-8")
        (Path(folder) / "apt.conf").write_text(debian_base._apt_settings(), "utf-8")
        part = archive.with_suffix(".part")
        command = ["mmdebstrap", "--mode=root", "--variant=essential", f"--aptopt={folder}/apt.conf"]
        command += [f"--include={','.join(_PACKAGES)}", NEXT[debian_base.codename()][0], str(part), "--format=tar"]
        _run([*command, f"{folder}/guest.sources"], stderr=subprocess.DEVNULL)
        part.rename(archive)
    return archive


def wheels(cache: Path) -> Path:
    """What the project and its tests need, for the guest's Python: unpacked, since the guest has no pip."""
    pyproject = (ROOT / "pyproject.toml").read_bytes()
    target = cache / f"site-{hashlib.sha256(pyproject).hexdigest()[:12]}"
    if target.exists():
        return target
    print("matrix: fetching the wheels for the guest's Python")

    read = tomllib.loads(pyproject.decode())
    wanted = [*read["project"]["dependencies"], *read["project"]["optional-dependencies"]["agent"]]
    wanted += [one for one in read["dependency-groups"]["dev"] if one.startswith(("hypothesis", "pytest"))]
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    command: list[str | Path] = [sys.executable, "-m", "pip", "install", "-qq", "--target", part, "--only-binary=:all:"]
    command += ["--python-version", NEXT[debian_base.codename()][1], "--implementation", "cp"]
    command += [option for platform in _PLATFORMS for option in ("--platform", platform)]
    _run([*command, *wanted])
    part.rename(target)
    return target


def make_disk(cache: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Disk, kernel and initial file system of a guest, below `folder`."""
    root = folder / "root"
    root.mkdir()
    _run(["tar", "-C", root, "-xf", root_archive(cache)])
    kernel, initial = (next((root / "boot").glob(name)) for name in ("vmlinuz-*", "initrd.img-*"))
    for found in (kernel, initial):
        shutil.copy(found, folder / found.name)
    place = root / "matrix"
    (place / "repository").mkdir(parents=True)
    _run(["cp", "-a", wheels(cache), place / "site"])
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    _run(["cp", "-a", "--parents", *filter(None, os.fsdecode(listed).split("\0")), place / "repository"], cwd=ROOT)
    shutil.copy(ROOT / "tests" / "matrix" / "init.sh", place / "init")
    (place / "init").chmod(0o755)
    print("matrix: taking the sandbox image from this host's engine")
    with closing(api_client(find_engine())) as api, (place / "image.tar").open("wb") as file:
        for block in api.get_image(image_tag()):
            file.write(block)
    disk = folder / "disk.img"
    _run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, _DISK])
    shutil.rmtree(root)
    return disk, folder / kernel.name, folder / initial.name
