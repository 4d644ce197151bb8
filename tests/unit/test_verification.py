"""What the engine enforces is asked again where the kernel has killed who asked, and not where it was told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from orchestrator.adapters.engine.throwaways import Throwaways
from orchestrator.adapters.engine.verification import Verification
from orchestrator.domain.errors import EngineUnavailableError, NotEnforcedError, SandboxLostError
from orchestrator.domain.hardening import Isolation, SandboxProfile
from orchestrator.domain.model import CellOrder, CellReport, Outcome
from orchestrator.domain.ports import SandboxImage
from orchestrator.domain.probing import Wanted

IMAGE = SandboxImage("an image", "e", "a", "3.11")


def report(outcome: Outcome) -> CellReport:
    """That says nothing of any protection."""
    return CellReport(
        outcome=outcome,
        output_head="",
        output_tail="",
        output_bytes=0,
        output_left_out=0,
        value=None,
        displays=(),
        error_type=None,
        error_message=None,
        traceback=None,
        bound=(),
        removed=(),
        variable_count=0,
        duration=1.0,
        namespace_kept=outcome != "oom",
        resumed=None,
        memory_peak=0,
        notes=(),
    )


class Sandboxes:
    """Each ends its only cell as is said here."""

    def __init__(self, *outcomes: Outcome | SandboxLostError) -> None:
        self.outcomes = list(outcomes)
        self.open = 0

    @asynccontextmanager
    async def one(self, *_: object, **__: object) -> AsyncIterator[tuple[str, "Sandboxes"]]:
        self.open += 1
        try:
            yield "handle", self
        finally:
            self.open -= 1

    async def claim(self, _session: str, _incarnation: int) -> None:
        assert self.open == 1, "one after the other"

    async def execute(self, _order: CellOrder) -> CellReport:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, SandboxLostError):
            raise outcome
        return report(outcome)


async def ask(sandboxes: Sandboxes) -> None:
    async def nothing(*_: str) -> None:
        return None

    wanted = Wanted(SandboxProfile(), Isolation("{}"))
    verification = Verification(cast("Throwaways", sandboxes), cast("Any", nothing), wanted, nothing, nothing)
    await verification.require(IMAGE, "unix", "key")


@pytest.mark.parametrize("killed", [0, 1, 2])
async def test_what_the_kernel_has_killed_beside_the_one_that_took_too_much_is_asked_again(killed: int) -> None:
    ends: list[Outcome] = ["oom"] * killed
    sandboxes = Sandboxes(*ends, "ok")
    with pytest.raises(NotEnforcedError):  # since it said nothing, which counts as nothing enforced
        await ask(sandboxes)
    assert (sandboxes.outcomes, sandboxes.open) == ([], 0)


async def test_what_is_killed_each_time_could_not_be_found_out() -> None:
    sandboxes = Sandboxes("oom", "oom", "oom", "ok")
    with pytest.raises(EngineUnavailableError, match="the probes ended as oom"):
        await ask(sandboxes)
    assert (sandboxes.outcomes, sandboxes.open) == (["ok"], 0)


@pytest.mark.parametrize("outcome", ["timeout", "crashed", "exception"])
async def test_another_end_is_not_asked_again(outcome: Outcome) -> None:
    sandboxes = Sandboxes(outcome, "ok")
    with pytest.raises(EngineUnavailableError, match=f"the probes ended as {outcome}"):
        await ask(sandboxes)
    assert (sandboxes.outcomes, sandboxes.open) == (["ok"], 0)


async def test_a_sandbox_that_goes_is_not_asked_again() -> None:
    sandboxes = Sandboxes(SandboxLostError("It went."), "ok")
    with pytest.raises(EngineUnavailableError, match=r"could not be found out: It went\."):
        await ask(sandboxes)
    assert (sandboxes.outcomes, sandboxes.open) == (["ok"], 0)
