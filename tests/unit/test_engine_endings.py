"""What the engine says of a container that has ended becomes a clause, and memory is told from all else."""

from typing import Any

import pytest

from orchestrator.adapters.channel.transport import ContainerEndedError
from orchestrator.adapters.engine.endings import by_times, is_doubtful, require_running


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
        (container(ExitCode=72), "its container has ended: its agent failed", False),
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


@pytest.mark.parametrize(
    ("ran_out", "remembered_from", "for_memory"),
    [
        ([], None, True),  # the engine does not say
        ([], 999_996.0, True),  # it remembers so many events, and no more
        ([], 999_994.0, False),  # all of the last moments, and none of memory
        ([1_000.0], 1_000.0, False),
        ([999_999.9], 999_999.0, True),
        ([1_000.0, 999_999.9], 1_000.0, True),
        ([1_000_000.4], 1_000.0, True),  # it says so a moment later
    ],
)
def test_memory_that_ran_out_long_before_its_end_did_not_end_it(
    *, ran_out: list[float], remembered_from: float | None, for_memory: bool
) -> None:
    killed = container(ExitCode=137, OOMKilled=True, FinishedAt="1970-01-12T13:46:40.123456789Z")
    assert is_doubtful(killed)
    with pytest.raises(ContainerEndedError) as ended:
        require_running(by_times(killed, ran_out, remembered_from))
    assert ended.value.for_memory is for_memory


@pytest.mark.parametrize(
    "found", [None, container(Running=True, OOMKilled=True), container(ExitCode=71, OOMKilled=True), container()]
)
def test_of_others_nobody_asks_for_times(found: dict[str, Any] | None) -> None:
    assert not is_doubtful(found)
