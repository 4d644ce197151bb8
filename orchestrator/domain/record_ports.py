"""What the records are to services. Each docstring is the contract, as in ports.py."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.model import (
    Ending,
    ExecutionRecord,
    Loss,
    SandboxRecord,
    SandboxState,
    Session,
)
from orchestrator.domain.repeats import Repeat


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

    async def ensure_session(
        self, tenant: str, session_id: str, environment: str, *, most: int | None = None
    ) -> Session:
        """That session; made in state `hibernated`, incarnation 0, with nothing in it, where there is none. Raises
        QuotaError where it is not there and the tenant has `most` sessions already.
        """

    async def sessions(self, tenant: str) -> Sequence[Session]:
        """All sessions of a tenant that are neither expired nor being destroyed, oldest first."""

    async def all_sessions(self) -> Sequence[Session]:
        """All sessions of all tenants in every state, for recovery and shutdown."""

    async def begin_creating(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `creating`; raises the incarnation by one, and `used_at`, and returns the row."""

    async def session_ready(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `ready`: from `creating`, or from `snapshotting` where the hibernation is abandoned."""

    async def session_snapshotting(self, key: str, incarnation: int, activity: int) -> bool:
        """Guarded change from `ready` to `snapshotting`, before a hibernation: of this incarnation, its activity still
        the one that the caller saw, and no execution open. `SnapshotRecords.hibernate_saved` and `session_ready` lead
        out of it.
        """

    async def session_hibernated(self, key: str, incarnation: int) -> Session | None:
        """Guarded change to `hibernated`, after a failed create or when its sandbox is gone."""

    async def session_destroying(self, key: str) -> bool:
        """Guarded change to `destroying`: the name is free from now on. False where it was already."""

    async def delete_session(self, key: str) -> None:
        """Close the row of a session in `destroying`, with its ledger. Idempotent."""

    async def namespace_lost(
        self, key: str, incarnation: int, cause: str, *, before: int | None = None, stands_at: int | None = None
    ) -> Loss | None:
        """Record that the namespace of this incarnation is gone and the session stands at its head snapshot, or at
        nothing where it has none; call it before the incarnation is raised, and `void_snapshots` before it where one
        may be in flight. With `stands_at`, a savepoint of that execution has taken over: what came after it is
        lost, whatever the head holds, and the names that it holds are those of the head and of the ledger up to there.

        The loss spans the executions of the namespace after the one that the head holds, with the names that these
        bound last and did not remove since. Each such execution that began makes a loss, whatever it bound: it may
        have changed an object or a file. None is in two losses, unless the session fell back to a savepoint first and
        behind that later: the second loss then spans both. It stays `untold_loss` until `loss_told`, joined with one
        that was untold before. Returns what is untold now; None where there is nothing to tell, or the incarnation is
        another. The next execution begins a new namespace; names and the variable count become what the head holds.
        With `before`, the namespace went before that execution, still open, began: it is not in the loss, and the
        first of the new namespace.
        """

    async def loss_told(self, key: str) -> None:
        """The caller has been told; forget the untold loss and notes."""

    async def leave_notes(self, key: str, incarnation: int, notes: Sequence[str]) -> None:
        """Keep those sentences as `untold_notes`, in place of others, until `loss_told`; they outlive the owner."""

    async def session_cleared(self, key: str, incarnation: int) -> bool:
        """Raise `activity` and `used_at`; a new namespace begins with the next execution, which is no loss; forgets
        an untold one; an inactive or expired session is `hibernated` again. Guarded: the session is of this
        incarnation and not being destroyed.
        """

    # executions

    async def open_execution(
        self, key: str, incarnation: int, *, repeat: Repeat | None = None, entry: AuditEntry | None = None
    ) -> int | None:
        """Commit an open row before the cell is sent, with the session's raised `activity` and `used_at`: its number.
        Guarded: the session is `ready` and of this incarnation. Its text is for `Pieces.note_cells`, after the answer.
        With a `repeat`, the call is known by that key from this commit on, in place of an earlier one. An `entry` is
        written to the audit by the same commit, with incarnation and number.
        """

    async def close_execution(
        self,
        key: str,
        number: int,
        outcome: Ending,
        *,
        bound: Sequence[str],
        removed: Sequence[str],
        variable_count: int | None,
        entry: AuditEntry | None = None,
    ) -> None:
        """Close the row before the answer leaves, and raise `used_at`; a closed row is not changed. Names and count
        are noted only while the namespace that the execution saw is the present one; a count of None leaves the
        last one. When one ended of which nobody can tell is not noted. Trims the ledger to the last 200 executions.
        An `entry` is written by the commit that closes the row, and names the one that `open_execution` wrote; also
        where the session was deleted meanwhile.
        """

    async def executions(self, tenant: str, session_id: str, *, limit: int = 200) -> Sequence[ExecutionRecord]:
        """The newest executions of a session, newest first; empty where there is no such session."""

    async def binding_executions(self, key: str, names: Sequence[str] | None = None) -> Mapping[str, int]:
        """Which execution last bound each of those names (None: of all), as far as is known.

        Of a session the thousand names are known that were bound last. After a loss or a replacement the head's
        execution stands for names that it brought back.
        """

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

    async def recover(self, cause: str) -> Sequence[SandboxRecord]:
        """For an owner that has just taken over a data directory: what need not be asked of any sandbox is decided.

        A session that is `ready` or `snapshotting` may have outlived its owner where a sandbox is `claimed` by its
        present incarnation: it stays as it is, its open executions and that row, which is among those returned. Not so
        where its head replaced what that sandbox holds, and nothing has happened since: a rollback or a clear was cut
        short, which loses nothing.

        Other sessions that were `creating`, `ready` or `snapshotting` become `hibernated` with their namespace lost for
        `cause`; other open executions become `outcome_unknown`, other sandbox rows `destroying`; sessions in
        `destroying` are deleted. Snapshots that were committed and not yet head are adopted before
        (`SnapshotRecords.adopt_snapshot`), so that they are not told as lost. The same again changes nothing.
        """

    async def close(self) -> None:
        """Finish what was begun and close the file. Idempotent."""
