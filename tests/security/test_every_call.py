"""The profile does on this engine what the policy says, for every system call that there is."""

import pytest

from tests.security.conftest import Inside
from tests.security.sweep import REFUSED, swept
from tests.unit.test_seccomp_profile import POLICY

KIND = "kernel surface"


@pytest.mark.asyncio(loop_scope="module")
async def test_every_call_is_answered_as_the_policy_says(inside: Inside) -> None:
    ours, bare = await swept(await inside(None)), await swept(await inside("no filter"))
    closed = {name for group in POLICY["closed"] for name in group["calls"]} - {"uprobe", "uretprobe"}
    whole = {group["name"]: group for group in POLICY["group"] if "where" not in group}
    assert {name: ours[name] for name in closed & ours.keys() if not set(ours[name]) <= REFUSED} == {}
    for group in whole.values():
        for name in ours.keys() & set(group["calls"]):
            match group.get("answer", "allow"):
                case "allow":
                    # The kernel's own refusals are the same without a filter; a call that is newer than what the engine
                    # knows of is answered as on an older kernel.
                    assert "EPERM" not in ours[name] or "EPERM" in bare[name], name
                case "success":
                    assert ours[name] == ["done", "done"], name
                case errno:
                    assert ours[name] == [errno, errno], name
