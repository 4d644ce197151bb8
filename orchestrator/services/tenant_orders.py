"""Orders about tenants and their keys."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from orchestrator.domain.access import SCOPES
from orchestrator.domain.errors import PermissionDeniedError, SessionNotFoundError
from orchestrator.domain.model import LOCAL_TENANT, SessionState
from orchestrator.domain.orders import Answer, Field, Progress
from orchestrator.domain.tenants import ApiKey, IssuedKey, Tenant
from orchestrator.services.orders import Call, Order
from orchestrator.services.tenants import Tenants

_NAME: Final = Field("text", required=True)
_EXPIRES: Final = Field("number")
_ROUNDS: Final = 3
Line = Mapping[str, Any]


async def _create(call: Call) -> AsyncGenerator[Answer, None]:
    yield tenant_line(await call.desk.tenants.create(**call.given, by=call.by))


async def _change(call: Call) -> AsyncGenerator[Answer, None]:
    yield tenant_line(await call.desk.tenants.change(**call.given, by=call.by))


async def _list(call: Call) -> AsyncGenerator[Answer, None]:
    for tenant in await call.desk.tenants.list():
        yield tenant_line(tenant)


async def _show(call: Call) -> AsyncGenerator[Answer, None]:
    yield tenant_line(await call.desk.tenants.find(call.given["tenant"]))


async def _delete(call: Call) -> AsyncGenerator[Answer, None]:
    """First nobody gets in any more, then the sessions go, then the tenant: cut short, the same again does the rest."""
    desk = call.desk
    tenant = await desk.tenants.find(call.given["tenant"])
    if tenant.id == LOCAL_TENANT:
        raise PermissionDeniedError("The local tenant cannot be deleted.", hint="Delete its sessions instead.")
    await desk.tenants.change(tenant.id, by=call.by, disabled=True)
    sessions = desk.whole.on_behalf(replace(call.by, tenant=tenant.id, scopes=frozenset(SCOPES)))
    done = 0
    for _ in range(_ROUNDS):  # a call that had begun before may still begin a session
        after, found = 0, 0
        while page := await desk.lists.page(tenant=tenant.id, after=after):
            after = page[-1].place
            for listed in page:
                if listed.session.state is not SessionState.DESTROYING:
                    found += 1
                    with suppress(SessionNotFoundError):  # it is deleted already
                        await sessions.delete(listed.session.session_id)
                        done += 1
                        yield Progress("sessions deleted", done, None, "sessions")
        if not found:
            break
    await desk.tenants.remove(tenant, by=call.by, sessions=done)
    yield {"deleted": tenant.name, "id": tenant.id, "sessions": done}


async def _keys(call: Call) -> AsyncGenerator[Answer, None]:
    tenants = call.desk.tenants
    names = {tenant.id: tenant.name for tenant in await tenants.list()}
    for key in await tenants.keys(**call.given):
        yield _key(key, names[key.tenant])


async def _create_key(call: Call) -> AsyncGenerator[Answer, None]:
    tenants = call.desk.tenants
    yield await _issued(tenants, await tenants.create_key(**call.given, by=call.by))


async def _rotate_key(call: Call) -> AsyncGenerator[Answer, None]:
    tenants = call.desk.tenants
    yield await _issued(tenants, await tenants.rotate_key(**call.given, by=call.by))


async def _revoke_key(call: Call) -> AsyncGenerator[Answer, None]:
    await call.desk.tenants.revoke_key(**call.given, by=call.by)
    yield {"revoked": call.given["key"]}


async def _issued(tenants: Tenants, issued: IssuedKey) -> Line:
    owner = await tenants.find(issued.key.tenant)
    return {**_key(issued.key, owner.name), "token": issued.token}


def tenant_line(tenant: Tenant) -> Line:
    """A tenant as one object for JSON."""
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


TENANT_ORDERS: Final = (
    Order(
        "tenant.create",
        "Make a tenant.",
        _create,
        {"name": _NAME, "weight": Field("number", default=1.0), "quotas": Field("numbers")},
    ),
    Order("tenant.list", "All tenants, oldest first.", _list, reads=True),
    Order("tenant.show", "One tenant.", _show, {"tenant": _NAME}, reads=True),
    Order(
        "tenant.update",
        "Change what is given of a tenant; quotas stand in place of all that were set.",
        _change,
        {"tenant": _NAME, "disabled": Field("flag"), "weight": Field("number"), "quotas": Field("numbers")},
    ),
    Order(
        "tenant.delete",
        "End a tenant with its keys and sessions for good.",
        _delete,
        {"tenant": _NAME},
        basis="whole",
    ),
    Order("key.list", "Keys without their secrets, oldest first.", _keys, {"tenant": Field("text")}, reads=True),
    Order(
        "key.create",
        "Make a key, whose text is told in this answer alone.",
        _create_key,
        {
            "tenant": _NAME,
            "name": _NAME,
            "scopes": Field("texts", default=["use"], choices=SCOPES),
            "expires_in": _EXPIRES,
        },
    ),
    Order(
        "key.rotate",
        "Make a key like that one, which ends after the overlap.",
        _rotate_key,
        {"key": _NAME, "overlap": Field("number", default=0.0), "expires_in": _EXPIRES},
    ),
    Order("key.revoke", "Let a key open nothing any more.", _revoke_key, {"key": _NAME}),
)
