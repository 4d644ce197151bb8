"""What isolates sandboxes beside their limits: read at the start, and asked of the engine at its first use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestrator.adapters.engine.failures import IsolationUnmetError
from orchestrator.adapters.image.sources import image_folder
from orchestrator.domain import seccomp
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.hardening import MIB, Isolation, SandboxProfile

_MAX_PROFILE_BYTES: Final = 1024 * 1024  # what is longer is cut, and then no JSON any more


def read_isolation(
    *,
    own_profile: Path | None = None,
    runtime: str | None = None,
    user_namespace: bool = False,
    allowed: frozenset[str] = frozenset(),
) -> Isolation:
    """Our seccomp profile, or the operator's own in its place. Raises InvalidRequestError that names the setting."""
    path = own_profile or image_folder() / "seccomp" / "profile.json"
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_PROFILE_BYTES)
        profile = seccomp.compact(text.decode("utf-8", "replace"))
    except OSError as failure:
        raise _refused(path, f"cannot be read ({failure.strerror or failure})") from failure
    except seccomp.ProfileError as failure:
        raise _refused(path, str(failure)) from failure
    return Isolation(profile, runtime, user_namespace, own_seccomp=own_profile is not None, allowed=allowed)


def _refused(path: Path, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Wrong settings: ORCHESTRATOR_SANDBOX_SECCOMP: the profile {path} {why}.",
        hint="Correct the file, or unset ORCHESTRATOR_SANDBOX_SECCOMP for our own profile.",
    )


def require(profile: SandboxProfile, isolation: Isolation, info: Mapping[str, Any]) -> None:
    """Raise IsolationUnmetError where an engine that says this of itself cannot give it."""
    _require_room(profile, info)
    options = {str(option).partition(",")[0] for option in info.get("SecurityOptions") or ()}
    runtimes = sorted(info.get("Runtimes") or ())
    if "name=seccomp" not in options:
        raise IsolationUnmetError(
            "The Docker Engine has no seccomp, so that sandboxes could make every system call.",
            hint="Use an engine and a kernel with seccomp; every distribution's own have it.",
        )
    if isolation.runtime is not None and isolation.runtime not in runtimes:
        raise IsolationUnmetError(
            f"ORCHESTRATOR_SANDBOX_RUNTIME: the Docker Engine has no runtime called {isolation.runtime}; "
            f"it has {', '.join(runtimes)}.",
            hint="Add it to the engine's daemon.json, or unset ORCHESTRATOR_SANDBOX_RUNTIME for the engine's default.",
        )
    if isolation.user_namespace and not options & {"name=userns", "name=rootless"}:
        raise IsolationUnmetError(
            "ORCHESTRATOR_SANDBOX_USER_NAMESPACE is `required`, and the Docker Engine gives containers none.",
            hint="Set userns-remap in the engine's daemon.json, or use a rootless engine.",
        )


def _require_room(profile: SandboxProfile, info: Mapping[str, Any]) -> None:
    """What the machine does not have cannot be given; an engine that does not say is believed to have it."""
    processors, memory = int(info.get("NCPU") or 0), int(info.get("MemTotal") or 0)
    if 0 < processors < profile.cpus:
        raise IsolationUnmetError(
            f"ORCHESTRATOR_SANDBOX_CPUS is {profile.cpus:g}, and the Docker Engine's machine has {processors}.",
            hint=f"Set it to at most {processors}.",
        )
    if 0 < memory < profile.memory:
        raise IsolationUnmetError(
            f"ORCHESTRATOR_SANDBOX_MEMORY is {profile.memory // MIB} MiB, and the Docker Engine's machine has "
            f"{memory // MIB} MiB.",
            hint="Set it to what one sandbox may take of that.",
        )
