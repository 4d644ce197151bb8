"""What the MCP tools answer, as schemas: the field descriptions are read by models."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.domain.errors import Code


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Failure(_Answer):
    """Why a call did not succeed."""

    code: Code
    """What kind of failure, such as exception, timeout, busy, not_found."""
    type: str | None = None
    """Class of the Python exception, where one was raised."""
    message: str
    """What happened."""
    traceback: str | None = None
    """Python's traceback, where one was raised."""
    hint: str | None = None
    """What to do next."""


class DisplayEntry(_Answer):
    """Something that the code displayed; a figure's pixels come as image content beside this object."""

    index: int
    """Its place among the displays, from 1."""
    mime: str
    """What it is, such as image/png."""
    bytes: int
    """Its size."""
    inline: bool
    """Whether it is attached to this result as image content."""


class ResumedFromEntry(_Answer):
    """Where a session goes on after a call that has cost its process or its container."""

    rung: Literal["savepoint", "snapshot", "new_sandbox"]
    """`savepoint`: a copy in the container took over; `snapshot`: what was saved comes back, beside the files as they
    are; `new_sandbox`: what was saved comes back into a new container, files included."""
    execution: int | None
    """The last execution whose effects on the namespace are there; 0: as the session began; null: the namespace is
    empty."""


class ReplAnswer(_Answer):
    """What became of one piece of code."""

    status: Literal["ok", "error"]
    """`error` if the code failed or was not run; `error` then says why."""
    output: str = ""
    """What the code printed, standard output and error in their order."""
    truncated: bool = False
    """Whether the middle of the output was left out."""
    output_bytes: int = 0
    """Size of the whole output, before anything was left out."""
    value: str | None = None
    """Repr of the last expression, as in a notebook."""
    displays: list[DisplayEntry] = []
    """Figures and other displays."""
    error: Failure | None = None
    """Why it failed; null if it did not."""
    execution: int | None = None
    """Number of this execution in its session; null for a stateless call and for code that was not run."""
    duration_ms: float | None = None
    """Milliseconds that the code ran; null if it was not run."""
    session_id: str | None = None
    """The session; null for a stateless call."""
    bound: list[str] = []
    """Names that the code bound anew or to another object."""
    removed: list[str] = []
    """Names that are gone."""
    saved_through: int | None = None
    """The last execution whose effects are saved beyond the container; null if none yet. Saving happens by itself soon
    after a call, so this usually is an earlier execution than this one."""
    resumed_from: ResumedFromEntry | None = None
    """Where the session goes on, if this call has cost its process or its container; else null. Executions after that
    one are lost."""
    memory_peak_bytes: int | None = None
    """Memory that the container used at most while the code ran, its files included; null where it is not known."""
    state: str | None = None
    """State of the session after the call, as python_list_sessions has it; null for a stateless call."""
    expires_at: str | None = None
    """ISO 8601, UTC: when the session expires at the earliest, if nobody uses it; null: never, or a stateless call."""
    notes: list[str] = []
    """What else the caller should know: what was lost, what cannot be saved and why, what did not come back."""


class VariableEntry(_Answer):
    """A name that the session's code bound."""

    name: str
    type: str
    """Name of its class."""
    size_bytes: int | None
    """Its size in memory, or as it is saved where the session is not awake; null where it is not known."""


class ImportEntry(_Answer):
    """A module under the name that the session's code gave it."""

    name: str
    type: str


class VariablesAnswer(_Answer):
    """What a session's namespace holds; a session that sleeps or is busy is described from what is known of it."""

    status: Literal["ok", "error"] = "ok"
    error: Failure | None = None
    """Why the listing failed; null if it did not."""
    session_id: str | None = None
    variable_count: int = 0
    """All variables; imported modules and names with a leading underscore are not counted."""
    variables: list[VariableEntry] = []
    imports: list[ImportEntry] = []
    """Imported modules."""
    notes: list[str] = []
    """What cannot be saved and why, what was lost, and how current the listing is."""


class SessionEntry(_Answer):
    """A session of this caller."""

    session_id: str
    created_at: str
    """ISO 8601, UTC."""
    variable_count: int
    """As of its last answer."""
    total_executions: int
    state: str
    """`ready`: its container is up; `snapshotting`: it is being saved before the container is removed; `hibernated`: it
    sleeps without one, and the next call wakes it; `inactive`: the same, unused for days; `creating`: a container is
    being made for it, or it is being woken. It can be used in every state."""
    last_used_at: str
    """ISO 8601, UTC."""
    expires_at: str | None = None
    """ISO 8601, UTC: if nobody uses it, the session expires then, or somewhat later: it is not listed any more, and
    deleted a day after that unless a call comes. Null if it never does."""
    saved_through: int | None = None
    """The last execution whose effects are saved beyond the container; null if none yet."""


class SessionsAnswer(_Answer):
    """All sessions of this caller, oldest first."""

    status: Literal["ok", "error"] = "ok"
    error: Failure | None = None
    """Why the listing failed; null if it did not."""
    session_count: int = 0
    sessions: list[SessionEntry] = []
    notes: list[str] = []


class ClearAnswer(_Answer):
    """What became of a request to empty a session."""

    status: Literal["ok", "error"] = "ok"
    error: Failure | None = None
    """Why nothing was cleared; null if it was."""
    session_id: str | None = None
    cleared: bool = False
    """Whether the session is empty now; its files are kept."""


class DeleteAnswer(_Answer):
    """What became of a request to delete a session."""

    status: Literal["ok", "error"] = "ok"
    error: Failure | None = None
    """Why nothing was deleted; null if it was."""
    session_id: str | None = None
    deleted: bool = False
    """Whether the session is gone now, its files included."""
