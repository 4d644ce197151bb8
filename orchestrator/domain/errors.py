"""The one error tree: a stable code for programs, a sentence for people, a next step for models.

Adapters map what they catch to one of these at their edge and chain the cause. Whatever else escapes is a bug:
faces report it as `internal` and keep the detail in the log.
"""

from typing import ClassVar, Literal

Code = Literal[
    "invalid_request",  # the caller's arguments are wrong; nothing was run
    "forbidden",  # the caller's key does not allow it
    "not_found",  # no such session for this tenant, no such tenant, no such key
    "quota",  # one of the tenant's quotas is used up
    "busy",  # a bounded queue or the number of sandboxes is full; try later
    "deleted",  # the session was deleted while the call waited or ran
    "outcome_unknown",  # a call was repeated whose first run may have happened, and nobody can tell its result
    "exception",  # the cell raised; the namespace keeps what it assigned before
    "timeout",  # the cell outran its time limit
    "interrupted",  # somebody asked for the cell to stop
    "oom",  # the sandbox's memory limit killed the cell
    "crashed",  # the worker process died: a signal, os._exit, a closed channel
    "disk_full",  # the workspace inside the sandbox is full
    "sandbox_lost",  # the container is gone or broke the protocol
    "engine_unavailable",  # no Docker Engine answers, or it lacks the image
    "not_enforced",  # the engine answers, and does not enforce what a sandbox needs; nothing was run
    "store_full",  # the host's disk is full
    "store_unusable",  # the host's records can't be read: damaged, not ours, or of a newer version
    "shutting_down",  # the orchestrator is stopping
    "owned",  # another process owns the data directory
    "internal",  # a bug of ours
]


class OrchestratorError(Exception):
    """What the orchestrator raises on purpose.

    `message` says what happened in one sentence, `hint` says what to do next (None where nothing can be done),
    `retryable` tells whether the same call may succeed later without a change.
    """

    code: ClassVar[Code] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidRequestError(OrchestratorError):
    """The caller's arguments are wrong; nothing was run."""

    code = "invalid_request"


class PermissionDeniedError(OrchestratorError):
    """The caller is known, and may not do this."""

    code = "forbidden"


class NotFoundError(OrchestratorError):
    """No such thing as the caller named; a session has an error of its own."""

    code = "not_found"


class SessionNotFoundError(OrchestratorError):
    """No such session for this tenant: absent and not-yours are the same answer."""

    code = "not_found"


class ContainerNotFoundError(OrchestratorError):
    """No container of this installation is called so."""

    code = "not_found"


class BusyError(OrchestratorError):
    """A bounded resource is full."""

    code = "busy"
    retryable = True


class QuotaError(OrchestratorError):
    """One of the tenant's quotas is used up: `quota` names it, `used` and `limit` are in its `unit`.

    `frees_in` is in seconds, where time alone frees it; else the hint says what does.
    """

    code = "quota"

    def __init__(
        self,
        message: str,
        *,
        quota: str,
        used: float,
        limit: float,
        unit: str,
        frees_in: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.quota = quota
        self.used = used
        self.limit = limit
        self.unit = unit
        self.frees_in = frees_in


class OutcomeUnknownError(OrchestratorError):
    """The call was made before, and what became of it then cannot be told; it was not run again.

    `execution` is its number in the session, where it is known.
    """

    code = "outcome_unknown"

    def __init__(self, message: str, *, execution: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.execution = execution


class SessionDeletedError(OrchestratorError):
    """The session was deleted while the call waited for it or ran in it."""

    code = "deleted"


class SandboxLostError(OrchestratorError):
    """The sandbox is gone, unreachable, or broke the protocol and was killed."""

    code = "sandbox_lost"
    retryable = True


class SandboxGoneError(SandboxLostError):
    """A sandbox could not be reached: it does not live, or does not answer. `cause` is a clause that says why."""

    def __init__(self, message: str, *, cause: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class NamespaceLostError(OrchestratorError):
    """The worker that held the namespace is gone while its sandbox lives; nothing was run. `cause` is a clause.

    `resumed` is the execution after which the copy was forked that has taken over; None: the namespace must be given
    back.
    """

    code = "sandbox_lost"
    retryable = True

    def __init__(self, message: str, *, cause: str, resumed: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause
        self.resumed = resumed


class EngineUnavailableError(OrchestratorError):
    """No engine answers, it refuses us, or it lacks what a sandbox needs."""

    code: ClassVar[Code] = "engine_unavailable"
    retryable = True


class ImageGoneError(EngineUnavailableError):
    """The image was there when it was looked for, and is not now; `Engine.prepare` looks anew."""


class NotEnforcedError(EngineUnavailableError):
    """The engine does not enforce a protection that is required and was not allowed to be missing; nothing was run."""

    code = "not_enforced"
    retryable = False


class StoreFullError(OrchestratorError):
    """The host's disk has no room for a record."""

    code = "store_full"
    retryable = True


class StoreUnusableError(OrchestratorError):
    """The host's records can't be opened or read: damaged, not ours, or written by a newer version."""

    code = "store_unusable"


class StoreUnreachableError(StoreUnusableError):
    """What is stored may be whole, and cannot be reached now: a disk, a permission, too many open files."""

    retryable = True


class ShuttingDownError(OrchestratorError):
    """The orchestrator is stopping and takes no more calls."""

    code = "shutting_down"
    retryable = True


class OwnedError(OrchestratorError):
    """Another process owns the data directory."""

    code = "owned"
