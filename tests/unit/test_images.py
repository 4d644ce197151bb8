"""A digest changes with what it stands for and with nothing else: on that rests what is built again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.images import (
    BasePython,
    ImageFiles,
    agent_digest,
    digest,
    environment_digest,
    environment_inputs,
    tag,
)

FILES = ImageFiles(
    environment={"environment.Dockerfile": b"FROM x"},
    agent_libraries={"agent-libraries.Dockerfile": b"FROM y"},
    agent={"agent.Dockerfile": b"FROM z", "agent/__main__.py": b"pass"},
    requirements=b"numpy==2",
    agent_requirements=b"xxhash==4",
    pip_requirements=b"pip==26",
)
PYTHON = BasePython("3.11.2", "x86_64", (2, 36))
PARTS = st.dictionaries(st.text(), st.binary(), max_size=4)


@given(PARTS, PARTS)
def test_two_mappings_share_a_digest_only_when_they_are_equal(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@given(PARTS)
def test_the_order_of_parts_does_not_matter(parts: dict[str, bytes]) -> None:
    assert digest(parts) == digest(dict(reversed(parts.items())))


def test_a_changed_agent_leaves_the_environment_alone() -> None:
    changed = replace(FILES, agent={**FILES.agent, "agent/__main__.py": b"pass  # x"})
    assert environment_inputs(changed, None) == environment_inputs(FILES, None)
    assert agent_digest(changed) != agent_digest(FILES)


def test_changed_requirements_or_another_base_ask_for_another_environment() -> None:
    asked = {
        environment_inputs(FILES, None),
        environment_inputs(replace(FILES, requirements=b"numpy==3"), None),
        environment_inputs(FILES, "python:3.14-slim"),
    }
    assert len(asked) == 3


def test_an_environment_is_its_python_and_its_very_wheels() -> None:
    wheels = {"numpy.whl": "aa"}
    known = {
        environment_digest("i", PYTHON, "debian", wheels),
        environment_digest("i", replace(PYTHON, version="3.12.1"), "debian", wheels),
        environment_digest("i", PYTHON, "debian", {"numpy.whl": "bb"}),
    }
    assert len(known) == 3


def test_wheel_platforms_reach_back_from_the_base_s_glibc() -> None:
    platforms = replace(PYTHON, glibc=(2, 28)).platforms()
    assert platforms[0] == "manylinux_2_28_x86_64"
    assert "manylinux_2_17_x86_64" in platforms
    assert "manylinux2014_x86_64" in platforms
    assert "manylinux_2_29_x86_64" not in platforms
    assert "manylinux1_aarch64" not in replace(PYTHON, machine="aarch64").platforms()


def test_a_tag_names_kind_and_digest() -> None:
    assert tag("sandbox", "abc") == "session-orchestrator/sandbox:abc"
