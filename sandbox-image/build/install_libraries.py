# ruff: noqa: INP001 - a script of the build, no package
"""Runs as root inside the build: unpacks the agent's wheels into /opt/agent/lib and compiles them."""

import compileall
from pathlib import Path
from py_compile import PycInvalidationMode
from zipfile import ZipFile

WHEELS = Path(__file__).parent / "wheels"
TARGET = Path("/opt/agent/lib")


def main() -> None:
    """Unpack and compile; these wheels hold nothing but importable files."""
    TARGET.mkdir(parents=True)
    for wheel in sorted(WHEELS.glob("*.whl")):
        with ZipFile(wheel) as archive:
            archive.extractall(TARGET)
    compileall.compile_dir(str(TARGET), quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


if __name__ == "__main__":
    main()
