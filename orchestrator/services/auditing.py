"""Writes the audit: what may not be lost before it is done, the rest as soon as the records take it."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from orchestrator.domain.audit import AuditEntry, AuditQuery, AuditRecord, AuditRecords, CodeKept, hash_of
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.keys import masked
from orchestrator.domain.ports import Clock
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

_MOST_OWED: Final = 10_000  # entries that the records have not taken
_REFUSALS_EVERY: Final = 60.0  # seconds of refusals that share an entry: a flood of calls is not one of entries
_TRIM_ROUNDS: Final = 50  # in one go
_PAGE: Final = 500


class Auditing:
    """The audit of one data directory. Whoever is cancelled while an entry is written has it written all the same."""

    def __init__(
        self, records: AuditRecords, tasks: Tasks, clock: Clock, *, code: CodeKept = "hash", keep_days: float = 90.0
    ) -> None:
        self._records = records
        self._tasks = tasks
        self._clock = clock
        self._code: CodeKept = code
        self._keep = timedelta(days=keep_days)
        self._owed: deque[AuditEntry] = deque(maxlen=_MOST_OWED)
        self._writing = asyncio.Lock()
        self._refused: dict[tuple[str, str, str], int] = {}  # by tenant, key and quota, since the last entry
        self._told_at: dict[tuple[str, str, str], float] = {}

    def keep(self, code: CodeKept, days: float) -> None:
        """Keep that of code, and entries for so long, from now on."""
        self._code, self._keep = code, timedelta(days=days)

    async def begin(self, tenant: str, key: str, session: str | None, code: str) -> int:
        """An execution without a row begins, of which nothing has been run: the entry's id. Raises StoreFullError and
        its kin, so that nothing is run that is not written down.
        """
        (number,) = await self._records.append_audit([self.beginning(tenant, key, session, code)])
        return number

    def beginning(self, tenant: str, key: str, session: str | None, code: str) -> AuditEntry:
        """What is to be written of an execution that begins."""
        kept = masked(code) if self._code == "text" else None
        return AuditEntry("begin", tenant, key, session, code_hash=self.hash_of(code), code=kept)

    def hash_of(self, code: str) -> str | None:
        """What is kept of code beside its text."""
        return None if self._code == "nothing" else hash_of(code)

    async def note(self, entry: AuditEntry) -> None:
        """Something has happened. Where the records do not take it, it is written with the next ones."""
        self._owed.append(entry)
        writing = self._tasks.spawn(self.write(), "write the audit")
        await asyncio.wait([writing])

    async def refused(self, tenant: str, key: str, quota: str) -> None:
        """A quota has kept a call from being carried out."""
        what, now = (tenant, key, quota), self._clock.monotonic()
        self._refused[what] = self._refused.get(what, 0) + 1
        if now - self._told_at.get(what, -_REFUSALS_EVERY) >= _REFUSALS_EVERY:
            self._told_at[what] = now
            await self._note_refusals([what])

    async def write(self) -> None:
        """Write what is owed."""
        async with self._writing:
            while self._owed:
                entries = tuple(self._owed)
                try:
                    await self._records.append_audit(entries)
                except OrchestratorError as error:
                    logger.warning("the audit could not be written: %s; it is tried again", error.message)
                    return
                for _ in entries:
                    self._owed.popleft()

    async def upkeep(self) -> None:
        """What is due now and then: refusals since their last entries, what is owed, and what is too old."""
        now = self._clock.monotonic()
        await self._note_refusals([what for what, at in self._told_at.items() if now - at >= _REFUSALS_EVERY])
        self._told_at = {what: at for what, at in self._told_at.items() if now - at < _REFUSALS_EVERY}
        await self.write()
        for _ in range(_TRIM_ROUNDS):
            if not await self._records.trim_audit(self._clock.now() - self._keep):
                break

    async def newest(self, query: AuditQuery, number: int) -> Sequence[AuditRecord]:
        """So many of those that are wanted, the last ones, oldest first."""
        return await self._records.newest_audit(query, limit=number)

    async def entries(self, query: AuditQuery, *, after: int = 0) -> AsyncGenerator[AuditRecord, None]:
        """All that are wanted after that entry, oldest first, read page by page: as many as there are, in bounded
        memory.
        """
        while page := await self._records.audit(query, after=after, limit=_PAGE):
            for record in page:
                yield record
            after = page[-1].id

    async def _note_refusals(self, whats: Sequence[tuple[str, str, str]]) -> None:
        for what in whats:
            times = self._refused.pop(what, 0)
            if times:
                tenant, key, quota = what
                await self.note(
                    AuditEntry("refuse", tenant, key, outcome="quota", limits=(quota,), detail={"times": times})
                )


def line_of(record: AuditRecord) -> Mapping[str, object]:
    """An entry as one object for JSON, without what it does not say."""
    entry = record.entry
    fields: dict[str, object] = {
        "id": record.id,
        "at": record.at.isoformat(),
        "act": entry.act,
        "tenant": entry.tenant,
        "key": entry.key,
        "session": entry.session,
        "incarnation": entry.incarnation,
        "execution": entry.execution,
        "begun": entry.begun,
        "code_sha256": entry.code_hash,
        "code": entry.code,
        "outcome": entry.outcome,
        "duration_seconds": entry.duration,
        "cpu_seconds": entry.cpu,
        "memory_peak_bytes": entry.memory_peak,
        "output_bytes": entry.bytes_out,
        "limits": list(entry.limits) or None,
        "detail": dict(entry.detail) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
