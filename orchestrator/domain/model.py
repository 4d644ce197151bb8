"""The nouns of the product: what is asked for, what is answered, what is recorded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from orchestrator.domain.errors import Code

PRODUCT = "session-orchestrator"
LOCAL_TENANT = "local"


class SessionState(StrEnum):
    """Where a session is in its life; which changes are allowed stands in lifecycle.py."""

    CREATING = "creating"  # a sandbox is being made for it, its first or its next
    READY = "ready"  # a claimed sandbox serves it
    SNAPSHOTTING = "snapshotting"  # it still has its sandbox and is saved before that is removed
    HIBERNATED = "hibernated"  # it has no sandbox; the next call makes one
    INACTIVE = "inactive"  # the same, and nobody has used it for days
    EXPIRED = "expired"  # the same for weeks: not listed any more, and deleted next, where no call comes
    DESTROYING = "destroying"  # on its way out; its name is free again


class SandboxState(StrEnum):
    """Where a sandbox is in its single-use life."""

    CREATING = "creating"  # the row stands; the container may or may not exist
    UNCLAIMED = "unclaimed"  # the agent has said hello and belongs to nobody yet
    CLAIMED = "claimed"  # it serves one session, or one stateless call
    FAILED = "failed"  # never came up; its container must still be proven absent
    DESTROYING = "destroying"  # the container is being removed


Outcome = Literal["ok", "exception", "timeout", "interrupted", "oom", "crashed", "disk_full", "sandbox_lost", "deleted"]


# How a row of the ledger ends. Without an answer: the cell never began, or nobody can tell what became of it.
Ending = Outcome | Literal["never_arrived", "outcome_unknown"]


@dataclass(frozen=True, slots=True)
class Session:
    """A session's record. Times are aware and in UTC."""

    key: str  # internal id: 32 hexadecimal characters, never used again
    tenant: str
    session_id: str
    state: SessionState
    incarnation: int  # sandboxes that it has had
    activity: int  # raised by everything that may change the namespace
    executions: int  # number of the last execution
    namespace_since: int  # number of the first execution that the present namespace has seen
    untold_loss: "Loss | None"  # a namespace that went, and nobody has been told yet
    untold_notes: tuple[str, ...]  # what else nobody has been told yet
    variable_count: int  # as of the last answer
    saved_through: int  # the last execution that its head snapshot holds; 0 without one
    environment: str  # digest of the environment that it keeps
    created_at: datetime
    used_at: datetime


@dataclass(frozen=True, slots=True)
class Loss:
    """A namespace that is gone: the executions whose effects went with it (both ends included), and why."""

    first: int
    last: int
    cause: str
    names: tuple[str, ...] = ()
    unlisted: int = 0  # how many more names went, at least


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """A sandbox's row; written before its container exists, closed after the container is proven absent."""

    id: str  # internal id: 32 hexadecimal characters, part of the container's name
    state: SandboxState
    uid: int  # the user id that this container's processes run under; no other live sandbox has it
    secret: str = field(repr=False)  # 64 hexadecimal characters; proves each of the agent's connections
    image: str
    handle: str | None  # the engine's name for the container, once created
    session: str | None  # key of the session that claimed it
    incarnation: int  # 0 until claimed


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """One line of a session's ledger."""

    number: int
    incarnation: int
    outcome: Ending | None  # None while it is open
    started_at: datetime
    finished_at: datetime | None
    bound: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CellOrder:
    """What the agent is told to run. Times in seconds, sizes in bytes."""

    execution: int  # rising within a session; the supervisor never runs a number twice
    code: str
    time_limit: float  # of running, not of queueing or starting
    grace: float  # between SIGINT and SIGKILL
    output_head: int  # how much of the start of the output is kept
    output_tail: int  # and of its end
    # Is told what the cell writes while it runs: how many bytes by now, and the last of them. None: nobody asks.
    heard: "Callable[[int, str], None] | None" = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class CellText:
    """What was run and what it said, of one execution."""

    number: int
    code: str
    output: str  # as its answer showed it, capped
    output_bytes: int  # all that the cell wrote; a claim
    rest: str = ""  # all else that its answer said (domain/kept_results.py); empty where nobody has it


@dataclass(frozen=True, slots=True)
class Display:
    """Something to look at, such as a figure as `image/png`."""

    mime: str
    data: bytes


@dataclass(frozen=True, slots=True)
class CellReport:
    """What the agent says became of a cell: claims of a sandbox, capped and cleaned, not believed."""

    outcome: Outcome
    output_head: str
    output_tail: str  # what follows the head, or, where bytes were left out, the end of the output
    output_bytes: int  # all that the cell wrote
    output_left_out: int  # bytes of it that are in neither
    value: str | None
    displays: tuple[Display, ...]
    error_type: str | None
    error_message: str | None
    traceback: str | None
    bound: tuple[str, ...]
    removed: tuple[str, ...]
    variable_count: int
    duration: float  # seconds of running
    namespace_kept: bool  # False: the worker was killed; `resumed` says what stands in its place
    resumed: int | None  # after this execution a savepoint was made that has taken over (0: as restored), if one has
    memory_peak: int  # bytes that the sandbox used at most while the cell ran; 0 where not known
    notes: tuple[str, ...]
    cpu: float | None = None  # seconds of processor that the sandbox took since its last answer; None where not known


Rung = Literal["savepoint", "snapshot", "new_sandbox"]


@dataclass(frozen=True, slots=True)
class ResumedFrom:
    """Where a session stands after its worker or its sandbox was lost."""

    rung: Rung  # a copy in the sandbox; the head in a fresh worker, the files as they are; the head with its files
    execution: int | None  # the last one whose namespace is there; 0: as the session began; None: nothing is


@dataclass(frozen=True, slots=True)
class CellError:
    """Why a cell did not end well."""

    code: Code
    type: str | None  # the exception's class name, where Python raised
    message: str
    traceback: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """The answer to one `execute`."""

    status: Literal["ok", "error"]
    output: str  # stdout and stderr in their order; cut in the middle where `truncated`
    truncated: bool
    output_bytes: int  # before cutting
    value: str | None  # repr of the last expression
    displays: tuple[Display, ...]
    error: CellError | None
    execution: int | None  # None for a stateless call
    duration_ms: float
    session_id: str | None
    bound: tuple[str, ...]
    removed: tuple[str, ...]
    saved_through: int | None  # the last execution that a snapshot holds
    resumed_from: ResumedFrom | None  # where the session stands, if this call has cost its worker or its sandbox
    memory_peak: int  # bytes that the sandbox used at most meanwhile; 0 where that is not known
    notes: tuple[str, ...]
    cpu: float | None = None  # seconds of processor that the sandbox took since its last answer; None where not known
    incarnation: int | None = None  # of the session; None for a stateless call
    state: SessionState | None = None  # of the session, when the answer was made; likewise
    expires_at: datetime | None = None  # of the session, if nobody uses it; None: never, or a stateless call


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that a cell bound, as the sandbox describes it."""

    name: str
    type: str
    size_bytes: int | None  # None where the object would not tell


@dataclass(frozen=True, slots=True)
class Namespace:
    """What a session's namespace holds: variables, and modules apart."""

    variables: tuple[Variable, ...]
    imports: tuple[Variable, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One line of `list_sessions`."""

    session_id: str
    created_at: datetime
    variable_count: int
    total_executions: int
    state: SessionState
    last_used_at: datetime
    saved_through: int | None  # the last execution that its snapshot holds; None where there is none
    expires_at: datetime | None = None  # when it expires at the earliest, if nobody uses it; None: never
