"""Keys and tenants as operators manage them: what opens, what does not any more, and what the audit says of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.access import LOCAL_CALLER, Caller, Claims, Issuer
from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.errors import InvalidRequestError, NotFoundError, OrchestratorError, PermissionDeniedError
from orchestrator.services.auditing import Auditing, line_of
from orchestrator.services.keyring import Keyring
from orchestrator.services.tasks import Tasks
from orchestrator.services.tenants import Tenants
from tests.manual_clock import ManualClock

DAY = 86_400


@dataclass
class Office:
    records: SqliteRecords
    clock: ManualClock
    keyring: Keyring
    audit: Auditing
    tenants: Tenants

    async def acts(self) -> list[str]:
        return [record.entry.act async for record in self.audit.entries(AuditQuery())]

    async def opens(self, token: str) -> bool:
        return await self.keyring.verify(token) is not None


@asynccontextmanager
async def office(path: Path, issuer: Issuer | None = None) -> AsyncIterator[Office]:
    clock = ManualClock()
    async with open_records(path / "records", clock) as records, asyncio.TaskGroup() as group:
        audit = Auditing(records.audit, Tasks(group), clock)
        keyring = Keyring(records.tenants, clock, issuer)
        yield Office(records, clock, keyring, audit, Tenants(records.tenants, keyring, clock))


async def test_a_key_opens_its_tenant_with_its_scopes(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        tenant = await opened.tenants.create("team a", by=LOCAL_CALLER)
        issued = await opened.tenants.create_key("team a", "laptop", by=LOCAL_CALLER, scopes=["read"])
        caller = await opened.keyring.verify(issued.token)
        assert caller == Caller(tenant.id, issued.key.id, "laptop", frozenset({"read"}))
        assert await opened.keyring.current(caller)


def all_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.iterdir())


async def test_a_secret_stands_nowhere_in_the_data_directory(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        issued = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER)
        rotated = await opened.tenants.rotate_key(issued.key.id, by=LOCAL_CALLER)
        stored = all_of(tmp_path)
        for token in (issued.token, rotated.token):
            prefix, secret = token.removeprefix("so_").split("_")
            assert prefix.encode() in stored
            assert secret.encode() not in stored
            assert bytes.fromhex(secret) not in stored
            assert secret not in repr(issued) + repr(rotated)


async def test_wrong_keys_open_nothing(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        one = await opened.tenants.create_key("local", "one", by=LOCAL_CALLER)
        other = await opened.tenants.create_key("local", "other", by=LOCAL_CALLER)
        crossed = f"so_{one.key.id}_{other.token.split('_')[2]}"
        for token in ("", "so_", crossed, one.token[:-1], one.token + "0", f"Bearer {one.token}"):
            assert not await opened.opens(token)


async def test_a_key_expires_at_its_time_also_for_who_was_verified_before(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        issued = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER, expires_in=60)
        caller = await opened.keyring.verify(issued.token)
        assert caller is not None
        opened.clock.advance(59)
        assert await opened.keyring.current(caller)
        opened.clock.advance(1)
        assert not await opened.keyring.current(caller)
        assert not await opened.opens(issued.token)


async def test_a_revoked_key_opens_nothing_from_that_moment(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        issued = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER)
        caller = await opened.keyring.verify(issued.token)
        assert caller is not None
        await opened.tenants.revoke_key(issued.key.id, by=LOCAL_CALLER)
        assert not await opened.keyring.current(caller)
        assert not await opened.opens(issued.token)
        with pytest.raises(NotFoundError):
            await opened.tenants.revoke_key(issued.key.id, by=LOCAL_CALLER)


async def test_a_revocation_counts_whose_caller_went_away_while_it_was_written(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        issued = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER)
        assert await opened.opens(issued.token)
        for steps in range(12):
            revoking = asyncio.create_task(opened.tenants.revoke_key(issued.key.id, by=LOCAL_CALLER))
            for _ in range(steps):
                await asyncio.sleep(0)
            revoking.cancel()
            await asyncio.wait([revoking])
            (stored,) = [key for key in await opened.records.tenants.keys() if key.id == issued.key.id]
            assert await opened.opens(issued.token) == (stored.revoked_at is None)
        await asyncio.wait([asyncio.create_task(opened.tenants.revoke_key(issued.key.id, by=LOCAL_CALLER))])
        assert not await opened.opens(issued.token)


async def test_the_old_key_is_valid_for_the_overlap_and_no_longer_than_it_was(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        old = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER, scopes=["read"], expires_in=DAY)
        new = await opened.tenants.rotate_key(old.key.id, by=LOCAL_CALLER, overlap=60)
        assert (new.key.name, new.key.scopes, new.key.expires_at) == ("k", old.key.scopes, None)
        assert await opened.opens(old.token)
        assert await opened.opens(new.token)
        opened.clock.advance(60)
        assert not await opened.opens(old.token)
        assert await opened.opens(new.token)
        with pytest.raises(NotFoundError):
            await opened.tenants.rotate_key(old.key.id, by=LOCAL_CALLER)
        short = await opened.tenants.create_key("local", "s", by=LOCAL_CALLER, expires_in=10)
        await opened.tenants.rotate_key(short.key.id, by=LOCAL_CALLER, overlap=DAY)
        opened.clock.advance(10)
        assert not await opened.opens(short.token)


async def test_without_an_overlap_the_old_key_is_over_at_once(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        old = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER)
        await opened.tenants.rotate_key(old.key.id, by=LOCAL_CALLER)
        assert not await opened.opens(old.token)


async def test_a_disabled_tenant_has_no_key_that_opens_until_it_is_enabled(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        await opened.tenants.create("a", by=LOCAL_CALLER)
        issued = await opened.tenants.create_key("a", "k", by=LOCAL_CALLER)
        caller = await opened.keyring.verify(issued.token)
        assert caller is not None
        await opened.tenants.change("a", by=LOCAL_CALLER, disabled=True)
        assert not await opened.keyring.current(caller)
        assert not await opened.opens(issued.token)
        await opened.tenants.change("a", by=LOCAL_CALLER, disabled=False)
        assert await opened.keyring.current(caller)


async def test_the_last_use_is_noted_now_and_then_and_survives(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        issued = await opened.tenants.create_key("local", "k", by=LOCAL_CALLER)
        for _ in range(5):
            assert await opened.opens(issued.token)
        assert [key.used_at for key in await opened.records.tenants.keys()] == [None]
        await opened.keyring.note_use()
        assert [key.used_at for key in await opened.records.tenants.keys()] == [opened.clock.now()]


async def test_only_an_operator_manages_tenants_and_keys(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        user = replace(LOCAL_CALLER, scopes=frozenset({"use", "read"}))
        for act in (
            opened.tenants.create("a", by=user),
            opened.tenants.change("local", by=user, disabled=True),
            opened.tenants.create_key("local", "k", by=user),
            opened.tenants.rotate_key("0" * 12, by=user),
            opened.tenants.revoke_key("0" * 12, by=user),
        ):
            with pytest.raises(PermissionDeniedError):
                await act
        assert await opened.acts() == []


async def test_what_is_no_tenant_no_quota_or_no_scope_is_refused(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        by = LOCAL_CALLER
        await opened.tenants.create("a", by=by)
        for act in (
            opened.tenants.create("a", by=by),
            opened.tenants.create("", by=by),
            opened.tenants.create("b", by=by, weight=0),
            opened.tenants.create("b", by=by, quotas={"sesions": 1}),
            opened.tenants.create("b", by=by, quotas={"memory": 1}),
            opened.tenants.create_key("a", "k", by=by, scopes=[]),
            opened.tenants.create_key("a", "k", by=by, scopes=["root"]),  # type: ignore[list-item]
            opened.tenants.create_key("a", "k", by=by, expires_in=-1),
        ):
            with pytest.raises(InvalidRequestError):
                await act
        with pytest.raises(NotFoundError):
            await opened.tenants.create_key("b", "k", by=by)
        assert [tenant.name for tenant in await opened.tenants.list()] == ["local", "a"]


async def test_every_act_is_in_the_audit_and_no_secret_is(tmp_path: Path) -> None:
    async with office(tmp_path) as opened:
        by = replace(LOCAL_CALLER, key_id="operator")
        await opened.tenants.create("a", by=by, quotas={"sessions": 5})
        await opened.tenants.change("a", by=by, weight=2)
        issued = await opened.tenants.create_key("a", "k", by=by)
        rotated = await opened.tenants.rotate_key(issued.key.id, by=by)
        await opened.tenants.revoke_key(rotated.key.id, by=by)
        acts = ["create tenant", "change tenant", "create key", "rotate key", "revoke key"]
        assert await opened.acts() == acts
        lines = [json.dumps(line_of(record)) async for record in opened.audit.entries(AuditQuery(key="operator"))]
        assert len(lines) == len(acts)
        for token in (issued.token, rotated.token):
            assert all(token.split("_")[2] not in line for line in lines)


async def test_no_act_is_done_whose_entry_cannot_be_written_and_no_entry_tells_of_one_that_is_not(
    tmp_path: Path,
) -> None:
    """One transaction has both, so that no end of the owner between them can part them."""
    refuse = "CREATE TRIGGER refused BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'refused'); END"
    async with office(tmp_path) as opened:
        await opened.tenants.create("a", by=LOCAL_CALLER)
        issued = await opened.tenants.create_key("a", "k", by=LOCAL_CALLER)
        before = await opened.acts()
        with pytest.raises(InvalidRequestError):
            await opened.tenants.create("a", by=LOCAL_CALLER)
        with pytest.raises(NotFoundError):
            await opened.tenants.rotate_key("0" * 12, by=LOCAL_CALLER)
        assert await opened.acts() == before
        held = await opened.records.tenants.tenants(), await opened.records.tenants.keys()
        await opened.records._db.run(lambda raw: raw.execute(refuse))
        for act in (
            opened.tenants.create("b", by=LOCAL_CALLER),
            opened.tenants.change("a", by=LOCAL_CALLER, disabled=True),
            opened.tenants.create_key("a", "other", by=LOCAL_CALLER),
            opened.tenants.rotate_key(issued.key.id, by=LOCAL_CALLER),
            opened.tenants.revoke_key(issued.key.id, by=LOCAL_CALLER),
        ):
            with pytest.raises(OrchestratorError):
                await act
        assert (await opened.records.tenants.tenants(), await opened.records.tenants.keys()) == held
        assert await opened.opens(issued.token)


class Provider(Issuer):
    def __init__(self, claims: Claims | None) -> None:
        self.claims = claims

    async def read(self, token: str) -> Claims | None:
        return self.claims if token == "jwt" else None  # noqa: S105 - a pretended one


async def test_a_token_of_an_issuer_opens_the_tenant_that_it_names_until_it_expires(tmp_path: Path) -> None:
    provider = Provider(None)
    async with office(tmp_path, provider) as opened:
        tenant = await opened.tenants.create("a", by=LOCAL_CALLER)
        until = opened.clock.now().replace(year=opened.clock.now().year + 1)
        provider.claims = Claims("a", "user@example.org", frozenset({"use"}), until)
        caller = await opened.keyring.verify("jwt")
        assert caller is not None
        assert (caller.tenant, caller.key_id, caller.expires_at) == (tenant.id, "jwt:user@example.org", until)
        assert await opened.keyring.current(caller)
        assert not await opened.keyring.current(replace(caller, expires_at=opened.clock.now()))
        for claims in (replace(provider.claims, tenant="b"), replace(provider.claims, scopes=frozenset()), None):
            provider.claims = claims
            assert not await opened.opens("jwt")
        await opened.tenants.change("a", by=LOCAL_CALLER, disabled=True)
        assert not await opened.keyring.current(caller)
