"""The sessions of one tenant, as one caller may use them."""

from collections.abc import Sequence

from orchestrator.domain.access import Caller
from orchestrator.domain.comparison import Comparison
from orchestrator.domain.kept_results import KeptExecution
from orchestrator.domain.model import ExecutionResult, Namespace, SessionSummary
from orchestrator.domain.quotas import Quotas
from orchestrator.domain.snapshots import History, SnapshotSummary
from orchestrator.services.admission import Admission, Asked
from orchestrator.services.history import Histories
from orchestrator.services.lookups import Lookups
from orchestrator.services.sessions import Sessions
from orchestrator.services.tickets import Ticket


class TenantSessions:
    """`Sessions` and `Histories`, bound to a caller: nothing here takes a tenant, and nothing reaches another one's.

    Each method raises PermissionDeniedError where the caller lacks its scope, before anything is looked up; beside
    that, what the service beneath it raises.
    """

    def __init__(
        self, caller: Caller, sessions: Sessions, histories: Histories, lookups: Lookups, admission: Admission
    ) -> None:
        self.caller = caller
        self._tenant = caller.tenant
        self._sessions = sessions
        self._histories = histories
        self._lookups = lookups
        self._admission = admission

    # use

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the cell, enforced in the sandbox
        ticket: Ticket | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Run a cell; see `Sessions.execute`.

        The same call again with the same key, in the same session, is not run again: it is answered as the first one
        was, also while that runs, or with OutcomeUnknownError where nobody can tell any more. Raises QuotaError.
        """
        self.caller.require("use")
        asked = Asked(code, session_id, timeout, idempotency_key)
        return await self._admission.execute(self.caller, asked, ticket or Ticket(), self._sessions.execute)

    async def interrupt(self, session_id: str) -> bool:
        """Have the call end early that runs in a session; see `Sessions.interrupt`."""
        self.caller.require("use")
        tenant = self._tenant
        return await self._admission.act(
            self.caller,
            "interrupt",
            session_id,
            lambda _: self._sessions.interrupt(session_id, tenant=tenant),
            counts=False,
        )

    async def hibernate(self, session_id: str) -> bool:
        """Save a session and remove its sandbox; see `Sessions.hibernate`."""
        self.caller.require("use")
        tenant = self._tenant
        return await self._admission.act(
            self.caller,
            "hibernate",
            session_id,
            lambda _: self._sessions.hibernate(session_id, tenant=tenant),
            counts=False,
        )

    async def wake(self, session_id: str) -> None:
        """Have a sandbox hold the session; see `Sessions.wake`."""
        self.caller.require("use")
        tenant, ticket = self._tenant, Ticket()

        async def woken(_: Quotas) -> None:
            ticket.terms = await self._admission.terms(tenant)
            await self._sessions.wake(session_id, ticket, tenant=tenant)

        await self._admission.act(self.caller, "wake", session_id, woken, counts=False)

    async def clear(self, session_id: str) -> None:
        """Empty a session's namespace; see `Sessions.clear`."""
        self.caller.require("use")
        tenant = self._tenant
        await self._admission.act(
            self.caller, "clear", session_id, lambda _: self._sessions.clear(session_id, tenant=tenant), counts=False
        )

    async def delete(self, session_id: str) -> None:
        """End a session for good; see `Sessions.delete`."""
        self.caller.require("use")
        tenant = self._tenant
        await self._admission.act(
            self.caller, "delete", session_id, lambda _: self._sessions.delete(session_id, tenant=tenant), counts=False
        )

    async def save(self, session_id: str) -> SnapshotSummary:
        """Save a session now; see `Histories.save`."""
        self.caller.require("use")
        tenant = self._tenant
        return await self._admission.act(
            self.caller, "save", session_id, lambda _: self._histories.save(session_id, tenant=tenant)
        )

    async def roll_back(self, session_id: str, sequence: int) -> SnapshotSummary:
        """Let a session stand at an earlier snapshot; see `Histories.roll_back`."""
        self.caller.require("use")
        tenant = self._tenant
        return await self._admission.act(
            self.caller,
            "roll back",
            session_id,
            lambda _: self._histories.roll_back(session_id, sequence, tenant=tenant),
        )

    async def fork(self, session_id: str, new_id: str, *, sequence: int | None = None) -> SnapshotSummary:
        """Begin a session as a copy of another one's snapshot; see `Histories.fork`."""
        self.caller.require("use")
        tenant = self._tenant
        return await self._admission.act(
            self.caller,
            "fork",
            session_id,
            lambda quotas: self._histories.fork(
                session_id, new_id, sequence=sequence, tenant=tenant, most=quotas.sessions
            ),
        )

    # read

    async def list_variables(self, session_id: str) -> Namespace:
        """What a session's namespace holds; who may only read is told what is known without asking its sandbox."""
        self.caller.require("read")
        if not self.caller.may("use"):
            return await self._lookups.variables(session_id, tenant=self._tenant)
        return await self._sessions.list_variables(session_id, tenant=self._tenant)

    async def list_sessions(self) -> Sequence[SessionSummary]:
        """All sessions of the tenant, oldest first."""
        self.caller.require("read")
        return await self._sessions.list_sessions(tenant=self._tenant)

    async def history(self, session_id: str) -> History:
        """A session's snapshots, newest first."""
        self.caller.require("read")
        return await self._histories.history(session_id, tenant=self._tenant)

    async def compare(self, session_id: str, before: int, after: int) -> Comparison:
        """What differs between two snapshots of a session; see `Histories.compare`."""
        self.caller.require("read")
        return await self._histories.compare(session_id, before, after, tenant=self._tenant)

    async def result(self, session_id: str, execution: int) -> KeptExecution:
        """What became of an execution whose answer did not reach its caller; see `Lookups.result`."""
        self.caller.require("read")
        return await self._lookups.result(session_id, execution, tenant=self._tenant)
