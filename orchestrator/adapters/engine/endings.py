"""Whether a container runs, and how it ended where it does not, from what the engine says of it. Pure."""

import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.channel.transport import ContainerEndedError

# Exit codes of the supervisor's own.
_LEASE_OVER: Final = 0
_NO_PROCESS: Final = 70
_MEMORY_HELD: Final = 71
_AGENT_FAILED: Final = 72
_KILLED: Final = 128 + signal.SIGKILL
_LAST_OOM: Final = 5.0  # seconds before its end, and what an engine under load takes to say so
SAID_BY: Final = 1.0  # seconds after its end by which it has
_WORDS: Final = {
    _LEASE_OVER: "it had no host for longer than its lease, or was told to end",
    _NO_PROCESS: "no process could be started in it any more",
    _MEMORY_HELD: "its memory could not be freed",
    _AGENT_FAILED: "its agent failed",
}


def require_running(found: Mapping[str, Any] | None) -> None:
    """Raises ContainerEndedError where that container, None if there is none, does not run."""
    if found is None:
        raise ContainerEndedError("its container was removed")
    state = found["State"]
    if state["Running"]:
        return
    code = state.get("ExitCode")
    if _is_flagged(state):
        raise ContainerEndedError("its container was killed after its memory had run out", for_memory=True)
    if code in _WORDS:
        raise ContainerEndedError(f"its container has ended: {_WORDS[code]}", for_memory=code == _MEMORY_HELD)
    how = "was killed" if code == _KILLED else f"has ended with exit code {code}"
    raise ContainerEndedError(f"its container {how}")


def is_doubtful(found: Mapping[str, Any] | None) -> bool:
    """Whether only the times at which memory ran out in it can tell what it was killed for."""
    return found is not None and not found["State"]["Running"] and _is_flagged(found["State"])


def by_times(found: Mapping[str, Any], ran_out: Sequence[float], remembered_from: float | None) -> dict[str, Any]:
    """The same, flagged only where memory ran out right before the end. The engine's own flag is of any process that
    ever was in it, and PID 1 is the last that the kernel should choose. Where the engine does not remember as far back,
    the flag counts.
    """
    state, since = found["State"], ended_at(found) - _LAST_OOM
    late = any(moment > since for moment in ran_out)
    unknown = remembered_from is None or remembered_from > since
    return {**found, "State": {**state, "OOMKilled": late or (unknown and not ran_out)}}


def ended_at(found: Mapping[str, Any]) -> float:
    """By the engine's clock, in seconds since 1970."""
    return datetime.fromisoformat(found["State"]["FinishedAt"]).timestamp()


def _is_flagged(state: Mapping[str, Any]) -> bool:
    return bool(state.get("OOMKilled")) and state.get("ExitCode") == _KILLED
