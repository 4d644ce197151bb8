"""The probes tell a sandbox as users get it from one that lacks a protection, line by line, on the real engine."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Finding, Wanted, cell, judged
from tests.pace import paced
from tests.security.conftest import Inside
from tests.security.weakened import Weakening

KIND = "weakened specs"

HOST_SWAPS = len(Path("/proc/swaps").read_text("utf-8").splitlines()) > 1
WANTED = Wanted(SandboxProfile(), read_isolation())


async def findings(inside: Inside, weakening: Weakening | None) -> tuple[Finding, ...]:
    sandbox = await inside(weakening)
    for _ in range(3):  # as at a start: `_TRIES` in verification.py says why
        report = await sandbox.run(cell(PROBES, WANTED), limit=paced(60))
        if report.outcome != "oom":
            break
    assert report.outcome == "ok", report.traceback
    with closing(api_client(find_engine())) as api:
        inspected: dict[str, Any] = api.inspect_container(sandbox.handle)
    return judged(PROBES, WANTED, printed=report.output_head, inspected=inspected)


def lacking(found: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in found if finding.verdict != "enforced"}


@pytest.mark.asyncio(loop_scope="module")
async def test_all_is_enforced_in_a_sandbox_as_users_get_it(inside: Inside) -> None:
    found = await findings(inside, None)
    assert lacking(found) == {}, [finding for finding in found if finding.verdict != "enforced"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("weakening", "names"),
    [
        ("no filter", {"seccomp", "system-calls", "agent"}),
        ("docker's filter", {"system-calls", "agent"}),
        ("engine's masks", {"masked-paths"}),
        ("engine's ulimits", {"limits"}),
        ("exec everywhere", {"files"}),
        ("many inodes", {"files"}),
        ("host's network", {"network", "socket-buffers"}),
        ("writable root", {"root"}),
        ("root", {"user"}),
        ("capabilities", {"capabilities"}),
        ("new privileges", {"no-new-privileges", "system-calls", "agent", "landlock"}),
        ("twice the memory", {"memory"}),
        ("twice the processes", {"processes"}),
        ("twice the processor", {"processor"}),
        ("a log", {"log-driver"}),
        ("swap", {"swap"}),
        ("the host's queues", {"namespaces"}),
        ("twice the files", {"files"}),
        ("the kernel's buffers", {"socket-buffers"}),
        ("no landlock", {"landlock"}),
    ],
)
async def test_what_is_taken_away_is_told_and_nothing_else(
    weakening: Weakening, names: set[str], inside: Inside
) -> None:
    found = await findings(inside, weakening)
    if weakening == "swap" and HOST_SWAPS:
        names = {*names, "memory"}  # what is too much for the memory goes there
    assert lacking(found) == dict.fromkeys(names, "not enforced")
    assert all(finding.remedy for finding in found if finding.verdict != "enforced")
