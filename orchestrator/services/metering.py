"""What tenants have used, and whether they may use more."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from orchestrator.domain.audit import AuditRecords
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.ports import Clock
from orchestrator.domain.quotas import DAY, MINUTE, NO_LIMITS, Quotas, Window, exceeded, with_overrides
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.tenants import TenantRecords
from orchestrator.services.keyring import Keyring
from orchestrator.services.tickets import Share

_HOLDINGS_KEPT: Final = 2.0  # seconds for which what is stored need not be counted anew
_DAY_STEPS: Final = 288  # of five minutes


@dataclass(frozen=True, slots=True)
class Allowance:
    """What holds for a call that may be made."""

    share: Share
    profile: SandboxProfile | None  # None: the installation's
    sessions: int | None
    time_limit: float | None  # seconds; None: what was asked for


@dataclass(slots=True)
class _Used:
    minute: Window = field(default_factory=lambda: Window(MINUTE))
    day: Window = field(default_factory=lambda: Window(DAY, slots=_DAY_STEPS))
    known: bool = False  # what was used before this process began is in them
    holdings: tuple[float, int, int] | None = None  # when it was counted; bytes, files
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Metering:
    """In memory, from the audit where this process has not seen it: a restart frees no quota."""

    def __init__(
        self,
        keyring: Keyring,
        tenants: TenantRecords,
        audit: AuditRecords,
        pieces: Pieces,
        *,
        clock: Clock,
        defaults: Quotas,
        profile: SandboxProfile,
    ) -> None:
        self._keyring = keyring
        self._tenants = tenants
        self._audit = audit
        self._pieces = pieces
        self._clock = clock
        self._defaults = defaults
        self._profile = profile
        self._used: dict[str, _Used] = defaultdict(_Used)

    def let_default(self, defaults: Quotas) -> None:
        """Have these hold from now on where a tenant has no quotas of its own."""
        self._defaults = defaults

    async def quotas(self, tenant: str) -> Quotas:
        """Those of that tenant."""
        found = await self._keyring.tenant(tenant)
        base = NO_LIMITS if tenant == LOCAL_TENANT else self._defaults
        return base if found is None else with_overrides(base, found.quotas)

    async def begin(self, tenant: str, wanted: float | None, default: float) -> Allowance:
        """An execution is to begin, `wanted` seconds long at most (None: the default): it counts from now on. Raises
        QuotaError, and then nothing counts.
        """
        quotas, used = await self._looked(tenant)
        limit = quotas.time_limit
        if wanted is not None and limit is not None and wanted > limit:
            raise exceeded("time_limit", wanted, limit)
        found = await self._keyring.tenant(tenant)
        self._count(quotas, used)
        return Allowance(
            share=Share(1.0 if found is None else found.weight, quotas.live_sandboxes, quotas.running),
            profile=self._profile_of(quotas),
            sessions=quotas.sessions,
            time_limit=min(default, limit) if wanted is None and limit is not None else wanted,
        )

    async def act(self, tenant: str) -> Quotas:
        """Something else is to be done that is not for nothing, such as a rollback: it counts as an execution does."""
        quotas, used = await self._looked(tenant)
        self._count(quotas, used)
        return quotas

    async def room(self, tenant: str) -> tuple[int | None, int | None]:
        """How many bytes, and how many files, may come to what the tenant has stored; None: no limit."""
        quotas = await self.quotas(tenant)
        if quotas.stored_bytes is None and quotas.files is None:
            return None, None
        holdings = await self._tenants.holdings(tenant)
        stored = await self._pieces.file_bytes(holdings.sessions)
        return (
            None if quotas.stored_bytes is None else max(0, quotas.stored_bytes - stored),
            None if quotas.files is None else max(0, quotas.files - holdings.files),
        )

    async def _looked(self, tenant: str) -> tuple[Quotas, _Used]:
        quotas, used = await self.quotas(tenant), self._used[tenant]
        async with used.turn:
            await self._look_back(tenant, used)
            await self._require_storage(tenant, quotas, used)
        return quotas, used

    def _count(self, quotas: Quotas, used: _Used) -> None:
        # No await between the look and the counting: of many calls at once, none is let through too many.
        now = self._clock.monotonic()
        for name, window in (("executions_a_minute", used.minute), ("cpu_seconds_a_day", used.day)):
            limit = getattr(quotas, name)
            frees_in = 0.0 if limit is None else window.frees_in(now, limit)
            if frees_in != 0:
                raise exceeded(name, window.used(now), limit, frees_in=frees_in)
        used.minute.add(now, 1.0)

    def spent(self, tenant: str, cpu: float) -> None:
        """An execution has taken so many seconds of the processor."""
        self._used[tenant].day.add(self._clock.monotonic(), cpu)

    def cpu_of(self, duration: float) -> float:
        """What one has taken at most that ran for so long, where nobody has measured it."""
        return duration * self._profile.cpus

    def _profile_of(self, quotas: Quotas) -> SandboxProfile | None:
        memory, cpus = quotas.memory or self._profile.memory, quotas.cpus or self._profile.cpus
        wanted = replace(self._profile, memory=memory, cpus=cpus)
        return None if wanted == self._profile else wanted

    async def _look_back(self, tenant: str, used: _Used) -> None:
        if used.known:
            return
        wall, now = self._clock.now(), self._clock.monotonic()
        for one in await self._audit.consumption(tenant, wall - timedelta(seconds=DAY)):
            at = now - max(0.0, (wall - one.at).total_seconds())
            used.day.add(at, one.cpu)
            if one.is_execution and now - at < MINUTE:
                used.minute.add(at, 1.0)
        used.known = True

    async def _require_storage(self, tenant: str, quotas: Quotas, used: _Used) -> None:
        if quotas.stored_bytes is None and quotas.files is None:
            return
        now = self._clock.monotonic()
        if used.holdings is None or now - used.holdings[0] >= _HOLDINGS_KEPT:
            holdings = await self._tenants.holdings(tenant)
            used.holdings = now, await self._pieces.file_bytes(holdings.sessions), holdings.files
        for name, held in (("stored_bytes", used.holdings[1]), ("files", used.holdings[2])):
            limit = getattr(quotas, name)
            if limit is not None and held >= limit:
                used.holdings = None  # so that what is deleted counts at once
                raise exceeded(name, held, limit)
