"""Whether a container runs, and how it ended where it does not, from what the engine says of it. Pure."""

import signal
from collections.abc import Mapping
from typing import Any, Final

from orchestrator.adapters.channel.transport import ContainerEndedError

# Exit codes of the supervisor's own.
_LEASE_OVER: Final = 0
_NO_PROCESS: Final = 70
_MEMORY_HELD: Final = 71
_KILLED: Final = 128 + signal.SIGKILL
_WORDS: Final = {
    _LEASE_OVER: "it had no host for longer than its lease, or was told to end",
    _NO_PROCESS: "no process could be started in it any more",
    _MEMORY_HELD: "its memory could not be freed",
}


def require_running(found: Mapping[str, Any] | None) -> None:
    """Raises ContainerEndedError where that container, None if there is none, does not run."""
    if found is None:
        raise ContainerEndedError("its container was removed")
    state = found["State"]
    if state["Running"]:
        return
    code = state.get("ExitCode")
    if state.get("OOMKilled") and code == _KILLED:
        # The engine's flag is of any process in it, and PID 1 is the last that the kernel should choose.
        raise ContainerEndedError("its container was killed after its memory had run out", for_memory=True)
    if code in _WORDS:
        raise ContainerEndedError(f"its container has ended: {_WORDS[code]}", for_memory=code == _MEMORY_HELD)
    how = "was killed" if code == _KILLED else f"has ended with exit code {code}"
    raise ContainerEndedError(f"its container {how}")
