"""Sessions that leave one installation for another: whole, and signed by somebody who is trusted, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.audit import AuditQuery
from orchestrator.domain.capsule_reading import CapsuleRefusedError
from orchestrator.domain.errors import (
    InvalidRequestError,
    PermissionDeniedError,
    QuotaError,
    SessionNotFoundError,
    StoreFullError,
)
from orchestrator.domain.model import SessionState
from orchestrator.services.importing import ImportReport
from tests.unit import capsules
from tests.unit.pretended_engine import FullOnce, House, house


async def exported(opened: House, session_id: str = "s", sequence: int | None = None) -> list[bytes]:
    async with aclosing(opened.tenancy.capsules.exports.export(session_id, sequence=sequence)) as chunks:
        return [chunk async for chunk in chunks]


async def chunked(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def bring(
    opened: House, capsule: bytes | Sequence[bytes], session_id: str = "t", **given: Caller
) -> ImportReport:
    chunks = [capsule] if isinstance(capsule, bytes) else capsule
    return await opened.tenancy.capsules.imports.bring_in(session_id, chunked(chunks), **given)


async def nothing_stayed(opened: House, *sessions: str) -> None:
    assert {session.session_id for session in await opened.records.all_sessions()} == set(sessions)
    assert await opened.pieces.keys() <= {session.key for session in await opened.records.all_sessions()}
    assert not (await opened.histories.check()).problems


async def filled(path: Path) -> list[bytes]:
    """The capsule of another installation."""
    async with house(path) as opened:
        await opened.run("x = 1\nfile a.txt hello")
        await opened.run("y = 2")
        return await exported(opened)


async def test_a_session_goes_on_in_another_installation(tmp_path: Path) -> None:
    capsule = await filled(tmp_path / "one")
    async with house(tmp_path / "two") as opened:
        key = b"".join(capsule).split(b'"signer":"')[1][:64].decode()
        await opened.tenancy.capsules.trust.add("anna", key, by=LOCAL_CALLER)
        report = await bring(opened, capsule)
        assert (report.session_id, report.executions, report.signer, report.key) == ("t", 2, "anna", key)
        assert "'anna'" in report.notes[0]
        assert "code of its author runs" in report.notes[0]
        session = await opened.records.find_session("local", "t")
        assert session is not None
        assert (session.state, session.saved_through, session.executions) == (SessionState.HIBERNATED, 2, 2)
        first = await opened.tenancy.lookups.result("t", 1, tenant="local")
        assert first.outcome == "ok"
        assert first.result is not None
        assert await opened.value("x", "t") == "1"
        assert await opened.value("y", "t") == "2"
        assert opened.agent.files == {"a.txt": "hello"}
        assert (await opened.run("x", "t")).execution == 5
        await opened.save("t")
        assert opened.agent.orders[0].head is None, "its digests were made under another seed"
        acts = [record.entry.act async for record in opened.tenancy.audit.entries(AuditQuery())]
        assert acts == ["trust signer", "import"]
        assert not (await opened.histories.check()).problems


async def test_an_export_leaves_the_session_a_secret_seed(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.histories.fork("s", "fork")
        told = (await opened.histories.history("s")).snapshots[0].seed
        capsule = b"".join(await exported(opened, "fork", sequence=1))
        assert f'"seed":"{told}"'.encode() in capsule
        for record in await opened.records.snapshot_records():
            assert record.seed != told, "also that of the session that it was forked from"
        await opened.run("x = 2")
        await opened.save()
        await opened.hibernate()
        assert await opened.value("x") == "2"


async def test_our_own_capsules_need_no_trust_and_take_only_a_new_id(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        capsule = await exported(opened)
        with pytest.raises(InvalidRequestError, match="already"):
            await bring(opened, capsule, "s")
        assert (await bring(opened, capsule)).signer == ""
        await opened.run("x = 2")
        assert await opened.value("x", "t") == "1"
        with pytest.raises(SessionNotFoundError):
            await exported(opened, "nobody")


async def test_a_foreign_signer_is_named_and_refused_until_trusted_and_after_that_trust_ended(tmp_path: Path) -> None:
    capsule = capsules.whole()
    async with house(tmp_path) as opened:
        trust = opened.tenancy.capsules.trust
        with pytest.raises(PermissionDeniedError, match=capsules.HEADER.signer):
            await bring(opened, capsule)
        await nothing_stayed(opened)
        await trust.add("anna", capsules.HEADER.signer, by=LOCAL_CALLER)
        for name, key in (("anna", "0" * 64), ("eve", capsules.HEADER.signer), ("eve", "key")):
            with pytest.raises(InvalidRequestError):
                await trust.add(name, key, by=LOCAL_CALLER)
        assert (await bring(opened, capsule)).signer == "anna"
        await trust.remove("anna", by=LOCAL_CALLER)
        with pytest.raises(PermissionDeniedError):
            await bring(opened, capsule, "u")
        with pytest.raises(PermissionDeniedError):
            await trust.add("x", "0" * 64, by=replace(LOCAL_CALLER, scopes=frozenset({"use"})))
        with pytest.raises(InvalidRequestError):
            await trust.remove("anna", by=LOCAL_CALLER)
        await nothing_stayed(opened, "t")


async def test_who_signed_with_another_key_than_is_named_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.tenancy.capsules.trust.add("anna", capsules.HEADER.signer, by=LOCAL_CALLER)
        forged = capsules.whole(key=Ed25519PrivateKey.generate())
        with pytest.raises(CapsuleRefusedError, match="signature"):
            await bring(opened, forged)
        await nothing_stayed(opened)


@pytest.mark.parametrize("length", [0, 5, 300, len(capsules.whole()) - 90, len(capsules.whole()) - 1])
async def test_nothing_stays_of_a_capsule_that_ends_too_early(tmp_path: Path, length: int) -> None:
    async with house(tmp_path) as opened:
        await opened.tenancy.capsules.trust.add("anna", capsules.HEADER.signer, by=LOCAL_CALLER)
        with pytest.raises(CapsuleRefusedError):
            await bring(opened, capsules.whole()[:length])
        await nothing_stayed(opened)


@pytest.mark.parametrize("method", ["import_session"])
async def test_nothing_stays_where_the_records_take_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        capsule = await exported(opened)
        FullOnce(monkeypatch, opened.records.imports, method)
        with pytest.raises(StoreFullError):
            await bring(opened, capsule)
        await nothing_stayed(opened, "s")
        await bring(opened, capsule)
        assert await opened.value("x", "t") == "1"


async def test_whoever_is_cancelled_before_the_end_leaves_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        capsule = await exported(opened)
        reached = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            for chunk in capsule[:-1]:
                yield chunk
            reached.set()
            await asyncio.Event().wait()

        importing = asyncio.create_task(opened.tenancy.capsules.imports.bring_in("t", slowly()))
        await reached.wait()
        assert await opened.records.find_session("local", "t") is None, "nothing counts before the end"
        assert not (await opened.histories.check()).problems, "nor is it taken for a stray"
        importing.cancel()
        await asyncio.wait([importing])
        assert importing.cancelled()
        await nothing_stayed(opened, "s")


async def test_a_name_that_somebody_takes_meanwhile_stays_theirs(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        capsule = await exported(opened)

        async def slowly() -> AsyncIterator[bytes]:
            for chunk in capsule[:-1]:
                yield chunk
            await opened.run("x = 5", "t")
            yield capsule[-1]

        with pytest.raises(InvalidRequestError, match="already"):
            await opened.tenancy.capsules.imports.bring_in("t", slowly())
        assert await opened.value("x", "t") == "5"
        await nothing_stayed(opened, "s", "t")


async def test_an_import_stays_within_the_quotas_of_its_tenant(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        capsule = capsules.whole()
        await opened.tenancy.capsules.trust.add("anna", capsules.HEADER.signer, by=LOCAL_CALLER)
        for quota in ({"sessions": 0}, {"stored_bytes": 5}, {"files": 0}):
            tenant = await opened.tenancy.tenants.create("-".join(quota), by=LOCAL_CALLER, quotas=quota)
            with pytest.raises(QuotaError):
                await bring(opened, capsule, caller=replace(LOCAL_CALLER, tenant=tenant.id))
        with pytest.raises(PermissionDeniedError):
            await bring(opened, capsule, caller=replace(LOCAL_CALLER, scopes=frozenset({"read"})))
        await nothing_stayed(opened)


async def test_a_capsule_of_an_environment_that_is_not_here_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.tenancy.capsules.trust.add("anna", capsules.HEADER.signer, by=LOCAL_CALLER)
        elsewhere = capsules.whole(manifest=replace(capsules.MANIFEST, environment="0" * 64))
        report = await bring(opened, elsewhere)
        assert any("is not here" in note for note in report.notes)


@pytest.mark.parametrize(
    ("store", "method", "is_there"),
    [("pieces", "begin", False), ("pieces", "note_cells", False), ("imports", "import_session", True)],
)
async def test_an_owner_that_is_killed_on_the_way_leaves_a_whole_session_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, method: str, *, is_there: bool
) -> None:
    async with house(tmp_path / "one") as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        capsule = await exported(opened, sequence=1)
        target = opened.pieces if store == "pieces" else opened.records.imports
        genuine, copies = getattr(target, method), []

        async def killed_after(*given: object, **named: object) -> object:
            answer = await genuine(*given, **named)
            copies.append(opened.die())
            return answer

        monkeypatch.setattr(target, method, killed_after)
        await bring(opened, capsule)
    async with house(copies[0]) as next_owner:
        names = {session.session_id for session in await next_owner.records.all_sessions()}
        assert names == ({"s", "t"} if is_there else {"s"})
        for name in names:
            assert await next_owner.value("x", name) == "1"
        problems = (await next_owner.histories.check()).problems
        assert len(problems) == len(await next_owner.pieces.aside()) == (0 if is_there else 1), problems
