# ruff: noqa: INP001 - a script of the build, no package
"""Runs as root as the last step of an environment: what no session needs goes from the root file system."""

import compileall
import os
import re
import shutil
import stat
import sysconfig
from pathlib import Path
from py_compile import PycInvalidationMode

# pip and what could bring it back, package lists and caches, documents.
UNWANTED = (
    "/usr/lib/python3/dist-packages/pip*",
    "/usr/share/python-wheels",
    "/usr/local/bin/pip*",
    "/usr/bin/pip*",
    "/root/.cache",
    "/var/cache/apt/*",
    "/var/lib/apt/lists/*",
    "/var/log/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
)


def main() -> None:
    """Remove, compile the standard library (some bases ship it bare), and take every setuid and setgid bit."""
    library = Path(sysconfig.get_path("stdlib"))
    for pattern in (*UNWANTED, f"{library}/ensurepip", f"{library}/site-packages/pip*"):
        for found in Path("/").glob(pattern.removeprefix("/")):
            remove(found)
    compileall.compile_dir(
        str(library),
        quiet=2,
        workers=0,
        rx=re.compile(r"/(test|tests|idlelib|lib2to3|turtledemo|site-packages|dist-packages)/"),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    Path("/workspace").mkdir(exist_ok=True)
    take_privileged_bits()
    remove(Path(__file__))


def remove(path: Path) -> None:
    """Remove a file or a tree."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def take_privileged_bits() -> None:
    """Walk the root file system without crossing into others."""
    device = os.lstat("/").st_dev
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.lstat(f"{folder}/{name}").st_dev == device]
        for name in (*files, *folders):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


if __name__ == "__main__":
    main()
