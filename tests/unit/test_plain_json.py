"""What the agent writes where cells have run is what json writes, and read as json reads it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

AGENT = Path(__file__).parents[2] / "sandbox-image" / "agent" / "plain_json.py"


def _loaded() -> ModuleType:
    """From its file: the agent is no package of the host's."""
    spec = importlib.util.spec_from_file_location("agent_plain_json", AGENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain_json = _loaded()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_what_json_writes(value: object) -> None:
    written = plain_json.write(value)
    assert written == json.dumps(value, separators=(",", ":")).encode()
    assert plain_json.read(written) == value


@pytest.mark.parametrize("text", [b"", b" ", b"[1", b"1 2", b"{]", b"nul", b"'x'"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain_json.read(text)


def test_what_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        plain_json.write([b""])
