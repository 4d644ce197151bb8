"""What services need of the outside. Each docstring is the contract: who calls, concurrency, idempotence, errors.

Every method may be cancelled at any await; what it then leaves behind is said here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from orchestrator.domain.model import (
    CellOrder,
    CellReport,
    ExecutionRecord,
    Loss,
    Namespace,
    Outcome,
    SandboxRecord,
    SandboxState,
    Session,
)


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC; may jump."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; for durations and deadlines."""


# Seconds: a create that nobody waits for any more can still succeed; after this long it is taken to have failed.
CREATE_BOUND: Final = 60.0


# --- the engine --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SandboxImage:
    """An image that sandboxes start from."""

    tag: str
    environment: str  # digest of the environment in it
    agent: str  # digest of the agent in it
    python: str  # such as 3.11


@dataclass(frozen=True, slots=True)
class OwnedContainer:
    """A container with this installation's label, in whatever state."""

    handle: str
    sandbox_id: str
    running: bool
    created: datetime
    launched_here: bool  # by this very process, which is also how its probes are known


@dataclass(frozen=True, slots=True)
class AgentHello:
    """What an agent said when it proved itself."""

    agent: str
    python: str
    incarnation: int
    last_execution: int
    running: int | None


class Agent(Protocol):
    """A live, proven connection to one sandbox's agent, kept up across lost channels.

    Calls may run concurrently; each is bounded by the adapter's own time-outs. All raise SandboxLostError once the
    sandbox is known to be gone or has broken the protocol. Cancelling a call stops the waiting, not the work.
    """

    @property
    def hello(self) -> AgentHello:
        """The first hello."""

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone, in a clause such as 'its container was removed'; None while it lives."""

    async def claim(self, session: str, incarnation: int) -> None:
        """Bind the sandbox to a session, once; the same again is harmless, another raises SandboxLostError."""

    async def execute(self, order: CellOrder) -> CellReport:
        """Run a cell and wait for its report, at most its limit, its grace and a margin."""

    def interrupt(self, execution: int) -> None:
        """Ask for SIGINT to that execution if it runs; returns at once, and is repeated after a reconnect."""

    async def list_variables(self) -> Namespace:
        """Describe the namespace; between cells only. Answers in a few seconds whatever the objects do."""

    async def clear(self) -> None:
        """Kill all that the session runs and start from an empty namespace; workspace files stay."""

    async def close(self) -> None:
        """Let go of the connection; the sandbox is not destroyed by this. Idempotent."""


class Engine(Protocol):
    """What runs sandboxes. It holds no truth: the records do.

    Raises EngineUnavailableError where the engine does not answer, refuses, or lacks the image; every call is bounded.
    Calls may run concurrently.
    """

    async def prepare(self) -> SandboxImage:
        """The image for new sandboxes, after making sure that the engine answers; cheap when it was asked before."""

    async def launch(self, record: SandboxRecord, image: SandboxImage) -> tuple[str, Agent]:
        """Create and start the record's container and wait for its agent's hello: (handle, agent).

        A second launch of one record is a conflict, never a twin. When it fails or is cancelled, a container may
        exist or still appear: the caller marks the record and calls `destroy`.
        """

    async def destroy(self, sandbox_id: str) -> None:
        """Remove the sandbox's container and its channel's directory; done when the engine has forgotten it.

        Idempotent; absent is success. Waits out a create of ours that is in flight, up to CREATE_BOUND.
        """

    async def containers(self) -> Sequence[OwnedContainer]:
        """All containers with this installation's label."""

    async def close(self) -> None:
        """Let go of connections and threads; sandboxes stay. Cancelled, it waits for no engine first. Idempotent."""


# --- the records -------------------------------------------------------------------------------------------------


class Records(Protocol):
    """The truth about sessions, sandboxes and executions.

    Each method is one transaction: committed when it returns, and atomic under cancellation (it has happened whole or
    not at all; a cancelled caller looks again). Calls may run concurrently; writes are serial. Every session method
    names the tenant where it takes a caller's session id; methods that take a key are for the worker that found it.
    Guarded changes return None or False where the row is not in a state, or of an incarnation, that allows them
    (domain/lifecycle.py): the caller then refuses or looks again. Raises StoreFullError where the disk is full,
    StoreUnusableError where the records can't be read, ShuttingDownError after `close`.
    """

    @property
    def installation(self) -> str:
        """This data directory's own id: 32 hexadecimal characters, made once."""

    async def remembered(self, key: str) -> str | None:
        """What was last noted under `key`, for answers that are dear to find out."""

    async def remember(self, key: str, value: str) -> None:
        """Note it."""

    # sessions

    async def find_session(self, tenant: str, session_id: str) -> Session | None:
        """The session of that name, unless it is being destroyed."""

    async def ensure_session(self, tenant: str, session_id: str, environment: str) -> Session:
        """That session; made in state `hibernated`, incarnation 0, with nothing in it, where there is none."""

    async def sessions(self, tenant: str) -> Sequence[Session]:
        """All sessions of a tenant that are not being destroyed, oldest first."""

    async def all_sessions(self) -> Sequence[Session]:
        """All sessions of all tenants in every state, for recovery and shutdown."""

    async def begin_creating(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `creating`; raises the incarnation by one and returns the row."""

    async def session_ready(self, key: str, incarnation: int) -> Session | None:
        """Guarded change from `creating` to `ready`."""

    async def session_hibernated(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `hibernated`, after a failed create or when its sandbox is gone."""

    async def session_destroying(self, key: str) -> bool:
        """Guarded change to `destroying`: the name is free from now on. False where it was already."""

    async def delete_session(self, key: str) -> None:
        """Close the row of a session in `destroying`, with its ledger and cells. Idempotent."""

    async def namespace_lost(self, key: str, incarnation: int, cause: str, *, before: int | None = None) -> Loss | None:
        """Record that the namespace of this incarnation is gone; call it before the incarnation is raised.

        The loss spans the executions from `namespace_since` to the last one, with the names that they bound and did
        not remove since. It is one where there is such a name, or where an execution is open, since nobody knows
        what that one bound. It stays `untold_loss` until `loss_told`, joined with one that was untold before.
        Returns what is untold now; None where there is nothing to tell, or the incarnation is another. The next
        execution begins a new namespace; the variable count becomes 0. With `before`, the namespace went before that
        execution, still open, began: it is not in the loss, and the first of the new namespace.
        """

    async def loss_told(self, key: str) -> None:
        """The caller has been told; forget the untold loss."""

    async def session_cleared(self, key: str, incarnation: int) -> bool:
        """Raise `activity` and `used_at`; a new namespace begins with the next execution, which is no loss; forgets
        an untold one. Guarded: the session is of this incarnation and not being destroyed.
        """

    # executions

    async def open_execution(self, key: str, incarnation: int, code: str) -> int | None:
        """Commit an open row before the cell is sent, with its code and the session's raised `activity` and
        `used_at`: its number. Guarded: the session is `ready` and of this incarnation.
        """

    async def close_execution(
        self,
        key: str,
        number: int,
        outcome: Outcome,
        *,
        bound: Sequence[str],
        removed: Sequence[str],
        variable_count: int | None,
    ) -> None:
        """Close the row before the answer leaves, and raise `used_at`; a closed row is not changed. Names and count
        are noted only while the namespace that the execution saw is the present one; a count of None leaves the
        last one. Trims the ledger to the last 200 executions and the cells' text to the newest 10 MB.
        """

    async def executions(self, tenant: str, session_id: str, *, limit: int = 200) -> Sequence[ExecutionRecord]:
        """The newest executions of a session, newest first; empty where there is no such session."""

    async def cell(self, tenant: str, session_id: str, number: int) -> str | None:
        """The code of one execution, while it is kept."""

    # sandboxes

    async def open_sandbox(self, image: str) -> SandboxRecord:
        """A new row in `creating`, with an id, a secret, and a uid that no other row has; BusyError where none is
        left.
        """

    async def sandbox_created(self, sandbox_id: str, handle: str) -> bool:
        """Guarded change from `creating` to `unclaimed`."""

    async def sandbox_claimed(self, sandbox_id: str, session: str | None, incarnation: int) -> bool:
        """Guarded change from `unclaimed` to `claimed`, by a session or (None) a stateless call."""

    async def sandbox_ending(self, sandbox_id: str, state: SandboxState) -> bool:
        """Guarded change to `failed` or `destroying`."""

    async def close_sandbox(self, sandbox_id: str) -> None:
        """Delete the row of a sandbox in `destroying`, its container being proven absent. Idempotent."""

    async def sandboxes(self) -> Sequence[SandboxRecord]:
        """All rows."""

    # recovery

    async def recover(self, cause: str) -> int:
        """For an owner that has just taken over a data directory: no session has a sandbox any more.

        Sessions that were `creating` or `ready` become `hibernated` with their namespace lost for `cause`; open
        executions become `outcome_unknown`; sandbox rows become `destroying`; sessions in `destroying` are
        deleted. Returns how many sessions were touched.
        """

    async def close(self) -> None:
        """Finish what was begun and close the file. Idempotent."""
