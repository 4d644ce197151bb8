"""What several tenants need beside sessions: keys, quotas, the audit; built in one place, and kept up."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator import __version__
from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.adapters.data_directory import holder as holder  # noqa: PLC0414 - for commands
from orchestrator.adapters.jwt_issuer import JwtIssuer, require_safe
from orchestrator.adapters.jwt_issuer import Trust as IssuerTrust
from orchestrator.adapters.signing_key import SigningKey
from orchestrator.adapters.store.records import RECORDS_NAME, SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.ports import Clock, Engine
from orchestrator.services.admission import Admission
from orchestrator.services.auditing import Auditing
from orchestrator.services.capsules import Capsules
from orchestrator.services.equipment import Equipment
from orchestrator.services.exporting import Exports
from orchestrator.services.importing import Imports
from orchestrator.services.keyring import Keyring
from orchestrator.services.lookups import Lookups
from orchestrator.services.metering import Metering
from orchestrator.services.order_book import ORDERS
from orchestrator.services.orders import Desk, Operations, Whole
from orchestrator.services.repeats import Repeats
from orchestrator.services.sessions import Sessions
from orchestrator.services.slots import Slots
from orchestrator.services.tasks import Tasks
from orchestrator.services.tenants import Tenants
from orchestrator.services.trust import Trust
from orchestrator.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Of one data directory, while it is owned."""

    records: SqliteRecords
    keyring: Keyring
    tenants: Tenants
    audit: Auditing
    lookups: Lookups
    repeats: Repeats
    admission: Admission
    capsules: Capsules

    @classmethod
    def build(
        cls,
        settings: Settings,
        records: SqliteRecords,
        sessions: Sessions,
        equipment: Equipment,
        *,
        engine: Engine,
        cpus: int,
    ) -> "Tenancy":
        """As the settings say; the machine has so many CPUs."""
        tasks, clock, limits = equipment.tasks, equipment.clock, equipment.limits
        audit = Auditing(records.audit, tasks, clock, code=settings.audit_code, keep_days=settings.audit_days)
        keyring = Keyring(records.tenants, clock, _issuer(settings, clock))
        metering = Metering(
            keyring,
            records.tenants,
            records.audit,
            equipment.pieces,
            clock=clock,
            defaults=settings.quotas,
            profile=limits.profile,
        )
        lookups = Lookups(equipment, sessions.fresh_text)
        repeats = Repeats(records.repeats, lookups, tasks, clock, window=settings.repeat_window)
        running = Slots(limit=settings.max_running or cpus, wait=settings.sandbox_wait, what="its turn to run")
        admission = Admission(metering, audit, repeats, running, limits=limits, slice_seconds=settings.running_slice)
        equipment.spent.heard_by(admission.slept)
        signing = SigningKey(settings.data_dir)
        trust, imports = Trust(records, signing, audit, clock), records.imports
        capsules = Capsules(
            Exports(sessions, equipment, imports, admission, signing, product=__version__),
            Imports(sessions, equipment, imports, admission, metering, engine=engine, signing=signing, trust=trust),
            trust,
        )
        tenants = Tenants(records.tenants, keyring, clock)
        return cls(records, keyring, tenants, audit, lookups, repeats, admission, capsules)

    @property
    def errands(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        """What is to be done now and then."""
        return {
            "the audit": self.audit.upkeep,
            "the use of keys": self.keyring.note_use,
            "keys of calls": self.repeats.forget_old,
        }

    def operations(self, whole: Whole) -> Operations:
        """What operators may order of an owner who has opened everything."""
        desk = Desk(self.tenants, self.audit, self.records, self.records, self.records.lists, whole)
        return Operations(ORDERS, desk)

    async def close(self) -> None:
        """Write down what is not yet. What the records do not take is lost."""
        try:
            await self.audit.write()
            await self.keyring.note_use()
        except OrchestratorError as error:
            logger.warning("what keys did last is not written down: %s", error)


def _issuer(settings: Settings, clock: Clock) -> JwtIssuer | None:
    issuer, audience, keys = settings.jwt_issuer, settings.jwt_audience, settings.jwt_keys
    if issuer is None or audience is None or keys is None:
        return None
    require_safe(keys)
    algorithms = [name for name in settings.jwt_algorithms.split(",") if name]
    return JwtIssuer(
        IssuerTrust(issuer, audience, keys, algorithms, settings.jwt_tenant_claim, settings.jwt_scopes_claim), clock
    )


@asynccontextmanager
async def operating(settings: Settings) -> AsyncIterator[Operations]:
    """What operators may order, by whoever owns the data directory for as long. Raises OwnedError where another
    process owns it, whose memory would not hear of a change.
    """
    directory = DataDirectory.own(settings.data_dir, kind="command", version=__version__)
    try:
        clock = SystemClock()
        failure: BaseException | None = None
        async with open_records(settings.data_dir / RECORDS_NAME, clock) as records, asyncio.TaskGroup() as group:
            audit = Auditing(records.audit, Tasks(group), clock)
            try:
                tenants = Tenants(records.tenants, Keyring(records.tenants, clock), clock)
                yield Operations(ORDERS, Desk(tenants, audit, records, records, records.lists))
            except BaseException as error:  # noqa: BLE001 - raised again below, not wrapped into the group's
                failure = error
            await audit.write()
        if failure is not None:
            raise failure
    finally:
        directory.release()
