"""Tenants and keys as the operator manages them; each act is in the audit, by the transaction that does it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, get_args

from orchestrator.domain.access import SCOPES, Caller, Scope
from orchestrator.domain.audit import Act, AuditEntry
from orchestrator.domain.errors import BusyError, InvalidRequestError, NotFoundError
from orchestrator.domain.ports import Clock
from orchestrator.domain.quotas import NO_LIMITS, with_overrides
from orchestrator.domain.tenants import ApiKey, IssuedKey, Tenant, TenantRecords, name_of, weight_of
from orchestrator.services.keyring import Keyring

_USE: Final[tuple[Scope, ...]] = ("use",)


class Tenants:
    """What may be done with tenants and keys. Every method that changes something takes who does it, and raises
    PermissionDeniedError where that one is no operator.
    """

    def __init__(self, records: TenantRecords, keyring: Keyring, clock: Clock) -> None:
        self._records = records
        self._keyring = keyring
        self._clock = clock

    async def list(self) -> Sequence[Tenant]:
        """All tenants, oldest first."""
        return await self._keyring.tenants()

    async def find(self, name_or_id: str) -> Tenant:
        """Raises NotFoundError where there is none."""
        found = [tenant for tenant in await self.list() if name_or_id in (tenant.name, tenant.id)]
        if not found:
            raise NotFoundError(f"There is no tenant {name_or_id!r}.", hint="List the tenants to see which there are.")
        # A name may look like another one's id, which is nobody's choice: the name is meant.
        return next((tenant for tenant in found if tenant.name == name_or_id), found[0])

    async def create(
        self, name: str, *, by: Caller, weight: float = 1.0, quotas: Mapping[str, float | None] | None = None
    ) -> Tenant:
        """A new tenant. Raises InvalidRequestError where the name is taken, or anything is not as it should be."""
        by.require("admin")
        wanted, given = name_of(name, "tenant"), dict(quotas or {})
        with_overrides(NO_LIMITS, given)
        noted = _entry("create tenant", by, name=wanted, weight=weight_of(weight), quotas=given)
        with self._keyring.changing():
            tenant = await self._records.add_tenant(wanted, weight, given, noted=noted)
        if tenant is None:
            raise InvalidRequestError(f"There is a tenant {wanted!r} already.", hint="Choose another name.")
        return tenant

    async def change(
        self,
        tenant: str,
        *,
        by: Caller,
        disabled: bool | None = None,
        weight: float | None = None,
        quotas: Mapping[str, float | None] | None = None,
    ) -> Tenant:
        """Change what is given; quotas stand in place of all that were set before. A disabled tenant's keys open
        nothing, from now on, until it is enabled again; its sessions stay.
        """
        by.require("admin")
        found = await self.find(tenant)
        given = None if quotas is None else dict(quotas)
        with_overrides(NO_LIMITS, given or {})
        if weight is not None:
            weight_of(weight)
        wanted = {"disabled": disabled, "weight": weight, "quotas": given}
        noted = _entry("change tenant", by, **{name: new for name, new in wanted.items() if new is not None})
        with self._keyring.changing():
            changed = await self._records.change_tenant(
                found.id, disabled=disabled, weight=weight, quotas=given, noted=noted
            )
        return changed or found

    async def remove(self, tenant: Tenant, *, by: Caller, sessions: int) -> None:
        """Delete a tenant with its keys, whose sessions, so many, have been deleted before. Raises BusyError where it
        has some yet.
        """
        by.require("admin")
        with self._keyring.changing():
            removed = await self._records.remove_tenant(
                tenant.id, noted=_entry("delete tenant", by, name=tenant.name, sessions=sessions)
            )
        if not removed:
            raise BusyError(f"The tenant {tenant.name!r} has sessions yet.", hint="Delete it again.")

    async def keys(self, tenant: str | None = None) -> Sequence[ApiKey]:
        """All keys, oldest first: of one tenant, or of all."""
        wanted = None if tenant is None else (await self.find(tenant)).id
        return [key for key in await self._keyring.keys() if wanted in (None, key.tenant)]

    async def create_key(
        self,
        tenant: str,
        name: str,
        *,
        by: Caller,
        scopes: Collection[Scope] = _USE,
        expires_in: float | None = None,
    ) -> IssuedKey:
        """A new key, whose text is told here and never again. `expires_in` in seconds; None: it does not expire."""
        by.require("admin")
        found, wanted, until = await self.find(tenant), name_of(name, "key"), self._until(expires_in)
        unknown = set(scopes) - set(get_args(Scope))
        if unknown or not scopes:
            raise InvalidRequestError(
                f"These are no scopes: {', '.join(sorted(unknown))}." if unknown else "A key needs a scope.",
                hint=f"There are: {', '.join(SCOPES)}.",
            )
        with self._keyring.changing():
            issued = await self._records.issue_key(
                found.id, wanted, frozenset(scopes), until, noted=_entry("create key", by)
            )
        if issued is None:
            raise NotFoundError(f"There is no tenant {tenant!r}.")
        return issued

    async def rotate_key(
        self, key: str, *, by: Caller, overlap: float = 0.0, expires_in: float | None = None
    ) -> IssuedKey:
        """A new key like that one, which opens nothing after `overlap` seconds any more. Raises NotFoundError
        where there is no such key that is valid.
        """
        by.require("admin")
        if not overlap >= 0:
            raise InvalidRequestError("The overlap is negative.")
        old_until = self._clock.now() + timedelta(seconds=overlap)
        noted = _entry("rotate key", by, old=key, overlap=overlap)
        with self._keyring.changing():
            issued = await self._records.rotate_key(key, self._until(expires_in), old_until=old_until, noted=noted)
        if issued is None:
            raise _no_key(key)
        return issued

    async def revoke_key(self, key: str, *, by: Caller) -> None:
        """It opens nothing any more, at once. Raises NotFoundError where no such key is valid."""
        by.require("admin")
        with self._keyring.changing():
            revoked = await self._records.revoke_key(key, noted=_entry("revoke key", by, id=key))
        if not revoked:
            raise _no_key(key)

    def _until(self, seconds: float | None) -> datetime | None:
        if seconds is None:
            return None
        if not 0 < seconds <= 100 * 366 * 86_400:
            raise InvalidRequestError("A key expires after some seconds, and within a century.")
        return self._clock.now() + timedelta(seconds=seconds)


def _entry(act: Act, by: Caller, **detail: object) -> AuditEntry:
    return AuditEntry(act, "", by.key_id, outcome="ok", detail=detail)  # the records say of which tenant


def _no_key(key: str) -> NotFoundError:
    return NotFoundError(
        f"There is no valid key {key!r}.", hint="A key is named by its prefix: list the keys to see which there are."
    )
