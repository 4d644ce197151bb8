"""The nouns of snapshots: what an agent sends, what the host keeps of it, and what can go wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal

from orchestrator.domain.errors import Code, OrchestratorError

MAX_PIECE_BYTES = 1024 * 1024  # of the session's bytes, and of what is stored for them


class Encoding(StrEnum):
    """How a piece's bytes are stored; the agent decides, and the host never decodes."""

    RAW = "raw"
    ZSTD = "zstd"


NameKind = Literal["module", "code", "value"]
NameStatus = Literal["saved", "unrehearsed", "refused"]  # unrehearsed: saved, and nobody tried to load it
FileKind = Literal["file", "directory", "link"]

NAME_KINDS: tuple[NameKind, ...] = ("module", "code", "value")
NAME_STATUSES: tuple[NameStatus, ...] = ("saved", "unrehearsed", "refused")
FILE_KINDS: tuple[FileKind, ...] = ("file", "directory", "link")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a session's bytes, as an agent sends and receives it."""

    raw_digest: str  # 32 hexadecimal characters: the agent's seeded digest of the bytes before encoding; a claim
    raw_size: int  # a claim
    encoding: Encoding
    data: bytes  # encoded


@dataclass(frozen=True, slots=True)
class DamagedPiece:
    """A piece that is refused when it is read back; what needed it cannot be restored."""

    raw_digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class PieceReference:
    """What a stored manifest says of one piece."""

    raw_digest: str
    host_digest: str  # 32 hexadecimal characters: the host's own, of the stored bytes, under a seed of this session
    raw_size: int
    stored_size: int
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class SavedName:
    """A name of the namespace at the time of the snapshot; all of it claims, capped and cleaned."""

    name: str
    kind: NameKind
    type: str
    size_bytes: int | None  # None where the object would not tell
    status: NameStatus
    reason: str | None  # why it was refused
    excerpt: str | None  # of the last cell after which the name was bound to another object; for refused names
    digest: str | None  # of the bytes of its group: equal digests are equal contents; None where refused


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of the workspace at the time of the snapshot; all of it claims."""

    path: str
    kind: FileKind
    size_bytes: int
    execution: int  # the last one before its content was read
    digest: str | None


@dataclass(frozen=True, slots=True)
class Section:
    """Half of a snapshot, restored by the agent from its own opaque body and the pieces that this refers to."""

    body: bytes = b""
    pieces: tuple[str, ...] = ()  # raw digests, each once, in the order in which a restore wants them


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an agent says that a snapshot holds. Namespace and files apart, so that clearing one leaves the other."""

    sequence: int
    incarnation: int
    execution: int  # the last one whose effects it holds
    environment: str  # digest
    python: str  # such as 3.11
    files_execution: int = 0  # the last one before the files were read; lower where they were given up
    names: tuple[SavedName, ...] = ()
    unlisted_names: int = 0  # saved or refused beyond those
    files: tuple[SavedFile, ...] = ()
    unlisted_files: int = 0
    namespace: Section = Section()
    workspace: Section = Section()


@dataclass(frozen=True, slots=True)
class SnapshotIntent:
    """The one snapshot that may become a session's next head, as the records have it."""

    key: str  # of the session
    sequence: int  # higher than every one before
    incarnation: int
    execution: int  # the last one opened; the snapshot holds this one or an earlier one
    activity: int  # the session's when it was intended, so what its commit will cover
    head: int | None  # the head's sequence then: what it may share pieces with
    replaces: bool  # rollback, clear, import: nothing older may come back by itself
    seed: int = field(repr=False)  # the session's, for the agent's raw digests


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """One line of a session's history."""

    sequence: int
    incarnation: int
    execution: int
    environment: str
    python: str
    created_at: datetime
    names: int
    refused: int
    raw_bytes: int
    stored_bytes: int  # of all its pieces, those shared with other snapshots too
    new_bytes: int  # of them, stored for this snapshot
    seed: int = field(repr=False)  # of its raw digests: a restore needs it, and it is another session's after a fork


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A committed snapshot; its bodies are digest-checked, its pieces are checked when they are read."""

    summary: SnapshotSummary
    manifest: Manifest
    references: tuple[PieceReference, ...]  # of both sections, each once, the namespace's first


@dataclass(frozen=True, slots=True)
class History:
    """A session's snapshots up to its head, newest first."""

    snapshots: tuple[SnapshotSummary, ...]
    damaged: tuple[int, ...]  # sequences whose manifests were refused


@dataclass(frozen=True, slots=True)
class Collected:
    """What one bounded step of collecting did."""

    pieces: int
    bytes_freed: int  # of pieces that nothing refers to
    bytes_returned: int  # by which the file became shorter
    more: bool  # another step would find work


@dataclass(frozen=True, slots=True)
class StoredSizes:
    """What a session's snapshots take, in bytes."""

    file: int  # on disk
    pieces: int  # of them, stored pieces
    unreferenced: int  # of these, waiting to be collected
    free: int  # of the file, pages waiting for the next snapshot or to be returned


@dataclass(frozen=True, slots=True)
class SnapshotCheck:
    """What `check` found: a sentence for each problem, none when all is well."""

    snapshots: int
    pieces: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """What the records say of a session's snapshots."""

    session: str
    sequence: int  # the last one that was intended, given out or voided
    intended: SnapshotIntent | None  # begun, and neither committed nor voided
    head: int | None  # the committed one that a wake restores
    head_execution: int  # `saved_through`: the last execution that the head holds; 0 without a head
    head_activity: int  # what the head covers
    since: int  # nothing below this sequence comes back by itself
    seed: int | None = field(default=None, repr=False)  # the session's, for raw digests; None: not looked up
    renewed: int = 0  # snapshots up to this sequence may have been made under an earlier seed


@dataclass(frozen=True, slots=True)
class SavedListing:
    """What the head holds, for listings that touch no file and wake nobody."""

    execution: int
    python: str
    names: Sequence[SavedName]
    unlisted: int


@dataclass(frozen=True, slots=True)
class SaveOrder:
    """What an agent is told to save. Sizes in bytes, times in seconds."""

    intent: SnapshotIntent
    environment: str
    head: int | None  # whose raw digests need not be sent: the intent's, where they were made under its seed
    variable_limit: int
    session_limit: int
    compress: bool  # off while somebody waits: it halves the speed
    final: bool  # nothing else goes on once the moment is frozen: the sandbox is about to be removed
    hold: float  # that a cell may be kept waiting while files are read
    bound: float  # for all of it
    most_bytes: int  # that the host takes of it: the agent is a suspect, and is not told


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What an agent says that a save made, once all its pieces have come."""

    manifest: Manifest
    files_read: bool  # False: a cell waited, so the manifest has no files and the head's stand
    cpu_seconds: float  # what the save took of the processor; a claim
    remarks: tuple[tuple[str, str], ...]  # (name, what is lost although it is saved)
    cpu_since: float = 0.0  # before a sleep: what the sandbox took of the processor since its last answer; a claim


SectionName = Literal["workspace", "namespace"]


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """One section of a snapshot that an agent is to bring back. `bound` in seconds, for each group of values."""

    sequence: int
    section: SectionName
    body: bytes
    seed: int  # of the snapshot's raw digests
    bound: float
    quarantined: Mapping[int, str] = field(default_factory=dict)  # groups that are not to be tried, and why
    careful: int = 0  # 1: nothing that was not tried when it was saved; 2: nothing but plain values


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came back of a section, and what did not; all of it claims."""

    restored: int = 0  # names or files
    lost: tuple[tuple[str, str], ...] = ()  # (name or path, why)
    state_lost: tuple[tuple[str, str], ...] = ()  # (part of the process's state, why)
    crashed: tuple[int, str] | None = None  # the group that ended the worker: to be asked again without it
    killed: bool = False  # it was a SIGKILL, which may have come from outside: the group may be innocent


class SaveFailedError(OrchestratorError):
    """Nothing was saved; the head stays what it was, and trying again later may help."""

    retryable: ClassVar[bool] = True


class SnapshotNotFoundError(OrchestratorError):
    """No such snapshot: never made, gone from the history, or its session was deleted."""

    code: ClassVar[Code] = "not_found"


class SnapshotDamagedError(OrchestratorError):
    """What was stored is not what is read."""

    code: ClassVar[Code] = "store_unusable"


class SnapshotVoidedError(OrchestratorError):
    """Something newer came first: another snapshot, a rollback, a clear or a delete. Nothing became visible."""


class SnapshotRefusedError(OrchestratorError):
    """An agent's manifest does not fit what it was asked for, or refers to pieces that it has not sent.

    `missing` are raw digests; an agent that is told of no head sends everything.
    """

    def __init__(self, message: str, *, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
