"""What should not be there: states between two others that nobody leads out of, and things that belong to nobody. Pure.

Each has its deadline, counted from when this process first saw it as it is. So nothing is judged right after a start,
no clock but ours is asked, and whatever moves meanwhile is left alone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from orchestrator.domain.lifecycle import ASLEEP
from orchestrator.domain.model import SandboxState, SessionState
from orchestrator.domain.ports import CREATE_BOUND, OwnedContainer

# Deadlines, in seconds: beyond every bound of what may be under way.
UNSERVED: Final = 600.0  # a session that is to have a sandbox, and that nobody here serves
UNFINISHED_DELETE: Final = 120.0
OPEN_EXECUTION: Final = 600.0  # of a session in which nothing runs
ANOTHERS_SANDBOX: Final = 3 * CREATE_BOUND  # a row that an earlier owner has made
SANDBOX_STARTING: Final = 15 * CREATE_BOUND
SANDBOX_UNWANTED: Final = 300.0
CONTAINER: Final = 2 * CREATE_BOUND
CONTAINER_OF_OURS: Final = 15 * CREATE_BOUND  # such as one of a probe
FILE: Final = 600.0


@dataclass(frozen=True, slots=True)
class SessionBetween:
    """A session's row in a state that should soon be another."""

    key: str
    tenant: str
    session_id: str
    state: SessionState
    incarnation: int


@dataclass(frozen=True, slots=True)
class OpenExecution:
    """An execution that has not ended, by the records."""

    key: str
    tenant: str
    session_id: str
    number: int


@dataclass(frozen=True, slots=True)
class HeldSandbox:
    """A sandbox's row, and what the session says that it serves."""

    id: str
    state: SandboxState
    session: str | None
    incarnation: int
    session_state: SessionState | None  # None: there is no such session
    session_incarnation: int | None

    @property
    def wanted(self) -> bool:
        """Whether its session still is with it."""
        serves = self.session_state not in {None, SessionState.DESTROYING, *ASLEEP}
        return serves and self.session_incarnation == self.incarnation


@dataclass(frozen=True, slots=True)
class UnknownContainer:
    """A container that no row names."""

    sandbox_id: str
    launched_here: bool


@dataclass(frozen=True, slots=True)
class UnknownFile:
    """A file of snapshots that no session has."""

    key: str


Stray = SessionBetween | OpenExecution | HeldSandbox | UnknownContainer | UnknownFile


@dataclass(frozen=True, slots=True)
class Facts:
    """What the records, the engine and the disk hold, and what this process has in hand of it."""

    between: Collection[SessionBetween] = ()
    open_executions: Collection[OpenExecution] = ()
    sandboxes: Collection[HeldSandbox] = ()
    containers: Collection[OwnedContainer] = ()
    unknown_files: Collection[str] = ()  # keys that no session has
    in_use: AbstractSet[str] = frozenset()  # keys of sessions that have a sandbox here, or calls
    busy: AbstractSet[str] = frozenset()  # of these, those in which a call runs or waits
    ending: AbstractSet[str] = frozenset()  # keys of sessions that are being deleted here
    ours: AbstractSet[str] = frozenset()  # sandboxes that this process has made
    removing: AbstractSet[str] = frozenset()  # sandboxes that it is removing


@dataclass(frozen=True, slots=True)
class Mend:
    """Have the session's record say what is: no sandbox, its loss told, no execution open."""

    key: str
    tenant: str
    session_id: str
    why: str


@dataclass(frozen=True, slots=True)
class FinishDelete:
    """Remove what a deleted session has left."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """End that sandbox, and close its row, unless that is not as it was seen any more."""

    sandbox: HeldSandbox
    why: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove a container that has no row."""

    sandbox_id: str
    why: str


@dataclass(frozen=True, slots=True)
class SetAside:
    """Move a file of no session out of the way; it is kept for a month."""

    key: str
    why: str


Sweep = Mend | FinishDelete | RemoveSandbox | RemoveContainer | SetAside


@dataclass(frozen=True, slots=True)
class Sightings:
    """Since when what was seen has been as it is, on the monotonic clock."""

    since: Mapping[Stray, float] = field(default_factory=dict)

    def next(self, now: float, strays: Iterable[Stray]) -> "Sightings":
        """One look on: what is not there any more, or not as it was, is forgotten."""
        return Sightings({stray: self.since.get(stray, now) for stray in strays})


def strays_in(facts: Facts) -> Iterator[Stray]:
    """What is nobody's of all that, whether for long or for a moment."""
    # A deleted session keeps its file until its sandbox is gone.
    handled = facts.ending | {held.session for held in facts.sandboxes}
    for session in facts.between:
        if session.key not in (handled if session.state is SessionState.DESTROYING else facts.in_use):
            yield session
    yield from (execution for execution in facts.open_executions if execution.key not in facts.busy)
    yield from (held for held in facts.sandboxes if held.id not in facts.removing and not _serves(held))
    rows = {held.id for held in facts.sandboxes}
    for container in facts.containers:
        if container.sandbox_id not in rows and container.sandbox_id not in facts.removing:
            yield UnknownContainer(container.sandbox_id, container.launched_here)
    yield from (UnknownFile(key) for key in facts.unknown_files if key not in facts.ending)


def plan_strays(now: float, sightings: Sightings, ours: AbstractSet[str], longest_call: float) -> Iterator[Sweep]:
    """What has been so for too long. `longest_call` is how long a stateless call may take, in seconds."""
    for stray, since in sightings.since.items():
        seconds = now - since
        if seconds >= _deadline(stray, ours, longest_call):
            yield _action(stray, f"for {seconds:.0f} s")


def _serves(held: HeldSandbox) -> bool:
    return held.state is SandboxState.CLAIMED and held.session is not None and held.wanted


def _deadline(stray: Stray, ours: AbstractSet[str], longest_call: float) -> float:
    if isinstance(stray, SessionBetween):
        return UNFINISHED_DELETE if stray.state is SessionState.DESTROYING else UNSERVED
    if isinstance(stray, OpenExecution):
        return OPEN_EXECUTION
    if isinstance(stray, HeldSandbox):
        return _sandbox_deadline(stray, is_ours=stray.id in ours, longest_call=longest_call)
    if isinstance(stray, UnknownContainer):
        return CONTAINER_OF_OURS if stray.launched_here else CONTAINER
    return FILE


def _sandbox_deadline(held: HeldSandbox, *, is_ours: bool, longest_call: float) -> float:
    if not is_ours:
        return ANOTHERS_SANDBOX
    if held.state is SandboxState.CREATING:
        return SANDBOX_STARTING
    if held.state is SandboxState.CLAIMED and held.session is None:
        return longest_call + SANDBOX_UNWANTED
    return SANDBOX_UNWANTED


def _action(stray: Stray, how_long: str) -> Sweep:
    if isinstance(stray, SessionBetween):
        if stray.state is SessionState.DESTROYING:
            return FinishDelete(stray.key, f"its delete has not ended {how_long}")
        return Mend(stray.key, stray.tenant, stray.session_id, f"{stray.state} {how_long}, and nobody serves it")
    if isinstance(stray, OpenExecution):
        why = f"execution {stray.number} is open {how_long}, and nothing runs"
        return Mend(stray.key, stray.tenant, stray.session_id, why)
    if isinstance(stray, HeldSandbox):
        return RemoveSandbox(stray, f"{stray.state} {how_long}, and nobody needs it")
    if isinstance(stray, UnknownContainer):
        return RemoveContainer(stray.sandbox_id, f"no row names it {how_long}")
    return SetAside(stray.key, f"no session has it {how_long}")
