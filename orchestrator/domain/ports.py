"""What services need of the outside. Each docstring is the contract: who calls, concurrency, idempotence, errors.

Every method may be cancelled at any await; what it then leaves behind is said here.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, CellReport, Namespace, SandboxRecord
from orchestrator.domain.record_ports import Records as Records  # noqa: PLC0414 - a port like these, in a file of its own
from orchestrator.domain.snapshots import DamagedPiece, Piece, RestoreOrder, RestoreReport, SaveOrder, SaveReport


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC; may jump."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; for durations and deadlines."""

    def uptime(self) -> float:
        """Seconds since the machine started, those that it slept included: what the wall clock is held against."""


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
    last_execution: int  # the highest number that it was ever told to run
    running: int | None
    last_request: int  # the highest id that any host's request ever bore


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

    @property
    def lost_to_memory(self) -> bool:
        """Whether it is gone because its memory did not suffice."""

    async def claim(self, session: str, incarnation: int) -> None:
        """Bind the sandbox to a session, once; another raises SandboxLostError. The same again is another host's: what
        the worker lacks is told by the next `execute`, whoever was told of it before.
        """

    async def execute(self, order: CellOrder) -> CellReport:
        """Run a cell and wait for its report, at most its limit, its grace and a margin.

        Raises NamespaceLostError, once, where the worker had ended since the last cell: nothing was run, and the same
        number may be ordered again, after a `restore` or without one.
        """

    async def result(self, execution: int, *, seconds: float) -> CellReport | None:
        """The report of a cell that another host has ordered: at once, or when it ends, which must be within `seconds`.
        None where the agent does not have it: it keeps that of the last cell. `interrupt` works as for `execute`.
        """

    def interrupt(self, execution: int) -> None:
        """Ask for SIGINT to that execution if it runs; returns at once, and is repeated after a reconnect."""

    async def list_variables(self) -> Namespace:
        """Describe the namespace; between cells only. Answers in a few seconds whatever the objects do.

        Raises NamespaceLostError where the present worker has neither been given the namespace back nor run a cell.
        """

    async def clear(self) -> None:
        """Kill all that the session runs and start from an empty namespace; workspace files stay."""

    async def save(self, order: SaveOrder) -> "Saving":
        """Begin a save; returns when its moment is frozen, or pieces must be taken first. One at a time.

        The order is on its way before this waits for the first time: a cell that is ordered after that runs after the
        moment, held for at most `hold` while files are read.

        Raises BusyError while a cell runs, NamespaceLostError as `list_variables` does, SaveFailedError. Cancelling
        abandons it.
        """

    async def restore(self, order: RestoreOrder, pieces: AsyncIterator[Piece | DamagedPiece]) -> RestoreReport:
        """Bring one section back, its files before its namespace, before the first cell of a worker.

        `pieces` in the snapshot's order; not all of them need be taken. Bounded by progress: it ends when neither side
        has done anything for some time. Raises SaveFailedError where it was interrupted: what is there now is not
        known then, and only a fresh sandbox or a `clear` helps; SnapshotDamagedError where the agent cannot read the
        body. Cancelled, or when `pieces` raises, it is left as if interrupted.
        """

    async def close(self) -> None:
        """Let go of the connection; the sandbox is not destroyed by this. Idempotent."""


class Saving(Protocol):
    """A save under way, of a moment that is past. For one caller."""

    def pieces(self) -> AsyncGenerator[Piece, None]:
        """The pieces that the head does not have, each once, as they come; a few are on their way at a time, so a slow
        taker slows the save down. For `aclosing`: left early, the save is abandoned. Raises SaveFailedError and
        SandboxLostError.
        """

    async def report(self) -> SaveReport:
        """What was made, after the last piece. Raises SaveFailedError and SandboxLostError."""

    def abandon(self) -> None:
        """Have the agent stop it; returns at once. Idempotent, and harmless at the end."""


class Engine(Protocol):
    """What runs sandboxes. It holds no truth: the records do.

    Raises EngineUnavailableError where the engine does not answer, refuses, or lacks the image; every call is bounded.
    Calls may run concurrently.
    """

    async def prepare(self, environment: str | None = None) -> SandboxImage:
        """The image for new sandboxes, after making sure that the engine answers; cheap when it was asked before.

        With the digest of an environment: the image of exactly that one with the current agent, which is put on it
        first (seconds) where it has an older one. Where the engine has that environment no more, or the settings name
        one image for all, another image is the answer: its `environment` tells. None: the default image. Callers who
        ask at once share the work, which goes on where one of them is cancelled. Raises BusyError, too, where another
        build takes long.
        """

    async def launch(self, record: SandboxRecord, image: SandboxImage) -> tuple[str, Agent]:
        """Create and start the record's container and wait for its agent's hello: (handle, agent).

        A second launch of one record is a conflict, never a twin. Raises ImageGoneError where the image was removed
        since `prepare`, which then looks anew. When it fails or is cancelled, a container may
        exist or still appear: the caller marks the record and calls `destroy`.
        """

    async def limit(self, sandbox_id: str, profile: SandboxProfile) -> None:
        """Give a sandbox that was launched here that memory and those cpus in place of what it was created with.

        Before it is claimed, so that no cell has run in it. Idempotent.
        """

    async def adopt(self, record: SandboxRecord) -> tuple[str, Agent]:
        """Reach a container that an earlier owner has left alive for that record, which is claimed: (the digest of its
        environment, agent). The container itself tells over which channel.

        Bounded. Raises SandboxGoneError where it does not live, is not ours, or does not answer; EngineUnavailableError
        where nobody can say, so that it may be tried again. When it fails or is cancelled, the container stays.
        """

    async def destroy(self, sandbox_id: str) -> None:
        """Remove the sandbox's container and its channel's directory; done when the engine has forgotten it.

        Idempotent; absent is success. Waits out a create of ours that is in flight, up to CREATE_BOUND.
        """

    async def create_unanswered(self, sandbox_id: str) -> bool:
        """After `destroy`: whether the engine has left a create of it without an answer, which may yet come through.

        Returns when it has come through or never will: `destroy` once more then. Asks the engine nothing.
        """

    async def containers(self) -> Sequence[OwnedContainer]:
        """All containers with this installation's label."""

    async def close(self) -> None:
        """Let go of connections and threads; sandboxes stay. Cancelled, it waits for no engine first. Idempotent."""
