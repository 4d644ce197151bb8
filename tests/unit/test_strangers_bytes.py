"""Readers of strangers' bytes: no input makes one fail in words that are not its own, take long, or take much memory.

`make fuzz` does the same by coverage, where atheris can be had.
"""

import os
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import BYTES, MOST_INPUT, SECONDS, TARGETS, seeds

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))


def mutated(target: str) -> st.SearchStrategy[bytes]:
    """A seed with a stretch of it replaced, or anything."""

    def change(seed: bytes, start: int, length: int, by: bytes) -> bytes:
        at = start % (len(seed) + 1)
        return seed[:at] + by + seed[at + length :]

    changed = st.builds(
        change, st.sampled_from(seeds(target)), st.integers(0, 4096), st.integers(0, 64), st.binary(max_size=64)
    )
    return changed | st.binary(max_size=400)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=EXAMPLES, deadline=SECONDS * 1000, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_anything_is_read_or_refused(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(mutated(target)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "filling", [b"[", b'{"a":', b'"', b"\\", b",", b"9", b"\xff", b"\x00", b" ", b"SO\x01\x00", b"e\xcc\x81"]
)
def test_the_largest_input_of_one_kind_is_bounded_in_time_and_memory(target: str, filling: bytes) -> None:
    data = (filling * (MOST_INPUT // len(filling)))[:MOST_INPUT]
    tracemalloc.start()
    began = time.monotonic()
    try:
        TARGETS[target](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 10 * SECONDS
    assert peak < BYTES
