"""Which state may follow which. Data: the store builds its guarded updates from it, tests walk every pair.

No row for a change means that it is refused. `None` stands for "no row": before creation and after the end.
"""

from collections.abc import Mapping

from orchestrator.domain.model import SandboxState, SessionState

_S, _B = SessionState, SandboxState

SESSION_TRANSITIONS: Mapping[SessionState | None, frozenset[SessionState | None]] = {
    # A session without a sandbox is made first; its first call makes the sandbox, as every wake does.
    None: frozenset({_S.HIBERNATED}),
    _S.CREATING: frozenset({_S.READY, _S.HIBERNATED, _S.DESTROYING}),
    # Back to creating: its sandbox was lost and the next call makes another.
    _S.READY: frozenset({_S.CREATING, _S.SNAPSHOTTING, _S.HIBERNATED, _S.DESTROYING}),
    # Back to ready: a call came in. Never straight to creating: a sandbox that is lost meanwhile is told as a loss
    # first, which goes with the change to hibernated.
    _S.SNAPSHOTTING: frozenset({_S.READY, _S.HIBERNATED, _S.DESTROYING}),
    _S.HIBERNATED: frozenset({_S.CREATING, _S.INACTIVE, _S.EXPIRED, _S.DESTROYING}),
    # Back to hibernated: it was used without being woken, such as cleared.
    _S.INACTIVE: frozenset({_S.CREATING, _S.HIBERNATED, _S.EXPIRED, _S.DESTROYING}),
    _S.EXPIRED: frozenset({_S.CREATING, _S.HIBERNATED, _S.DESTROYING}),
    # Back to expired: a call came while its age was ending it, and before anything of it was removed.
    _S.DESTROYING: frozenset({None, _S.EXPIRED}),
}

# No sandbox, and the next call makes one: the three differ by how long nobody has used the session, in nothing else.
ASLEEP = frozenset({_S.HIBERNATED, _S.INACTIVE, _S.EXPIRED})

SANDBOX_TRANSITIONS: Mapping[SandboxState | None, frozenset[SandboxState | None]] = {
    None: frozenset({_B.CREATING}),
    _B.CREATING: frozenset({_B.UNCLAIMED, _B.FAILED, _B.DESTROYING}),
    _B.UNCLAIMED: frozenset({_B.CLAIMED, _B.FAILED, _B.DESTROYING}),
    _B.CLAIMED: frozenset({_B.FAILED, _B.DESTROYING}),
    # A create that timed out can still appear: failed goes through destroying, never straight to gone.
    _B.FAILED: frozenset({_B.DESTROYING}),
    _B.DESTROYING: frozenset({None}),
}


def session_sources(target: SessionState) -> frozenset[SessionState]:
    """The states from which a session may change to `target`."""
    return frozenset(s for s, targets in SESSION_TRANSITIONS.items() if s is not None and target in targets)


def sandbox_sources(target: SandboxState) -> frozenset[SandboxState]:
    """The states from which a sandbox may change to `target`."""
    return frozenset(s for s, targets in SANDBOX_TRANSITIONS.items() if s is not None and target in targets)
