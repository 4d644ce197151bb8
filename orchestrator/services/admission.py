"""What a call goes through before its cell may run, and what is written down of it: quotas, turns, audit, keys of calls
that may be made again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from orchestrator.domain.access import Caller
from orchestrator.domain.audit import NOBODY, Act, AuditEntry
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError, QuotaError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.model import ExecutionResult, Session
from orchestrator.domain.quotas import Quotas
from orchestrator.domain.repeats import Repeat, repeat_of
from orchestrator.services.auditing import Auditing
from orchestrator.services.checks import check_code, time_limit_of
from orchestrator.services.equipment import Limits
from orchestrator.services.metering import Metering
from orchestrator.services.repeats import Repeats
from orchestrator.services.slots import Slots
from orchestrator.services.tickets import Terms, Ticket, Witness
from orchestrator.services.turns import RunningTurn

T = TypeVar("T")

_LIMITS_OF: Final = {"timeout": "time_limit", "oom": "memory", "disk_full": "workspace"}
_WORTH_NOTING: Final = 0.5  # seconds: what keeping a small session takes is the orchestrator's own
_NOTHING_DONE: Final = "nothing"  # no cell to interrupt, no sandbox to remove
# Nothing was done, and anybody can do it often: no quota bounds it.
_NOT_WORTH_NOTING: Final = frozenset({_NOTHING_DONE, "not_found", "invalid_request"})


class Run(Protocol):
    """`Sessions.execute`."""

    async def __call__(
        self,
        code: str,
        *,
        session_id: str | None,
        timeout: float | None,  # noqa: ASYNC109 - of the cell
        tenant: str,
        ticket: Ticket,
    ) -> ExecutionResult:
        """Run a cell."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants to be run."""

    code: str
    session_id: str | None
    timeout: float | None
    idempotency_key: str | None


class Admission:
    """The one way to a cell for callers; `running` are the places of executions that may run at once."""

    def __init__(
        self,
        metering: Metering,
        audit: Auditing,
        repeats: Repeats,
        running: Slots,
        *,
        limits: Limits,
        slice_seconds: float,
    ) -> None:
        self._metering = metering
        self._audit = audit
        self._repeats = repeats
        self._running = running
        self._limits = limits
        self._slice = slice_seconds

    def resize(self, running: int, wait: float, defaults: Quotas) -> None:
        """Let so many executions run at once, for which a call waits so many seconds, and these quotas be usual."""
        self._running.resize(running, wait)
        self._metering.let_default(defaults)

    async def execute(self, caller: Caller, asked: Asked, ticket: Ticket, run: Run) -> ExecutionResult:
        """Run it within the tenant's quotas, or answer as its first run was answered. Raises QuotaError,
        OutcomeUnknownError, InvalidRequestError, and what `run` raises.
        """
        check_code(asked.code, self._limits)
        time_limit_of(asked.timeout, self._limits)
        if asked.idempotency_key is None:
            return await self._admitted(caller, asked, ticket, run, None)
        if not asked.session_id:
            raise InvalidRequestError(
                "An idempotency key needs a session: of a stateless call nothing is kept.",
                hint="Give a session_id, or leave the key out; a stateless call changes nothing by being made twice.",
            )
        name = session_id_of(asked.session_id)
        repeat = repeat_of(asked.idempotency_key, asked.code, asked.timeout)
        return await self._repeats.once(
            caller.tenant, name, repeat, lambda: self._admitted(caller, asked, ticket, run, repeat)
        )

    async def act(
        self, caller: Caller, act: Act, session_id: str, work: Callable[[Quotas], Awaitable[T]], *, counts: bool = True
    ) -> T:
        """Do something else than run a cell; it `counts` into the quotas unless it frees something.

        Its entry says how it ended, so it is written after it and not by a commit of the act's own: such an act is many
        commits, of the records, of the session's file and of the engine, and most of its endings are none of them. Of
        one that answers False nothing is written, since it did nothing.
        """
        try:
            quotas = await self._metering.act(caller.tenant) if counts else Quotas()
        except QuotaError as error:
            await self._audit.refused(caller.tenant, caller.key_id, error.quota)
            raise
        outcome = "cancelled"
        try:
            done = await work(quotas)
            outcome = "ok" if done is not False else _NOTHING_DONE
        except OrchestratorError as error:
            outcome = error.code
            raise
        finally:
            if outcome not in _NOT_WORTH_NOTING:
                await self._audit.note(AuditEntry(act, caller.tenant, caller.key_id, session_id[:256], outcome=outcome))
        return done

    async def slept(self, session: Session, cpu: float) -> None:
        """Its sandbox has taken so many seconds of the processor between its last answer and its sleep."""
        if cpu >= _WORTH_NOTING:
            self._metering.spent(session.tenant, cpu)
            entry = AuditEntry("between", session.tenant, NOBODY, session.session_id, session.incarnation, cpu=cpu)
            await self._audit.note(entry)

    async def terms(self, tenant: str) -> Terms:
        """Of a call that makes a sandbox and runs nothing; it counts into the quotas. Raises QuotaError."""
        allowed = await self._metering.begin(tenant, None, self._limits.time_limit)
        return Terms(share=allowed.share, profile=allowed.profile)

    async def _admitted(
        self, caller: Caller, asked: Asked, ticket: Ticket, run: Run, repeat: Repeat | None
    ) -> ExecutionResult:
        tenant, session = caller.tenant, None if not asked.session_id else session_id_of(asked.session_id)
        try:
            allowed = await self._metering.begin(tenant, asked.timeout, self._limits.time_limit)
        except QuotaError as error:
            await self._audit.refused(tenant, caller.key_id, error.quota)
            raise
        # A session's call is written down by the commit of its row; another one has none.
        begun = None if session else await self._audit.begin(tenant, caller.key_id, session, asked.code)
        beginning = self._audit.beginning(tenant, caller.key_id, session, asked.code)
        witness = Account(beginning, begun, self._audit, self._metering)
        ticket.terms = Terms(
            share=allowed.share,
            profile=allowed.profile,
            sessions=allowed.sessions,
            turn=RunningTurn(self._running, tenant, ticket, self._slice),
            witness=witness,
            repeat=repeat,
        )
        try:
            return await run(
                asked.code, session_id=asked.session_id, timeout=allowed.time_limit, tenant=tenant, ticket=ticket
            )
        except BaseException as error:
            await witness.failed(error)
            raise


class Account(Witness):
    """Has one execution written down once, whoever is there to hear of its end."""

    def __init__(self, beginning: AuditEntry, begun: int | None, audit: Auditing, metering: Metering) -> None:
        self._beginning = beginning
        self._told = replace(beginning, act="execute", code=None, begun=begun)
        self._audit = audit
        self._metering = metering
        self._begun = False
        self._closed = False

    def begins(self) -> None:
        """Its end will be told."""
        self._begun = True

    def beginning(self) -> AuditEntry:
        """For the commit of its row."""
        return self._beginning

    async def ended(self, answer: ExecutionResult) -> None:
        """It has an answer, and no row."""
        entry = self.closing(answer)
        if entry is not None:
            await self._audit.note(entry)

    def closing(self, answer: ExecutionResult) -> AuditEntry | None:
        """It has an answer: what is to be written."""
        if self._closed:
            return None
        self._closed = True
        duration = answer.duration_ms / 1000
        cpu = self._metering.cpu_of(duration) if answer.cpu is None and self._begun else answer.cpu or 0.0
        self._metering.spent(self._told.tenant, cpu)
        code = None if answer.error is None else answer.error.code
        met = [_LIMITS_OF[code]] if code in _LIMITS_OF else []
        return replace(
            self._told,
            incarnation=answer.incarnation,
            execution=answer.execution,
            outcome=code or "ok",
            duration=duration,
            cpu=cpu,
            memory_peak=answer.memory_peak or None,
            bytes_out=answer.output_bytes,
            limits=(*met, *(["output"] if answer.truncated else [])),
        )

    async def failed(self, error: BaseException) -> None:
        """Its caller has no answer; where the cell was sent, its end is still told."""
        entry = self.failing(error)
        if entry is not None:
            await self._audit.note(entry)

    def failing(self, error: BaseException) -> AuditEntry | None:
        """The same, to be written with its row."""
        if self._closed or (self._begun and isinstance(error, asyncio.CancelledError)):
            return None
        self._closed = True
        return replace(
            self._told,
            outcome=error.code if isinstance(error, OrchestratorError) else "cancelled",
            limits=(error.quota,) if isinstance(error, QuotaError) else (),
        )
