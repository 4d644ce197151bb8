"""Makes of policy.toml what engines take (profile.json) and what people read (docs/seccomp.md): `make seccomp`."""

import itertools
import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Policy = dict[str, Any]

HERE = Path(__file__).resolve().parent
POLICY = HERE / "policy.toml"
PROFILE = HERE / "profile.json"
TABLE = HERE.parents[1] / "docs" / "seccomp.md"

# Both native ABIs, and no other: without subarchitectures, 32-bit and x32 calls end the process.
_ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
_LOW_HALF = 0xFFFF_FFFF
_ALL = 0xFFFF_FFFF_FFFF_FFFF
_ERRNOS = {"success": 0, "EINVAL": 22, "ENOSYS": 38, "EOPNOTSUPP": 95, "EAFNOSUPPORT": 97}  # the same on both

_INTRODUCTION = """\
# The system calls of a sandbox

Made by `make seccomp` from `sandbox-image/seccomp/policy.toml`, where the filters on arguments stand in full; a test
holds this page, the policy and the profile that engines get (`sandbox-image/seccomp/profile.json`) equal.

It is an allow-list: what stands in no open group is answered `EPERM`. Calls of other ABIs than x86-64 and arm64
(32-bit, x32) end the process. Calls that exist on one of the two only are ignored on the other.
"""


def read_policy(path: Path = POLICY) -> Policy:
    """The policy as its file has it."""
    return tomllib.loads(path.read_text("utf-8"))


def profile_of(policy: Policy) -> dict[str, Any]:
    """The profile in Docker's format."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": name, "subArchitectures": []} for name in _ARCHITECTURES],
        "syscalls": [rule for group in policy["group"] for rule in _rules(group)],
    }


def _rules(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    answer = group.get("answer", "allow")
    action: dict[str, Any] = {"action": "SCMP_ACT_ALLOW"}
    if answer != "allow":
        action = {"action": "SCMP_ACT_ERRNO", "errnoRet": _ERRNOS[answer]}
    # One rule holds where all of its comparisons do; of several rules for a call one is enough.
    for arguments in itertools.product(*(list(_comparisons(condition)) for condition in group.get("where", ()))):
        yield {"comment": group["name"], "names": group["calls"], **action, "args": list(arguments)}


def _comparisons(condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "null" in condition:
        pairs = [(_ALL, 0)]
    elif "is" in condition:
        pairs = _blocks(set(condition["is"]))
    else:
        wanted = condition["are"]
        pairs = [(condition["bits"], value) for value in (wanted if isinstance(wanted, list) else [wanted])]
    for mask, value in pairs:
        yield {"index": condition["index"], "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _blocks(values: set[int]) -> list[tuple[int, int]]:
    """Masks and what they leave, for exactly these values; neighbours share one, since each is tried in turn."""
    blocks = []
    while values:
        start, size = min(values), 1
        while start % (2 * size) == 0 and values.issuperset(range(start, start + 2 * size)):
            size *= 2
        blocks.append((_LOW_HALF - (size - 1), start))
        values -= set(range(start, start + size))
    return blocks


def table_of(policy: Policy) -> str:
    """The page for people."""
    opened = [group for group in policy["group"] if group.get("answer", "allow") == "allow"]
    answered = [group for group in policy["group"] if group not in opened]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Open",
            "",
            *_rows(opened),
            "",
            "## Answered without asking the kernel",
            "",
            *_rows(answered, answers=True),
            "",
            "## Closed",
            "",
            *_rows(policy["closed"]),
            "",
        ]
    )


def _rows(groups: Sequence[dict[str, Any]], *, answers: bool = False) -> Iterator[str]:
    head = ["group", "calls", *(["answer"] if answers else []), "why"]
    yield _row(head)
    yield "|" + "---|" * len(head)
    for group in groups:
        some = " (by their arguments)" if "where" in group else ""
        calls = ", ".join(f"`{name}`" for name in group["calls"]) + some
        answer = [f"`{0 if group['answer'] == 'success' else group['answer']}`"] if answers else []
        yield _row([group["name"], calls, *answer, group["why"]])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Write both files."""
    policy = read_policy()
    PROFILE.write_text(json.dumps(profile_of(policy), indent=1) + "\n", "utf-8")
    TABLE.write_text(table_of(policy), "utf-8")
    groups = len(policy["group"])
    sys.stdout.write(f"{PROFILE.name} and {TABLE.name}: {groups} groups that are open or answered\n")


if __name__ == "__main__":
    main()
