"""The locks hold for every Python and machine that an image may have, and name no place to fetch from."""

import re

import pytest

from orchestrator.adapters.image.sources import image_folder

LOCKS = ["requirements", "agent-requirements", "build-requirements"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_one_version_with_hashes_and_nothing_else(name: str) -> None:
    joined = (image_folder() / f"{name}.lock").read_text("utf-8").replace("\\\n", "")
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==\S+\s+(--hash=sha256:[0-9a-f]{64}\s*)+", line), line


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_its_source_asks_for(name: str) -> None:
    asked = re.findall(r"^([a-z][a-z-]*)", (image_folder() / f"{name}.in").read_text("utf-8"), re.MULTILINE)
    locked = re.findall(r"^([a-z0-9-]+)==", (image_folder() / f"{name}.lock").read_text("utf-8"), re.MULTILINE)
    assert asked
    assert set(asked) <= set(locked)
