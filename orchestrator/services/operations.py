"""What operators order by name, over a socket or from a command: tenants, keys, the audit. Answers are objects."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.tenants import ApiKey, IssuedKey, Tenant
from orchestrator.services.auditing import Auditing, line_of
from orchestrator.services.tenants import Tenants

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operations:
    """What an operator works with."""

    tenants: Tenants
    audit: Auditing

    async def answers(self, order: str, given: Line) -> AsyncIterator[Line]:
        """Carry out one order, which are methods of `Tenants` by name; the answer is one object or several."""
        if order == "audit":
            async for record in self.audit.entries(_query(given)):
                yield line_of(record)
        elif order in _ORDERS:
            for line in await _ORDERS[order](self.tenants, dict(given)):
                yield line
        else:
            raise InvalidRequestError(f"There is no order {order!r}.")


async def _create(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    return [_tenant(await tenants.create(**given, by=LOCAL_CALLER))]


async def _change(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    return [_tenant(await tenants.change(**given, by=LOCAL_CALLER))]


async def _tenants(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    return [_tenant(tenant) for tenant in await tenants.list(**given)]


async def _keys(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    names = {tenant.id: tenant.name for tenant in await tenants.list()}
    return [_key(key, names[key.tenant]) for key in await tenants.keys(**given)]


async def _create_key(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    return await _issued(tenants, await tenants.create_key(**given, by=LOCAL_CALLER))


async def _rotate_key(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    return await _issued(tenants, await tenants.rotate_key(**given, by=LOCAL_CALLER))


async def _revoke_key(tenants: Tenants, given: dict[str, Any]) -> list[Line]:
    await tenants.revoke_key(**given, by=LOCAL_CALLER)
    return [{"revoked": given["key"]}]


_ORDERS: Final[Mapping[str, Callable[[Tenants, dict[str, Any]], Any]]] = {
    "create tenant": _create,
    "change tenant": _change,
    "tenants": _tenants,
    "keys": _keys,
    "create key": _create_key,
    "rotate key": _rotate_key,
    "revoke key": _revoke_key,
}


async def _issued(tenants: Tenants, issued: IssuedKey) -> list[Line]:
    (tenant,) = [one for one in await tenants.list() if one.id == issued.key.tenant]
    return [{**_key(issued.key, tenant.name), "token": issued.token}]


def _tenant(tenant: Tenant) -> Line:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "disabled": tenant.disabled,
        "weight": tenant.weight,
        "quotas": dict(tenant.quotas),
        "created_at": tenant.created_at.isoformat(),
    }


def _key(key: ApiKey, tenant: str) -> Line:
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    told = {name: None if at is None else at.isoformat() for name, at in (times | {"used_at": key.used_at}).items()}
    return {"id": key.id, "tenant": tenant, "name": key.name, "scopes": sorted(key.scopes), **told}


def _query(given: Line) -> AuditQuery:
    since, until = (datetime.fromisoformat(given[name]) if given.get(name) else None for name in ("since", "until"))
    return AuditQuery(
        tenant=given.get("tenant"), key=given.get("key"), session=given.get("session"), since=since, until=until
    )
