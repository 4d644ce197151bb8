"""What snapshots free is kept for the next one, in a process that is ours alone."""

import subprocess
import sys

import pytest

from orchestrator.adapters import host_memory

_FAULTS = """
import resource
from orchestrator.adapters.host_memory import keep_freed_memory
kept = {wanted} and keep_freed_memory()
def batch(): return [bytes(1024 * 1024) for _ in range(40)]
for _ in range(3): batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
batch()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*, wanted: bool) -> int:
    """Pages that the kernel had to give for a batch of pieces that follows others."""
    found = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(wanted=wanted)], capture_output=True, check=True, text=True
    ).stdout.split()
    if wanted and found[0] == "False":
        pytest.skip("the C library here is not glibc")
    return int(found[1])


def test_another_batch_of_pieces_costs_the_kernel_next_to_nothing() -> None:
    assert _faults(wanted=True) * 10 < _faults(wanted=False)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))

    assert host_memory.keep_freed_memory() is False
