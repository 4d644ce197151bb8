"""The audit: who did what, when, and what it took. It only grows, and gets old. The port's docstrings are its contract.

Of every execution there are two entries: that it begins, written before anything runs, and how it ended, which names
the first. One without its second was cut short with the orchestrator. A session's call that ended before it had its row
has the second alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

Act = Literal[
    "begin",  # an execution
    "execute",
    "refuse",  # calls that a quota has kept from being carried out: how many since the last such entry
    "interrupt",
    "clear",
    "delete",
    "save",
    "roll back",
    "fork",
    "export",
    "import",
    "trust signer",
    "distrust signer",
    "create tenant",
    "change tenant",
    "create key",
    "rotate key",
    "revoke key",
    "hibernate",
    "wake",
    "delete tenant",
    "reap",
    "between",  # a sandbox has taken processor time after its last answer: threads and processes that cells left
    "back up",
    "vacuum",
    "kill container",
]
NOBODY: Final = "-"  # in place of a key: no call did it
CodeKept = Literal["hash", "text", "nothing"]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What is written. Nothing in it opens anything: keys are named by their prefix."""

    act: Act
    tenant: str  # whose sessions or keys it was about
    key: str  # of who did it
    session: str | None = None  # by the tenant's name for it; None for a stateless call, too
    incarnation: int | None = None
    execution: int | None = None  # its number in the session
    begun: int | None = None  # the entry that says that it begins
    code_hash: str | None = None  # SHA-256
    code: str | None = None
    outcome: str | None = None  # of an execution as in its answer, or `ok`, or an error's code
    duration: float | None = None  # seconds
    cpu: float | None = None  # seconds
    memory_peak: int | None = None  # bytes
    bytes_out: int | None = None
    limits: tuple[str, ...] = ()  # that were met
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What stands there."""

    id: int  # rises with every entry
    at: datetime
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries are wanted: all that are like everything that is given."""

    tenant: str | None = None
    key: str | None = None
    session: str | None = None
    act: Act | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Consumption:
    """What an execution of a tenant took, or its sandbox between two of them."""

    at: datetime
    cpu: float
    is_execution: bool


def hash_of(code: str) -> str:
    """The hash of a cell's code."""
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


class AuditRecords(Protocol):
    """Rules as for `Records`. Entries are never changed, and deleted by `trim_audit` alone; the file sees to it."""

    async def append_audit(self, entries: Sequence[AuditEntry]) -> Sequence[int]:
        """Write them, all as of now: their ids."""

    async def audit(self, query: AuditQuery, *, after: int = 0, limit: int = 500) -> Sequence[AuditRecord]:
        """A page of them, oldest first."""

    async def newest_audit(self, query: AuditQuery, *, limit: int) -> Sequence[AuditRecord]:
        """The newest of them, oldest first."""

    async def consumption(self, tenant: str, since: datetime) -> Sequence[Consumption]:
        """What that tenant's executions have taken that ended since then, oldest first."""

    async def trim_audit(self, before: datetime, *, limit: int = 1000) -> bool:
        """Delete at most so many that are older; whether there may be more."""
