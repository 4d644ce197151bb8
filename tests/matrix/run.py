"""`make matrix`: a guest with cgroup v2 and a newer engine, under qemu without KVM, that runs a part of the tests.

The processor is emulated, so everything takes ten to twenty times as long: what runs is in plan.py. The guest has no
network. The log of its console is kept; a file that fails, or is not reached within the bound, fails the run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.matrix.guest_root import NotHereError, make_disk
from tests.matrix.inside import RESULT
from tests.matrix.plan import PARTS
from tests.matrix.tell import TEST

CACHE = Path(os.environ.get("MATRIX_CACHE") or Path.home() / ".cache" / "session-orchestrator" / "matrix")
MINUTES = float(os.environ.get("MATRIX_MINUTES") or 150)
PROCESSORS = os.environ.get("MATRIX_PROCESSORS") or "2"
ONLY = os.environ.get("MATRIX_ONLY", "")  # parts of file names, with commas between them
_MEMORY = "6G"
_TOLD = ("MATRIX-STEP ", "MATRIX-INFO  Server Version", "MATRIX-INFO  Cgroup Version", "MATRIX-INFO  Kernel Version")


class Console:
    """What the guest says, as it says it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0
        self._tests: list[dict[str, str]] = []
        self.ended: dict[str, int | None] = {}  # by file: pytest's exit code, None where its time was over
        self.failed: list[str] = []

    def look(self) -> None:
        """Take in the lines that are new."""
        text = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        lines = text.splitlines(keepends=True)
        whole = [line.strip() for line in lines if line.endswith("\n")]
        for line in whole[self._read :]:
            self._take(line)
        self._read = len(whole)

    def _take(self, line: str) -> None:
        if line.startswith(TEST):
            self._tests.append(json.loads(line.removeprefix(TEST)))
        elif line.startswith(RESULT):
            result = json.loads(line.removeprefix(RESULT))
            self.ended[result["file"]] = result["code"]
            self._tell(result["file"], result["code"], result["seconds"])
        elif line.startswith(_TOLD):
            print(f"matrix: {' '.join(line.split()[1:])}", flush=True)

    def _tell(self, file: str, code: int | None, seconds: int) -> None:
        mine = [test for test in self._tests if test["test"].startswith(f"{file}::")]
        failed = sorted({test["test"] for test in mine if test["outcome"] == "failed"})
        passed = {test["test"] for test in mine if test["outcome"] == "passed"} - set(failed)
        skipped = sum(test["outcome"] == "skipped" for test in mine)
        self.failed += failed
        verdict = "ok" if code == 0 else "OUT OF TIME" if code is None else "FAILED"
        counts = f"{len(passed)} passed, {skipped} skipped, {len(failed)} failed"
        print(f"matrix: {verdict:11} {file:40} {counts}, {seconds} s", flush=True)


def boot(folder: Path, log: Path) -> Console:
    """Run the guest to its end, or to the bound."""
    disk, kernel, initial = make_disk(CACHE, folder)
    append = "console=ttyS0 root=/dev/vda rw init=/matrix/init panic=-1 quiet loglevel=2"
    append += f" MATRIX_ONLY={ONLY}" if ONLY else ""
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-m", _MEMORY, "-smp", PROCESSORS, "-nic", "none", "-display", "none", "-monitor", "none", "-no-reboot"]
    command += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe", "-serial", f"file:{log}"]
    command += ["-device", "virtio-rng-pci", "-kernel", str(kernel), "-initrd", str(initial), "-append", append]
    began, console = time.monotonic(), Console(log)
    with subprocess.Popen(command) as guest:
        try:
            while guest.poll() is None and time.monotonic() - began < MINUTES * 60:
                time.sleep(2)
                console.look()
        finally:
            guest.kill()
    console.look()
    return console


def main() -> int:
    """0 only where every file that was to run has passed."""
    missing = [name for name in ("qemu-system-x86_64", "mmdebstrap", "mke2fs") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        print(f"matrix: not run: it needs root, and {', '.join(missing) or 'nothing else'}", file=sys.stderr)
        print("Debian: apt-get install qemu-system-x86 mmdebstrap e2fsprogs", file=sys.stderr)
        return 2
    chosen = [part for part in PARTS if not ONLY or any(name in part.file for name in ONLY.split(","))]
    print(f"matrix: {len(chosen)} files, at most {MINUTES:g} minutes:")
    for part in chosen:
        print(" ".join(["matrix:  ", part.file, part.only, *(f"but for {name}" for name in part.left_out)]))
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "console.log"
    log.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="so-matrix-", dir="/var/tmp") as folder:
            console = boot(Path(folder), log)
    except NotHereError as failure:
        print(f"matrix: not run: {failure}", file=sys.stderr)
        return 2
    for name in console.failed:
        print(f"matrix: failed {name}")
    not_run = [part.file for part in chosen if part.file not in console.ended]
    if not_run:
        print(f"matrix: not ended: {', '.join(not_run)}")
    print(f"matrix: the console's log is {log}")
    return int(bool(not_run) or any(code != 0 for code in console.ended.values()))


if __name__ == "__main__":
    sys.exit(main())
