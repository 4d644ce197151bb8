"""What was found of an engine is kept for exactly what it depends on, and what is missing is refused by its name."""

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain.enforcement import answer_key, kept_answer, missing, require_enforced, with_answer
from orchestrator.domain.errors import EngineUnavailableError, NotEnforcedError
from orchestrator.domain.hardening import Isolation, SandboxProfile
from orchestrator.domain.ports import SandboxImage
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Finding, Verdict

SOUND = tuple(Finding(probe.name, "enforced", probe.protection, "1", None, probe.required) for probe in PROBES)
INFO: dict[str, Any] = {
    "ID": "one",
    "ServerVersion": "20.10.24",
    "CgroupVersion": "1",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {"runc": {"path": "runc"}},
    "NCPU": 2,
    "ContainersRunning": 3,
}
IMAGE = SandboxImage("tag", "environment", "agent", "3.11")
DEPENDS: dict[str, Any] = {
    "boot": "boot",
    "image": IMAGE,
    "profile": SandboxProfile(),
    "isolation": Isolation("{}"),
    "swap": "SwapTotal: 0 kB",
}
KEY = answer_key(INFO, **DEPENDS)


def found(**verdicts: Verdict) -> tuple[Finding, ...]:
    """Sound but for these."""
    remedies = {probe.name: probe.remedy for probe in PROBES}
    return tuple(
        replace(one, verdict=verdicts[one.name], remedy=remedies[one.name]) if one.name in verdicts else one
        for one in SOUND
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"boot": "another"},
        {"image": replace(IMAGE, agent="newer")},
        {"image": replace(IMAGE, tag="another")},
        {"profile": SandboxProfile(pids=100)},
        {"isolation": Isolation("{}", runtime="runsc")},
        {"isolation": Isolation('{"defaultAction":"SCMP_ACT_KILL"}')},
        {"isolation": Isolation("{}", user_namespace=True)},
        {"swap": "SwapTotal: 1024 kB"},
    ],
)
def test_an_answer_is_for_one_boot_image_spec_and_amount_of_swap(changed: dict[str, Any]) -> None:
    assert answer_key(INFO, **{**DEPENDS, **changed}) != KEY


@pytest.mark.parametrize(
    "changed",
    [
        {"ID": "another"},
        {"ServerVersion": "26.1.5"},
        {"CgroupVersion": "2"},
        {"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]},
        {"Runtimes": {"runc": {"path": "/another/runc"}}},
        {"DefaultRuntime": "runsc"},
        {"KernelVersion": "6.12"},
    ],
)
def test_an_answer_is_for_one_engine_as_it_is_set_up(changed: dict[str, Any]) -> None:
    assert answer_key({**INFO, **changed}, **DEPENDS) != KEY


def test_what_an_engine_is_busy_with_changes_nothing() -> None:
    assert answer_key({**INFO, "ContainersRunning": 9, "Containers": 12}, **DEPENDS) == KEY


def test_an_answer_comes_back_as_it_was_kept_and_under_its_own_key_only() -> None:
    lacking = found(swap="not enforced", network="unknown", landlock="not enforced")
    text = with_answer(with_answer(None, KEY, lacking), "another", SOUND)
    assert kept_answer(text, KEY, PROBES) == lacking
    assert kept_answer(text, "another", PROBES) == SOUND
    assert kept_answer(text, "a third", PROBES) is None


def test_the_latest_answers_are_kept_and_not_all() -> None:
    text = None
    for number in range(20):
        text = with_answer(text, f"key {number}", SOUND)
    text = with_answer(text, "key 12", SOUND)
    assert text is not None
    assert list(json.loads(text)) == [f"key {number}" for number in (13, 14, 15, 16, 17, 18, 19, 12)]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "5", json.dumps({KEY: None}), json.dumps({KEY: [["network"]]}), json.dumps({KEY: 7})],
)
def test_what_cannot_be_read_is_asked_again(text: str) -> None:
    assert kept_answer(text, KEY, PROBES) is None
    assert kept_answer(with_answer(text, KEY, SOUND), KEY, PROBES) == SOUND


def test_an_answer_to_other_probes_than_those_of_today_is_asked_again() -> None:
    text = with_answer(None, KEY, SOUND[1:])
    assert kept_answer(text, KEY, PROBES) is None
    odd = with_answer(None, KEY, (replace(SOUND[0], verdict="surely"), *SOUND[1:]))  # type: ignore[arg-type]
    assert kept_answer(odd, KEY, PROBES) is None


def test_what_is_missing_is_refused_with_its_name_what_was_seen_and_the_setting_that_allows_it() -> None:
    lacking = found(swap="not enforced", processor="unknown")
    with pytest.raises(NotEnforcedError) as refused:
        require_enforced(lacking, frozenset({"swap"}))
    assert "processor (the share of the processors ends) is unknown: seen was 1" in refused.value.message
    assert "swap" not in refused.value.message
    assert "ORCHESTRATOR_ALLOW_UNENFORCED=processor" in (refused.value.hint or "")
    assert (refused.value.code, refused.value.retryable) == ("not_enforced", False)
    assert isinstance(refused.value, EngineUnavailableError)

    with pytest.raises(NotEnforcedError, match="ORCHESTRATOR_ALLOW_UNENFORCED=swap,processor"):
        require_enforced(lacking, frozenset())


def test_what_is_allowed_to_be_missing_is_named_and_what_is_not_required_is_not() -> None:
    lacking = found(swap="not enforced", landlock="not enforced")
    assert [one.name for one in require_enforced(lacking, frozenset({"swap", "network"}))] == ["swap"]
    assert [one.name for one in missing(lacking)] == ["swap"]
    assert require_enforced(SOUND, frozenset()) == ()
