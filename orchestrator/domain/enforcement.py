"""What an engine was seen to enforce: kept by what it depends on, and weighed against what the operator allows.

Pure. An answer that was kept is good for the same engine, set up in the same way, in the same boot of its kernel, for
the same image and the same spec; everything else is asked anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, get_args

from orchestrator.domain.errors import NotEnforcedError
from orchestrator.domain.hardening import Channel, Isolation, SandboxProfile, container_spec
from orchestrator.domain.ports import SandboxImage
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Finding, Probe, Verdict, Wanted, cell, probing_profile

ALLOW_SETTING: Final = "ORCHESTRATOR_ALLOW_UNENFORCED"
_MOST_KEPT: Final = 8  # answers: for the images of a few environments
# Of what an engine says of itself: which one it is, and what it is set up to do with a spec.
_OF_THE_ENGINE: Final = (
    *("ID", "ServerVersion", "KernelVersion", "OSType", "Architecture"),
    *("CgroupVersion", "CgroupDriver", "Driver", "DefaultRuntime", "Runtimes", "SecurityOptions", "RuncCommit"),
    *("MemoryLimit", "SwapLimit", "CpuCfsQuota", "PidsLimit"),
)


def answer_key(
    info: Mapping[str, Any], *, boot: str, image: SandboxImage, profile: SandboxProfile, isolation: Isolation, swap: str
) -> str:
    """A digest of all that an answer depends on; `info` is the engine's, `swap` what the host says of its own."""
    spec = container_spec(
        installation="",
        sandbox_id="",
        uid=1,
        secret="",
        image=image.tag,
        environment=image.environment,
        created=0,
        profile=profile,
        isolation=isolation,
        channel=Channel("unix", ""),
    )
    asked = cell(PROBES, Wanted(probing_profile(profile), isolation))  # another version may ask otherwise
    wanted = [spec, isolation.user_namespace, asked]
    parts = [{name: info.get(name) for name in _OF_THE_ENGINE}, boot, wanted, asdict(image), swap]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def profile_digest(isolation: Isolation) -> str:
    """Of the seccomp profile, as it goes to the engine."""
    return hashlib.sha256(isolation.seccomp.encode()).hexdigest()


def kept_answer(text: str | None, key: str, probes: Sequence[Probe]) -> tuple[Finding, ...] | None:
    """What was found then, where it was kept under that key and answers every probe of today; else None."""
    rows = _read(text).get(key)
    try:
        found = {str(row[0]): (row[1], str(row[2])) for row in rows or ()}
        findings = tuple(_finding(probe, *found[probe.name]) for probe in probes)
    except (LookupError, TypeError):
        return None
    return findings if all(one.verdict in get_args(Verdict) for one in findings) else None


def with_answer(text: str | None, key: str, findings: Iterable[Finding]) -> str:
    """The text that keeps this answer beside the latest others."""
    kept = _read(text)
    kept.pop(key, None)
    kept[key] = [[one.name, one.verdict, one.answer] for one in findings]
    return json.dumps(dict(list(kept.items())[-_MOST_KEPT:]))


def missing(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What is required and not seen to be enforced; what is unknown counts as not."""
    return tuple(one for one in findings if one.required and one.verdict != "enforced")


def require_enforced(findings: Iterable[Finding], allowed: frozenset[str]) -> tuple[Finding, ...]:
    """What is missing and allowed to be. Raises NotEnforcedError where something is missing that is not."""
    lacking = missing(findings)
    refused = [one for one in lacking if one.name not in allowed]
    if refused:
        raise refusal(refused)
    return lacking


def refusal(refused: Sequence[Finding]) -> NotEnforcedError:
    """Names each protection, what was seen, what to do, and how it is allowed to be missing."""
    told = "; ".join(one.sentence for one in refused)
    remedies = " ".join(dict.fromkeys(one.remedy for one in refused if one.remedy))
    names = ",".join(one.name for one in refused)
    return NotEnforcedError(
        f"Nothing is run: the engine does not enforce what a sandbox needs: {told}.",
        hint=f"{remedies} `orchestrator doctor` shows every line. To serve without it all the same: "
        f"{ALLOW_SETTING}={names}",
    )


def _finding(probe: Probe, verdict: Verdict, answer: str) -> Finding:
    remedy = None if verdict == "enforced" else probe.remedy
    return Finding(probe.name, verdict, probe.protection, answer, remedy, probe.required)


def _read(text: str | None) -> dict[str, Any]:
    try:
        kept = json.loads(text or "{}")
    except ValueError:
        return {}
    return kept if isinstance(kept, dict) else {}
