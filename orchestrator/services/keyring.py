"""Whose key that is: all keys and tenants in memory, so that a call costs no look into the records."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from orchestrator.domain import keys
from orchestrator.domain.access import LOCAL_CALLER, Caller, Claims, Credentials, Issuer
from orchestrator.domain.ports import Clock
from orchestrator.domain.tenants import ApiKey, Tenant, TenantRecords


class Keyring(Credentials):
    """`Credentials` over the records.

    Only the process that owns the data directory writes them, and all of its writes to these tables go through here
    (`changing`): so what is in memory is what counts, and a revocation counts from the moment it is recorded. A command
    that changes keys either is the owner for as long, when there is nobody who could have them in memory, or asks the
    owner to.
    """

    def __init__(self, records: TenantRecords, clock: Clock, issuer: Issuer | None = None) -> None:
        self._records = records
        self._clock = clock
        self._issuer = issuer
        self._tenants: Mapping[str, Tenant] = {}
        self._keys: Mapping[str, ApiKey] = {}
        self._written = 1  # raised around every write
        self._read = 0  # what that was when the records were read
        self._reading = asyncio.Lock()
        self._used: dict[str, datetime] = {}  # not noted yet

    # who it is

    async def verify(self, token: str) -> Caller | None:
        """Whose token that is."""
        await self._fresh()
        if self._issuer is not None and not keys.is_key(token):
            return self._caller_of(await self._issuer.read(token))
        parsed = keys.parsed(token)
        prefix, secret = parsed or ("", token)
        key = self._keys.get(prefix)
        if not keys.is_secret(secret, None if key is None else key.digest) or key is None or not self._opens(key):
            return None
        self._used[key.id] = self._clock.now()
        return Caller(key.tenant, key.id, key.name, key.scopes)

    async def current(self, caller: Caller) -> bool:
        """Whether it would be verified now."""
        if caller == LOCAL_CALLER:
            return True
        await self._fresh()
        if caller.expires_at is not None:
            return self._clock.now() < caller.expires_at and self._is_enabled(caller.tenant)
        key = self._keys.get(caller.key_id)
        return key is not None and self._opens(key) and (key.tenant, key.scopes) == (caller.tenant, caller.scopes)

    def _caller_of(self, claims: Claims | None) -> Caller | None:
        if claims is None:
            return None
        tenant = next((one for one in self._tenants.values() if one.name == claims.tenant), None)
        if tenant is None or tenant.disabled or not claims.scopes or claims.expires_at <= self._clock.now():
            return None
        return Caller(tenant.id, f"jwt:{claims.subject}", claims.subject, claims.scopes, claims.expires_at)

    def _opens(self, key: ApiKey) -> bool:
        return key.valid(self._clock.now()) and self._is_enabled(key.tenant)

    def _is_enabled(self, tenant: str) -> bool:
        found = self._tenants.get(tenant)
        return found is not None and not found.disabled

    # what is known

    async def tenant(self, tenant: str) -> Tenant | None:
        """By id."""
        await self._fresh()
        return self._tenants.get(tenant)

    async def tenants(self) -> Sequence[Tenant]:
        """All of them, oldest first."""
        await self._fresh()
        return tuple(self._tenants.values())

    async def keys(self) -> Sequence[ApiKey]:
        """All of them, oldest first, their last use as it is known by now."""
        await self.note_use()
        await self._fresh()
        return tuple(self._keys.values())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around every write to those tables; what is in memory counts no more from its begin."""
        self._written += 1
        try:
            yield
        finally:  # a cancelled write happens all the same, before whatever is read after this
            self._written += 1

    async def note_use(self) -> None:
        """Write down when keys were used; to be called now and then, and at the end."""
        used, self._used = self._used, {}
        if used:
            try:
                with self.changing():
                    await self._records.keys_used(used)
            except BaseException:
                self._used = used | self._used
                raise

    async def _fresh(self) -> None:
        if self._read == self._written:
            return
        async with self._reading:
            while self._read != self._written:
                written = self._written
                tenants = {tenant.id: tenant for tenant in await self._records.tenants()}
                found = {key.id: key for key in await self._records.keys()}
                self._tenants, self._keys, self._read = tenants, found, written
