"""Probes judge what a sandbox and the engine answer; whatever is missing or odd is unknown, and never enforced."""

import json
import mmap
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain.hardening import Isolation, SandboxProfile
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Verdict, Wanted, cell, judged, probing_profile

PROFILE = SandboxProfile()
WANTED = Wanted(PROFILE, Isolation("{}"))
MIB = 1024 * 1024
ALL = 0xFFFFFFFF
SOUND: dict[str, Any] = {
    "network": [["lo"], "ENETUNREACH", []],
    "root": 4129,
    "user": [40000] * 7,
    "capabilities": ["0000000000000000"] * 5,
    "no-new-privileges": "1",
    "seccomp": "2",
    "system-calls": ["EPERM", "EPERM", "EAFNOSUPPORT", "ENOSYS", "EPERM"],
    "memory": "SIGKILL",
    "swap": [["0"], None, None, ["123456"]],
    "processes": 250,
    "processor": ["100000", "100000"],
    "files": [[256 * MIB, 16_384, 4102], [64 * MIB, 8_192, 4110], [64 * MIB, 1_024, 4110]],
    "socket-buffers": [["4096", "65536", "131072"]] * 2,
    "limits": {
        "NOFILE": [1008, 1024],
        "FSIZE": [1024 * MIB] * 2,
        "CORE": [1, 1],
        "MEMLOCK": [65_536] * 2,
        "MSGQUEUE": [0, 0],
        "SIGPENDING": [1024] * 2,
        "NICE": [0, 0],
        "RTPRIO": [0, 0],
        "STACK": [8 * MIB, 64 * MIB],
    },
    "masked-paths": [],
    "agent": ["EACCES", "EACCES", "EPERM"],
    "namespaces": ["ipc:[4026532254]", "uts:[4026532253]", "pid:[4026532255]", "cgroup:[4026532325]"],
    "user-namespace": [0, 0, ALL],
    "landlock": "EACCES",
}
INSPECTED = {"HostConfig": {"LogConfig": {"Type": "none"}, "Runtime": "runc"}}


def verdicts(
    answers: dict[str, Any] | str, *, wanted: Wanted = WANTED, inspected: dict[str, Any] = INSPECTED
) -> dict[str, Verdict]:
    printed = answers if isinstance(answers, str) else json.dumps(answers)
    return {one.name: one.verdict for one in judged(PROBES, wanted, printed=printed, inspected=inspected)}


def test_each_probe_has_a_name_of_its_own_and_says_what_holds_and_what_to_do() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES)
    assert all(probe.protection and probe.remedy for probe in PROBES)


def test_a_sound_sandbox_is_enforced_line_by_line_and_needs_no_remedy() -> None:
    found = judged(PROBES, WANTED, printed=json.dumps(SOUND), inspected=INSPECTED)
    assert [(one.name, one.verdict, one.remedy) for one in found] == [(p.name, "enforced", None) for p in PROBES]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("network", [["eth0", "lo"], "ENETUNREACH", []]),
        ("network", [["lo"], "done", []]),
        ("network", [["lo"], "ENETUNREACH", ["/run/docker.sock"]]),
        ("root", 4128),
        ("user", [0, 40000]),
        ("user", []),
        ("capabilities", ["0", "0", "0", "00000000a80425fb", "0"]),
        ("capabilities", []),
        ("no-new-privileges", "0"),
        ("seccomp", "0"),
        ("system-calls", ["EPERM", "EPERM", "done", "ENOSYS", "EPERM"]),
        ("system-calls", ["EPERM", "EPERM", "EAFNOSUPPORT", "done", "EPERM"]),
        ("memory", "filled"),
        ("swap", [["max"], None, None, ["123456"]]),
        ("swap", [["max"], None, None, ["0"]]),
        ("swap", [None, ["9223372036854771712"], ["1073741824"], ["0"]]),
        ("swap", [None, None, ["1073741824"], ["123456"]]),
        ("processes", 256),
        ("processes", 0),
        ("processor", ["200000", "100000"]),
        ("processor", ["-1", "100000"]),
        ("files", [[512 * MIB, 16_384, 4102], [64 * MIB, 8_192, 4110], [64 * MIB, 1_024, 4110]]),
        ("files", [[256 * MIB, 16_384, 4102], [64 * MIB, 0, 4110], [64 * MIB, 1_024, 4110]]),
        ("files", [[256 * MIB, 16_384, 4102], [64 * MIB, 8_192, 4102], [64 * MIB, 1_024, 4110]]),
        ("limits", {**SOUND["limits"], "NOFILE": [1024, 4096]}),
        ("limits", {**SOUND["limits"], "CORE": [0, -1]}),
        ("limits", {**SOUND["limits"], "NICE": [40, 40]}),
        ("limits", {"NOFILE": [1008, 1024]}),
        ("socket-buffers", [["4096", "131072", "33554432"], ["4096", "65536", "131072"]]),
        ("socket-buffers", []),
        ("masked-paths", ["/proc/keys"]),
        ("namespaces", ["ipc:[4026531839]", *SOUND["namespaces"][1:]]),
        ("namespaces", [*SOUND["namespaces"][:3], "cgroup:[4026531835]"]),
        ("landlock", "done"),
        ("agent", ["done", "EACCES", "EPERM"]),
        ("agent", []),
    ],
)
def test_what_is_open_is_not_enforced_and_comes_with_a_remedy(name: str, answer: object) -> None:
    found = judged(PROBES, WANTED, printed=json.dumps({**SOUND, name: answer}), inspected=INSPECTED)
    assert {one.name: one.verdict for one in found if one.verdict != "enforced"} == {name: "not enforced"}
    assert all(one.remedy for one in found if one.name == name)


@pytest.mark.parametrize("answers", ["", "{", "[" * 100_000, "null", "[]", "5", '"text"', "{}"])
def test_without_answers_all_that_is_asked_inside_is_unknown(answers: str) -> None:
    found = verdicts(answers)
    assert {name for name, verdict in found.items() if verdict != "unknown"} == {"log-driver", "runtime"}


def test_what_is_larger_than_can_be_tried_in_a_moment_is_tried_smaller() -> None:
    large = SandboxProfile(memory=64 << 30, pids=30_000, cpus=8, workspace=8 << 30)
    tried = probing_profile(large)
    assert (tried.memory, tried.pids, tried.lease) == (256 * MIB, 256, 60)
    assert replace(tried, memory=large.memory, pids=large.pids, lease=large.lease) == large
    small = SandboxProfile(memory=64 * MIB, pids=32)
    assert replace(probing_profile(small), lease=small.lease) == small


def test_swap_that_is_counted_with_the_memory_is_closed_by_the_same_number() -> None:
    assert verdicts({**SOUND, "swap": [None, ["1073741824"], ["1073741824"], ["5"]]})["swap"] == "enforced"


def test_swap_that_nothing_counts_is_closed_as_long_as_the_host_has_none() -> None:
    assert verdicts({**SOUND, "swap": [None, None, ["1073741824"], ["0"]]})["swap"] == "enforced"


@pytest.mark.parametrize("odd", [None, {}, [], [None], "text", -5, [[]], {"NOFILE": 5}, [[1, 2, 3]], 1e999, [[[]]]])
def test_an_odd_answer_is_never_enforced(odd: object) -> None:
    for name in SOUND.keys() - {"user-namespace", "masked-paths", "root"}:
        assert verdicts({**SOUND, name: odd})[name] != "enforced", name
    assert verdicts({**SOUND, "root": None})["root"] == "unknown"
    assert verdicts({**SOUND, "masked-paths": None})["masked-paths"] == "not enforced"


def test_what_the_engine_does_not_say_is_unknown() -> None:
    assert {verdicts(SOUND, inspected={})[name] for name in ("log-driver", "runtime")} == {"unknown"}
    logging = {"HostConfig": {"LogConfig": {"Type": "json-file"}, "Runtime": "runc"}}
    assert verdicts(SOUND, inspected=logging)["log-driver"] == "not enforced"


def test_a_runtime_and_a_user_namespace_are_wanted_where_the_settings_say_so() -> None:
    strict = replace(WANTED, isolation=Isolation("{}", runtime="runsc", user_namespace=True))
    found = verdicts(SOUND, wanted=strict)
    assert (found["runtime"], found["user-namespace"]) == ("not enforced", "not enforced")
    remapped = {**SOUND, "user-namespace": [0, 100_000, 65_536]}
    gvisor = {"HostConfig": {"LogConfig": {"Type": "none"}, "Runtime": "runsc"}}
    assert set(verdicts(remapped, wanted=strict, inspected=gvisor).values()) == {"enforced"}


def test_an_operators_profile_has_to_close_namespaces_and_may_open_the_rest() -> None:
    own = Wanted(PROFILE, Isolation("{}", own_seccomp=True))
    opened = {**SOUND, "system-calls": ["EPERM", "done", "done", "done", "done"]}
    assert verdicts(opened, wanted=own)["system-calls"] == "enforced"
    assert verdicts(opened)["system-calls"] == "not enforced"
    assert verdicts({**SOUND, "system-calls": ["done"] * 5}, wanted=own)["system-calls"] == "not enforced"


def test_long_answers_are_cut() -> None:
    long = judged(PROBES, WANTED, printed=json.dumps({**SOUND, "network": "x" * 10_000}), inspected=INSPECTED)
    assert max(len(one.answer) for one in long) == 200


def test_the_cell_asks_every_probe_and_prints_one_line_whatever_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Run here, where hardly any answer is the wanted one: it is Python that any interpreter takes."""
    harmless = [
        probe for probe in PROBES if probe.name in ("root", "user", "capabilities", "seccomp", "limits", "swap")
    ]
    broken = replace(harmless[0], name="broken", ask=lambda _: "1 / 0")
    exec(compile(cell([*harmless, broken], WANTED), "<cell>", "exec"), {})  # noqa: S102 - ours, as a sandbox does
    answers = json.loads(capsys.readouterr().out)
    assert answers.keys() == {probe.name for probe in harmless}
    compile(cell(PROBES, WANTED), "<cell>", "exec")


def test_the_memory_that_is_filled_is_private_so_that_the_kernel_takes_it_back_as_soon_as_it_kills(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For shared memory, on a busy machine, it kills the worker as well, and then nothing is found out."""
    made, kept = mmap.mmap, []

    def keeping(*arguments: int, **named: int) -> mmap.mmap:
        kept.append(made(*arguments, **named))
        return kept[-1]

    monkeypatch.setattr(mmap, "mmap", keeping)
    names: dict[str, Any] = {}
    exec(compile(cell([], WANTED), "<cell>", "exec"), names)  # noqa: S102 - ours, as a sandbox does
    assert capsys.readouterr().out == "{}\n"
    before = names["status"]("RssAnon"), names["status"]("RssShmem")
    assert names["filled"](64 * MIB) == "filled"
    private, shared = (
        int(names["status"](name)) - int(old) for name, old in zip(("RssAnon", "RssShmem"), before, strict=True)
    )
    assert len(kept) == 1
    assert private > 60 * 1024, "kB"
    assert shared < 1024, "kB"
