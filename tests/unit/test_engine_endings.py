"""What the engine says of a container that has ended becomes a clause, and memory is told from all else."""

from typing import Any

import pytest

from orchestrator.adapters.channel.transport import ContainerEndedError
from orchestrator.adapters.engine.endings import require_running


def container(**state: object) -> dict[str, Any]:
    return {"State": {"Running": False, "OOMKilled": False, "ExitCode": 0, **state}}


def test_one_that_runs_has_not_ended() -> None:
    require_running(container(Running=True, OOMKilled=True))


@pytest.mark.parametrize(
    ("found", "clause", "for_memory"),
    [
        (None, "its container was removed", False),
        (container(ExitCode=137), "its container was killed", False),
        (container(ExitCode=137, OOMKilled=True), "its container was killed after its memory had run out", True),
        (container(ExitCode=71), "its container has ended: its memory could not be freed", True),
        (container(ExitCode=70), "its container has ended: no process could be started in it any more", False),
        (
            container(),
            "its container has ended: it had no host for longer than its lease, or was told to end",
            False,
        ),
        # A cell had run out of memory at some time before, and the supervisor fell over something else.
        (container(ExitCode=1, OOMKilled=True), "its container has ended with exit code 1", False),
        (container(ExitCode=139), "its container has ended with exit code 139", False),
    ],
)
def test_how_one_ended(found: dict[str, Any] | None, clause: str, for_memory: bool) -> None:  # noqa: FBT001 - from the table
    with pytest.raises(ContainerEndedError) as ended:
        require_running(found)
    assert (str(ended.value), ended.value.for_memory) == (clause, for_memory)
