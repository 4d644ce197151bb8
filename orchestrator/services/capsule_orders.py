"""Orders about sessions that leave and come, and about who may have signed them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from orchestrator.domain.access import SCOPES, Caller
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.orders import MAX_CHUNK_BYTES, Answer, Field
from orchestrator.domain.signing import TrustedSigner, fingerprint
from orchestrator.services.importing import ImportReport
from orchestrator.services.orders import Call, Order


async def _of_tenant(call: Call) -> Caller:
    tenant = await call.desk.tenants.find(call.given["tenant"])
    return replace(call.by, tenant=tenant.id, scopes=frozenset(SCOPES))


async def _export(call: Call) -> AsyncGenerator[Answer, None]:
    given, exports = call.given, call.desk.whole.capsules.exports
    capsule = exports.export(given["session"], sequence=given["sequence"], caller=await _of_tenant(call))
    written = 0
    async with aclosing(capsule) as chunks:
        async for chunk in chunks:
            written += len(chunk)
            for part in _parts(chunk):
                yield part
    yield {"session": given["session"], "bytes": written, "signed_by": call.desk.whole.capsules.trust.own_key()}


async def _notebook(call: Call) -> AsyncGenerator[Answer, None]:
    text = await call.desk.whole.capsules.exports.notebook(call.given["session"], caller=await _of_tenant(call))
    written = text.encode()
    for part in _parts(written):
        yield part
    yield {"session": call.given["session"], "bytes": len(written)}


def _parts(chunk: bytes) -> list[bytes]:
    return [chunk[start : start + MAX_CHUNK_BYTES] for start in range(0, len(chunk), MAX_CHUNK_BYTES)]


async def _import(call: Call) -> AsyncGenerator[Answer, None]:
    imports = call.desk.whole.capsules.imports
    yield _report(await imports.bring_in(call.given["session"], call.chunks, caller=await _of_tenant(call)))


def _report(report: ImportReport) -> dict[str, Any]:
    return {
        "session": report.session_id,
        "executions": report.executions,
        "names": report.names,
        "files": report.files,
        "stored_bytes": report.stored_bytes,
        "written_at": report.written_at.isoformat(),
        "signer": report.signer,
        "key": report.key,
        "fingerprint": report.fingerprint,
        "product": report.product,
        "python": report.python,
        "environment": report.environment,
        "notes": list(report.notes),
    }


async def _trusted(call: Call) -> AsyncGenerator[Answer, None]:
    for signer in await call.desk.whole.capsules.trust.list():
        yield _signer(signer)


async def _own_key(call: Call) -> AsyncGenerator[Answer, None]:
    key = call.desk.whole.capsules.trust.own_key()
    yield {"key": key, "fingerprint": fingerprint(key)}


async def _trust(call: Call) -> AsyncGenerator[Answer, None]:
    trust = call.desk.whole.capsules.trust
    yield _signer(await trust.add(call.given["name"], call.given["key"], by=call.by))


async def _distrust(call: Call) -> AsyncGenerator[Answer, None]:
    await call.desk.whole.capsules.trust.remove(call.given["name"], by=call.by)
    yield {"name": call.given["name"], "removed": True}


def _signer(signer: TrustedSigner) -> dict[str, Any]:
    return {
        "name": signer.name,
        "key": signer.key,
        "fingerprint": fingerprint(signer.key),
        "added_at": signer.added_at.isoformat(),
    }


_SESSION: Final = {"session": Field("text", required=True), "tenant": Field("text", default=LOCAL_TENANT)}
_NAME: Final = Field("text", required=True)
CAPSULE_ORDERS: Final = (
    Order(
        "session.export",
        "The session in one signed file, as a stream; without a sequence as it is now, saved for it.",
        _export,
        {**_SESSION, "sequence": Field("integer", least=1)},
        basis="whole",
        gives_stream=True,
    ),
    Order(
        "session.notebook",
        "The cells that are kept, and what they showed, as a notebook; nothing is woken.",
        _notebook,
        _SESSION,
        reads=True,
        basis="whole",
        gives_stream=True,
    ),
    Order(
        "session.import",
        "A new session out of such a file, asleep.",
        _import,
        _SESSION,
        basis="whole",
        takes_stream=True,
    ),
    Order("trust.list", "Whose capsules may be imported.", _trusted, reads=True, basis="whole"),
    Order("trust.key", "The public key that others are to trust for our capsules.", _own_key, basis="whole"),
    Order(
        "trust.add",
        "Let that signer's capsules be imported, under a name of our choice.",
        _trust,
        {"name": _NAME, "key": Field("text", required=True)},
        basis="whole",
    ),
    Order("trust.remove", "Let them be imported no more.", _distrust, {"name": _NAME}, basis="whole"),
)
