"""What a seccomp profile has to be before an engine gets it: in Docker's format, and one that closes something."""

import json
from typing import Any

# What the first line of a profile may do to the calls that it does not name. Allowing or merely logging them would make
# it a list of what is known to be bad; asking somebody (notify, trace) needs somebody who answers.
_CLOSING = frozenset(
    {"SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"}
)
_ACTIONS = _CLOSING | {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"}


class ProfileError(Exception):
    """This is no profile that may stand between a sandbox and the kernel."""


def compact(text: str) -> str:
    """The profile in as few bytes as an engine needs. Raises ProfileError, whose text goes on after "the profile"."""
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"is no JSON ({error})") from error
    if not isinstance(profile, dict):
        raise ProfileError("is no JSON object")
    if profile.get("defaultAction") not in _CLOSING:
        raise ProfileError(
            f"has the defaultAction {json.dumps(profile.get('defaultAction'))}; one of {', '.join(sorted(_CLOSING))} "
            "is needed, so that calls that it does not name are closed"
        )
    _check_architectures(profile)
    rules = profile.get("syscalls")
    if not isinstance(rules, list) or not rules:
        raise ProfileError("has no list `syscalls`, so that nothing could run")
    for number, rule in enumerate(rules):
        _check_rule(number, rule)
    return json.dumps(profile, separators=(",", ":"))


def _check_architectures(profile: dict[str, Any]) -> None:
    plain, mapped = profile.get("architectures"), profile.get("archMap")
    if bool(plain) == bool(mapped):
        raise ProfileError("has to name its architectures in either `architectures` or `archMap`")
    named = plain
    if not plain and isinstance(mapped, list):
        named = [row.get("architecture") if isinstance(row, dict) else None for row in mapped]
    if not isinstance(named, list) or not all(isinstance(one, str) and one.startswith("SCMP_ARCH_") for one in named):
        raise ProfileError("has an architecture that is none; they are called SCMP_ARCH_X86_64, SCMP_ARCH_AARCH64, …")


def _check_rule(number: int, rule: object) -> None:
    names = rule.get("names") if isinstance(rule, dict) else None
    if not isinstance(rule, dict) or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProfileError(f"has a rule without a list `names` (the {number + 1}. of `syscalls`)")
    if rule.get("action") not in _ACTIONS:
        raise ProfileError(
            f"has a rule with the action {json.dumps(rule.get('action'))} (the {number + 1}. of `syscalls`)"
        )
