"""In the guest: runs the parts of the plan one after the other, and says when each has ended, for the host to read."""

import json
import subprocess
import sys
import time

from tests.matrix.plan import PARTS, Part

RESULT = "MATRIX-RESULT "
_CHOSEN = "MATRIX_ONLY="  # in the kernel's command line


def run(part: Part) -> dict[str, object]:
    """One file; `code` is pytest's, None where its time was over."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["-p", "tests.matrix.tell", "-p", "tests.matrix.patience"]
    command += [*(["-k", part.only] if part.only else []), part.file]
    command += [f"--deselect={part.file}::{name}" for name in part.left_out]
    try:
        code = subprocess.run(command, check=False, timeout=part.minutes * 60).returncode
    except subprocess.TimeoutExpired:
        code = None
    return {"file": part.file, "seconds": round(time.monotonic() - began), "code": code}


def main() -> None:
    """All parts, or those of which the host has given a piece of the name."""
    with open("/proc/cmdline", encoding="ascii") as file:  # noqa: PTH123
        words = file.read().split()
    chosen = [word.removeprefix(_CHOSEN).split(",") for word in words if word.startswith(_CHOSEN)]
    for part in PARTS:
        if not chosen or any(name in part.file for name in chosen[0]):
            print(f"\n{RESULT}{json.dumps(run(part))}", flush=True)


if __name__ == "__main__":
    main()
