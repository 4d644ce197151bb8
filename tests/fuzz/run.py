"""Fuzzes every reader of strangers' bytes for FUZZ_SECONDS in all; without atheris by many more random examples."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import BYTES, MOST_INPUT, SECONDS, TARGETS, seeds

ROOT = Path(__file__).parents[2]
_BESIDE = 512 * 1024 * 1024  # of the fuzzer itself and of what it has imported
_EXAMPLES_A_SECOND = 200


def main() -> int:
    """Each target in a process of its own; the exit code tells whether all have held."""
    seconds = max(len(TARGETS), int(os.environ.get("FUZZ_SECONDS", "60")))
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (`pip install '.[fuzz]'`; it has wheels for Linux on x86-64 and arm64 only):")
        print("no coverage guides what follows, the property tests with more examples")
        return _by_examples(seconds)
    failed = [name for name in TARGETS if not _fuzz(name, seconds // len(TARGETS))]
    print(f"{len(TARGETS)} targets, {len(failed)} failed{''.join(f': {name}' for name in failed)}")
    return bool(failed)


def _by_examples(seconds: int) -> int:
    environment = {**os.environ, "FUZZ_EXAMPLES": str(seconds * _EXAMPLES_A_SECOND // len(TARGETS))}
    command = [sys.executable, "-m", "pytest", "-q", "tests/unit/test_strangers_bytes.py"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _fuzz(name: str, seconds: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="so-fuzz-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds(name)):
            (corpus / f"seed-{number}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MOST_INPUT}",
            f"-timeout={SECONDS:.0f}",
            f"-rss_limit_mb={(BYTES + _BESIDE) >> 20}",
            f"-malloc_limit_mb={BYTES >> 20}",
            f"-artifact_prefix={folder}/",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        command = [sys.executable, "-m", "tests.fuzz.one", name, *options, str(corpus)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, errors="replace")
        units = [line for line in ran.stderr.splitlines() if "number_of_executed_units" in line]
        told = units[0].rpartition(" ")[2] if units else "?"
        print(f"{name:12} {seconds} s, {told} inputs, {len(list(corpus.iterdir()))} kept: {_verdict(ran.returncode)}")
        if ran.returncode:
            print(ran.stdout[-4000:], ran.stderr[-4000:], sep="\n")
            for path in Path(folder).glob("*-*"):
                if path.is_file():
                    print(path.name, path.read_bytes()[:2000])
        return ran.returncode == 0


def _verdict(code: int) -> str:
    return "held" if code == 0 else "FAILED"


if __name__ == "__main__":
    sys.exit(main())
