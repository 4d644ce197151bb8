"""The seccomp policy: every system call has its place and its reason, and what engines get says the same."""

import importlib.util
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.engine.failures import IsolationUnmetError
from orchestrator.adapters.engine.isolation import read_isolation, require
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.hardening import Isolation, SandboxProfile
from orchestrator.domain.seccomp import ProfileError, compact

ROOT = Path(__file__).parents[2]
CALLS: dict[str, dict[str, int]] = json.loads(
    (ROOT / "sandbox-image" / "attack" / "system_calls.json").read_text("utf-8")
)
ALL_CALLS = set().union(*CALLS.values())

_specification = importlib.util.spec_from_file_location("generate", ROOT / "sandbox-image" / "seccomp" / "generate.py")
assert _specification is not None
assert _specification.loader is not None
generate = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(generate)

POLICY: dict[str, Any] = generate.read_policy()
RULES: list[dict[str, Any]] = generate.profile_of(POLICY)["syscalls"]


def answer(name: str, *arguments: int) -> str | int:
    """What the profile says to a call: allow, an errno, or the default."""
    for rule in RULES:
        compared = ((arguments[c["index"]] & c["value"]) == c["valueTwo"] for c in rule["args"])
        if name in rule["names"] and all(compared):
            return "allow" if rule["action"] == "SCMP_ACT_ALLOW" else int(rule["errnoRet"])
    return "EPERM"


def test_what_engines_get_and_what_people_read_is_made_from_the_policy() -> None:
    assert json.loads(generate.PROFILE.read_text("utf-8")) == generate.profile_of(POLICY), "run `make seccomp`"
    assert generate.TABLE.read_text("utf-8") == generate.table_of(POLICY), "run `make seccomp`"


def test_every_system_call_of_both_architectures_has_its_place_and_none_has_two() -> None:
    opened = {name for group in POLICY["group"] for name in group["calls"]}
    closed = Counter(name for group in POLICY["closed"] for name in group["calls"])
    assert opened | closed.keys() == ALL_CALLS  # also: no name is misspelt, which engines would not tell
    assert opened & closed.keys() == set()
    assert {name for name, count in closed.items() if count > 1} == set()
    without = Counter(name for group in POLICY["group"] if "where" not in group for name in group["calls"])
    assert {name for name, count in without.items() if count > 1} == set()


def test_every_group_has_a_name_of_its_own_and_a_reason_and_its_calls_in_order() -> None:
    groups = [*POLICY["group"], *POLICY["closed"]]
    assert len({group["name"] for group in groups}) == len(groups)
    for group in groups:
        assert group["why"], group["name"]
        assert group["calls"] == sorted(group["calls"]), group["name"]
        assert "|" not in group["why"] + group["name"]


def test_a_call_is_opened_whole_or_by_its_arguments_and_never_both() -> None:
    """A rule without arguments would make those with arguments mean nothing."""
    whole = {name for group in POLICY["group"] if "where" not in group for name in group["calls"]}
    filtered = {name for group in POLICY["group"] if "where" in group for name in group["calls"]}
    assert whole & filtered == set()


def test_no_two_rules_answer_the_same_call_differently() -> None:
    """Libseccomp decides by its own order where rules overlap; ours do not."""
    for family in range(64):
        for kind in (1, 2, 3, 5):
            for protocol in (0, 1, 6, 17, 136, 262):
                answers = {
                    rule["action"]
                    for rule in RULES
                    if "socket" in rule["names"]
                    and all(((family, kind, protocol)[c["index"]] & c["value"]) == c["valueTwo"] for c in rule["args"])
                }
                assert len(answers) <= 1, (family, kind, protocol)


def test_only_native_calls_are_known_to_the_profile() -> None:
    profile = generate.profile_of(POLICY)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert [(row["architecture"], row["subArchitectures"]) for row in profile["archMap"]] == [
        ("SCMP_ARCH_X86_64", []),
        ("SCMP_ARCH_AARCH64", []),
    ]


HIGH = 0xDEAD_BEEF << 32  # what the kernel ignores in an argument of 32 bits, and a comparison must ignore as well


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("clone", (0x01200011,), "allow"),  # fork
        ("clone", (0x003D0F00,), "allow"),  # a thread of glibc
        ("clone", (0x10000011,), "EPERM"),  # a user namespace
        ("clone", (0x40000011 | HIGH,), "EPERM"),
        ("clone", (0x003D0B00,), "EPERM"),  # a thread with descriptors of its own
        ("clone", (0x00000411,), "EPERM"),  # a process that shares its parent's
        ("close_range", (3, 9, 4), "allow"),
        ("close_range", (3, 9, 2), "EPERM"),
        ("fcntl", (3, 6), "allow"),
        ("fcntl", (3, 37), 22),
        ("fcntl", (3, 38 | HIGH), 22),
        ("fcntl", (3, 1029), "EPERM"),
        ("socket", (1, 1, 0), "allow"),
        ("socket", (2, 1 | 0o2004000, 6), "allow"),
        ("socket", (10, 2, 0), "allow"),
        ("socket", (2 | HIGH, 1, 262), "EPERM"),
        ("socket", (2, 1, 262 | HIGH), "EPERM"),
        ("socket", (2, 3, 255), "EPERM"),
        ("socket", (16, 3, 0), 97),
        ("socket", (16 | HIGH, 3, 0), 97),
        ("socket", (40, 1, 0), 97),
        ("socketpair", (2, 1, 0), "EPERM"),
        ("setsockopt", (3, 1, 2), "allow"),
        ("setsockopt", (3, 1, 7), 0),  # a size of a buffer: answered, and not done
        ("setsockopt", (3, 1 | HIGH, 8 | HIGH), 0),
        ("setsockopt", (3, 6, 7), "allow"),
        ("setsockopt", (3, 1, 13), "EPERM"),
        ("setsockopt", (3, 1 | HIGH, 13 | HIGH), "EPERM"),
        ("setsockopt", (3, 6, 13), "EPERM"),
        ("setsockopt", (3, 1, 26), "EPERM"),
        ("mmap", (0, 1, 3, 0x22), "allow"),
        ("mmap", (0, 1, 3, 0x40022), "EPERM"),
        ("madvise", (0, 1, 14), "allow"),
        ("madvise", (0, 1, 12), "EPERM"),
        ("fadvise64", (3, 0, 0, 4), 0),
        ("fadvise64", (3, 0, 0, 3), "allow"),
        ("fsync", (3,), 0),
        ("prlimit64", (0, 7), "allow"),
        ("prlimit64", (1, 7), "EPERM"),
        ("prlimit64", (HIGH, 7), "allow"),
        ("prlimit64", (0, 4, 0), "allow"),
        ("prlimit64", (0, 4, 0x7FFF_0000), "EPERM"),
        ("prlimit64", (0, 4, 1 << 32), "EPERM"),  # a pointer all the same
        ("prlimit64", (0, 4 | HIGH, 0x7FFF_0000), "EPERM"),
        ("setrlimit", (7,), "allow"),
        ("setrlimit", (4,), "EPERM"),
        ("getrlimit", (4,), "allow"),
        ("mknodat", (3, 0, 0x11A4), "allow"),
        ("mknodat", (3, 0, 0x2000), "EPERM"),
        ("ioctl", (3, 0x5401), "allow"),
        ("ioctl", (3, 0x5412), "EPERM"),
        ("ioctl", (3, 0x5412 | HIGH), "EPERM"),
        ("ioctl", (3, 0x40049409), 95),
        ("prctl", (4,), "allow"),
        ("prctl", (36,), "EPERM"),
        ("personality", (0xFFFFFFFF,), "allow"),
        ("personality", (0x40000,), "EPERM"),
        ("sendto", (3, 0, 1, 0x4000), "allow"),
        ("sendto", (3, 0, 1, 1), "EPERM"),
        ("memfd_create", (0, 0), 38),
        ("clone3", (0, 0), 38),
        ("unshare", (0,), "EPERM"),
        ("a call of tomorrow", (0,), "EPERM"),
    ],
)
def test_the_profile_answers_calls_by_what_they_ask_for(
    call: str, arguments: tuple[int, ...], expected: str | int
) -> None:
    assert answer(call, *arguments) == expected


@given(st.sets(st.integers(0, 300) | st.integers(0, 2**32 - 1)), st.integers(0, 2**32 - 1))
def test_values_in_blocks_are_exactly_these_values(values: set[int], other: int) -> None:
    blocks = generate._blocks(set(values))
    for value in {*values, other, *(value ^ 1 for value in values)}:
        assert (sum(value & mask == kept for mask, kept in blocks) == 1) == (value in values)


# what an operator may put in its place

OWN: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
}


def test_ours_is_read_where_no_other_is_named() -> None:
    assert json.loads(read_isolation().seccomp) == generate.profile_of(POLICY)


def test_an_operators_profile_takes_its_place(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps(OWN, indent=4), "utf-8")
    isolation = read_isolation(own_profile=own, runtime="runsc", user_namespace=True)
    assert isolation == Isolation(
        json.dumps(OWN, separators=(",", ":")), "runsc", user_namespace=True, own_seccomp=True
    )


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, '"SCMP_ACT_ALLOW"'),
        ({"defaultAction": "SCMP_ACT_LOG"}, '"SCMP_ACT_LOG"'),
        ({"defaultAction": None}, "has the defaultAction null"),
        ({"architectures": []}, "has to name its architectures"),
        ({"archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}, "has to name its architectures"),
        ({"architectures": ["amd64"]}, "has an architecture that is none"),
        ({"architectures": None, "archMap": ["SCMP_ARCH_X86_64"]}, "has an architecture that is none"),
        ({"syscalls": []}, "has no list `syscalls`"),
        ({"syscalls": [{"name": "read"}]}, "the 1. of `syscalls`"),
        ({"syscalls": [*OWN["syscalls"], {"names": ["x"], "action": "SCMP_ACT_NOTIFY"}]}, '"SCMP_ACT_NOTIFY" (the 2.'),
    ],
)
def test_a_profile_that_closes_nothing_or_is_none_is_refused_with_its_setting(
    changed: str | dict[str, Any], why: str, tmp_path: Path
) -> None:
    text = changed if isinstance(changed, str) else json.dumps({**OWN, **changed})
    with pytest.raises(ProfileError) as fault:
        compact(text)
    assert why in str(fault.value)
    own = tmp_path / "own.json"
    own.write_text(text, "utf-8")
    with pytest.raises(InvalidRequestError) as refused:
        read_isolation(own_profile=own)
    assert refused.value.message.startswith(f"Wrong settings: ORCHESTRATOR_SANDBOX_SECCOMP: the profile {own} ")
    assert why in refused.value.message


def test_a_profile_that_is_not_there_or_endless_is_refused_with_its_setting(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "cannot be read"), (tmp_path, "cannot be read"), (Path("/dev/zero"), "JSON")):
        with pytest.raises(InvalidRequestError, match=f"ORCHESTRATOR_SANDBOX_SECCOMP: .*{why}"):
            read_isolation(own_profile=path)


# what is asked of the engine

PROFILE = SandboxProfile()
INFO = {"SecurityOptions": ["name=seccomp,profile=default"], "Runtimes": {"runc": {}, "io.containerd.runc.v2": {}}}


def test_an_engine_that_can_what_is_wanted_is_taken() -> None:
    require(PROFILE, Isolation("{}"), INFO)
    require(PROFILE, Isolation("{}", runtime="runc"), INFO)
    for option in ("name=userns", "name=rootless"):
        options = [*INFO["SecurityOptions"], option]
        require(PROFILE, Isolation("{}", user_namespace=True), {**INFO, "SecurityOptions": options})


@pytest.mark.parametrize(
    ("isolation", "info", "why"),
    [
        (Isolation("{}"), {**INFO, "SecurityOptions": ["name=cgroupns"]}, "has no seccomp"),
        (Isolation("{}"), {"SecurityOptions": None, "Runtimes": None}, "has no seccomp"),
        (
            Isolation("{}", runtime="runsc"),
            INFO,
            "RUNTIME: the Docker Engine has no runtime called runsc; it has io.containerd.runc.v2, runc.",
        ),
        (Isolation("{}", user_namespace=True), INFO, "ORCHESTRATOR_SANDBOX_USER_NAMESPACE is `required`"),
    ],
)
def test_an_engine_that_cannot_is_refused_by_the_settings_name(
    isolation: Isolation, info: dict[str, Any], why: str
) -> None:
    with pytest.raises(IsolationUnmetError) as refused:
        require(PROFILE, isolation, info)
    assert why in refused.value.message
    assert refused.value.hint
    assert not refused.value.retryable


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (replace(PROFILE, cpus=2.5), "ORCHESTRATOR_SANDBOX_CPUS is 2.5, and the Docker Engine's machine has 2."),
        (
            replace(PROFILE, memory=4 << 30),
            "ORCHESTRATOR_SANDBOX_MEMORY is 4096 MiB, and the Docker Engine's machine has 2048 MiB.",
        ),
    ],
)
def test_what_the_machine_does_not_have_is_refused_by_the_settings_name(profile: SandboxProfile, why: str) -> None:
    machine = {**INFO, "NCPU": 2, "MemTotal": 2 << 30}
    require(replace(PROFILE, cpus=2.0, memory=2 << 30), Isolation("{}"), machine)
    require(profile, Isolation("{}"), INFO)  # an engine that does not say
    with pytest.raises(IsolationUnmetError) as refused:
        require(profile, Isolation("{}"), machine)
    assert refused.value.message == why
    assert refused.value.hint
