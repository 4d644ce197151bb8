# ruff: noqa: INP001 - a script of the build, no package
"""Runs as root inside the build, without a network: makes /opt/environment from the wheels beside this file."""

import compileall
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path
from py_compile import PycInvalidationMode

HERE = Path(__file__).parent
TARGET = Path("/opt/environment")
FONT_CACHE = TARGET / "share" / "matplotlib"
# Tests that the packages ship for themselves; numpy's stay, because numpy.testing imports some of them.
WITH_TESTS = ("matplotlib", "mpl_toolkits", "pandas", "scipy", "sklearn")


def main() -> None:
    """Make the virtual environment, install, trim, compile, and find the fonts once for all sandboxes."""
    venv.create(TARGET, symlinks=True, with_pip=False)
    python = str(TARGET / "bin" / "python")
    (pip,) = HERE.glob("pip/pip-*.whl")
    requirements = HERE / "requirements.txt"
    # A wheel is a zip that Python can run from, so pip itself never lands in the environment.
    command = [python, f"{pip}/pip", "install", "--quiet", "--no-index", "--no-cache-dir", "--no-compile"]
    command += ["--disable-pip-version-check", "--root-user-action=ignore", "--find-links", str(HERE / "wheels")]
    if "--hash=" in requirements.read_text("utf-8"):
        command.append("--require-hashes")
    subprocess.run([*command, "--requirement", str(requirements)], check=True)
    (packages,) = TARGET.glob("lib/python3.*/site-packages")
    for name in WITH_TESTS:
        for tests in [*(packages / name).glob("**/tests")]:
            shutil.rmtree(tests)
    compileall.compile_dir(
        str(packages),
        quiet=2,  # a package may carry files for other versions of Python; they stay uncompiled
        workers=0,
        rx=re.compile(r"/numpy/.*/tests/"),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    if (packages / "matplotlib").is_dir():
        FONT_CACHE.mkdir(parents=True)
        environment = {**os.environ, "MPLCONFIGDIR": str(FONT_CACHE)}
        subprocess.run([python, "-c", "import matplotlib.font_manager"], check=True, env=environment)


if __name__ == "__main__":
    main()
