"""What the probes and the doctor make of engines that were not run here, by what such engines are known to answer.

These are no recordings of ours: they follow the documentation and sources of Docker, gVisor and Kata. They show that
what is not enforced there is named and not taken for granted, and not that anything works there.
"""

import json
from typing import Any

import pytest

from orchestrator.adapters.engine.failures import IsolationUnmetError
from orchestrator.adapters.engine.isolation import require
from orchestrator.domain.attacking import plan_attack
from orchestrator.domain.enforcement import require_enforced
from orchestrator.domain.errors import NotEnforcedError
from orchestrator.domain.examination import no_boundaries
from orchestrator.domain.hardening import Isolation, SandboxProfile
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Finding, Wanted, judged
from tests.unit.test_probes import INSPECTED, SOUND

ROOTLESS_INFO: dict[str, Any] = {
    "ServerVersion": "26.1.5",
    "CgroupVersion": "2",
    "CgroupDriver": "systemd",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"],
    "Runtimes": {"runc": {"path": "runc"}},
    "DefaultRuntime": "runc",
    "Warnings": None,
}
# Without a systemd that delegates the controllers.
UNDELEGATED_INFO = {
    **ROOTLESS_INFO,
    "CgroupDriver": "none",
    "Warnings": ["WARNING: Running in rootless-mode without cgroups. To enable cgroups in rootless-mode, …"],
}
GVISOR_INFO = {
    "ServerVersion": "26.1.5",
    "SecurityOptions": ["name=seccomp,profile=builtin"],
    "Runtimes": {"runc": {"path": "runc"}, "runsc": {"path": "/usr/local/bin/runsc"}},
    "DefaultRuntime": "runc",
}


def found(answers: dict[str, Any], isolation: Isolation, runtime: str = "runc") -> tuple[Finding, ...]:
    inspected = {"HostConfig": {**INSPECTED["HostConfig"], "Runtime": runtime}}
    return judged(PROBES, Wanted(SandboxProfile(), isolation), printed=json.dumps(answers), inspected=inspected)


def lacking(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {one.name: one.verdict for one in findings if one.verdict != "enforced"}


def test_a_rootless_engine_gives_the_user_namespace_that_is_required() -> None:
    isolation = Isolation("{}", user_namespace=True)
    require(SandboxProfile(), isolation, ROOTLESS_INFO)
    mapped = {**SOUND, "user-namespace": [0, 1000, 1]}
    assert lacking(found(mapped, isolation)) == {}
    warnings = " ".join(no_boundaries(ROOTLESS_INFO, runtime="runc", remapped=True, plain_tcp=False))
    assert "Access to this engine is that of one user" in warnings
    assert "root in a container" not in warnings


def test_a_rootless_engine_without_cgroups_limits_nothing_and_is_refused_by_name() -> None:
    """The engine takes the limits of a spec, and warns of them in a log."""
    open_ = {
        **SOUND,
        "memory": "filled",
        "swap": [["max"], None, None, ["0"]],
        "processes": 256,
        "processor": ["max", "100000"],
    }
    findings = found(open_, Isolation("{}"))
    assert lacking(findings) == {
        "memory": "not enforced",
        "swap": "not enforced",
        "processes": "not enforced",
        "processor": "unknown",
    }
    with pytest.raises(NotEnforcedError, match="ALLOW_UNENFORCED=memory,swap,processes,processor"):
        require_enforced(findings, frozenset())
    warnings = no_boundaries(UNDELEGATED_INFO, runtime="runc", remapped=True, plain_tcp=False)
    assert any("without cgroups" in one for one in warnings)


def test_gvisor_has_a_kernel_of_its_own_and_must_be_allowed_to_filter_by_itself() -> None:
    """It applies no profile of ours, and shows no cgroups: its own kernel refuses in its own words."""
    isolation = Isolation("{}", runtime="runsc")
    require(SandboxProfile(), isolation, GVISOR_INFO)
    answers = {
        **SOUND,
        "seccomp": "0",
        "system-calls": ["EPERM", "EPERM", "EAFNOSUPPORT", "done", "done"],
        "swap": [None, None, None, ["0"]],
        "landlock": "done",
    }
    del answers["processor"]
    findings = found(answers, isolation, "runsc")
    assert lacking(findings) == {
        "seccomp": "not enforced",
        "system-calls": "not enforced",
        "processor": "unknown",
        "landlock": "not enforced",
    }
    allowed = frozenset({"seccomp", "system-calls", "processor"})
    assert {one.name for one in require_enforced(findings, allowed)} == allowed
    warnings = no_boundaries(GVISOR_INFO, runtime="runsc", remapped=False, plain_tcp=False)
    assert not any(one.startswith("The kernel") for one in warnings)


def test_kata_is_judged_by_what_its_own_kernel_says() -> None:
    info = {**GVISOR_INFO, "Runtimes": {"runc": {"path": "runc"}, "io.containerd.kata.v2": {}}}
    isolation = Isolation("{}", runtime="io.containerd.kata.v2")
    require(SandboxProfile(), isolation, info)
    assert lacking(found(SOUND, isolation, "io.containerd.kata.v2")) == {}
    assert lacking(found(SOUND, isolation, "runc")) == {"runtime": "not enforced"}
    warnings = no_boundaries(info, runtime="io.containerd.kata.v2", remapped=False, plain_tcp=False)
    assert not any(one.startswith("The kernel") for one in warnings)


def test_a_runtime_that_the_engine_does_not_have_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(IsolationUnmetError, match=r"ORCHESTRATOR_SANDBOX_RUNTIME: .* no runtime called kata"):
        require(SandboxProfile(), Isolation("{}", runtime="kata"), GVISOR_INFO)


def test_on_arm64_the_attack_has_no_calls_of_x86() -> None:
    arm = plan_attack(machine="aarch64", landlock=7)
    intel = plan_attack(machine="x86_64", landlock=7)
    left_out = {cell.outcome for cell in intel.cells} - {cell.outcome for cell in arm.cells}
    assert left_out == {"segments_are_refused", "calls_of_32_bits_end_the_process", "calls_of_x32_end_the_process"}
