"""Orders about all that is stored: checked, measured, made smaller, backed up."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.domain.audit import Act, AuditEntry
from orchestrator.domain.errors import InvalidRequestError, PermissionDeniedError
from orchestrator.domain.model import Session
from orchestrator.domain.orders import Answer, Field, Progress
from orchestrator.services.orders import Call, Order

_LARGEST: Final = 10  # sessions
_MOST_STEPS: Final = 100_000  # of making smaller, some hundred KiB each
_IN_USE_SECONDS: Final = 0.2
_MOST_WAITS: Final = 150  # in a row, for records that are in use
_PROGRESS_SECONDS: Final = 0.5


async def _check(call: Call) -> AsyncGenerator[Answer, None]:
    whole = call.desk.whole
    yield Progress("reading the records", 0, None, "faults")
    faults = [f"the records: {fault}" for fault in await whole.store.faults()]
    yield Progress("reading all snapshots", 0, None, "sessions")
    report = await whole.histories.check()
    yield {
        "sessions": report.sessions,
        "snapshots": report.snapshots,
        "pieces": report.pieces,
        "problems": [*faults, *report.problems],
    }


async def _stats(call: Call) -> AsyncGenerator[Answer, None]:
    sizes = await call.desk.whole.store.sizes()
    largest = sorted(sizes.files.items(), key=lambda file: (-file[1], file[0]))[:_LARGEST]
    known = {session.key: session for session in await call.desk.records.all_sessions()} if largest else {}
    tenants = {tenant.id: tenant.name for tenant in await call.desk.tenants.list()}
    yield {
        "schema": sizes.schema,
        "records_bytes": sizes.records,
        "log_bytes": sizes.log,
        "free_bytes": sizes.free,
        "tables": [{"table": one.name, "rows": one.rows, "bytes": one.bytes} for one in sizes.tables],
        "files": len(sizes.files),
        "files_bytes": sum(sizes.files.values()),
        "largest": [{**_named(known.get(key), tenants), "key": key, "bytes": size} for key, size in largest],
    }


def _named(session: Session | None, tenants: dict[str, str]) -> dict[str, str | None]:
    if session is None:
        return {"session": None, "tenant": None}
    return {"session": session.session_id, "tenant": tenants.get(session.tenant, session.tenant)}


async def _vacuum(call: Call) -> AsyncGenerator[Answer, None]:
    whole = call.desk.whole
    before = await whole.store.sizes()
    waited = 0
    for _ in range(_MOST_STEPS):
        state = await whole.store.maintain()
        if state == "done" or waited >= _MOST_WAITS:
            break
        waited = waited + 1 if state == "in use" else 0
        await asyncio.sleep(_IN_USE_SECONDS if state == "in use" else 0)
    keys, told_at = sorted(before.files), 0.0
    for number, key in enumerate(keys):
        while await whole.store.collect(key):
            pass
        if (now := asyncio.get_running_loop().time()) - told_at >= _PROGRESS_SECONDS:
            told_at = now
            yield Progress("looking through files", number + 1, len(keys), "sessions")
    after = await whole.store.sizes()
    files = sum(size - after.files.get(key, size) for key, size in before.files.items())
    records = before.records + before.log - after.records - after.log
    await _note(call, "vacuum", {"records_bytes": records, "files_bytes": files})
    yield {"records_bytes": max(0, records), "files_bytes": max(0, files), "records_in_use": waited >= _MOST_WAITS}


async def _back_up(call: Call) -> AsyncGenerator[Answer, None]:
    if call.by != LOCAL_CALLER:
        raise PermissionDeniedError(
            "A backup is made only for who is on the server's machine: its target is a path there.",
            hint="Run `orchestrator db backup` there.",
        )
    target = call.given["target"]
    if not target.startswith("/"):
        raise InvalidRequestError(
            f"The target {target!r} is no absolute path.", hint="Its owner makes the backup, who works elsewhere."
        )
    done: list[tuple[int, int]] = []
    making = asyncio.create_task(
        call.desk.whole.store.back_up(target, lambda copied, of: done.append((copied, of))), name="make a backup"
    )
    try:
        while not making.done():
            await asyncio.wait([making], timeout=_PROGRESS_SECONDS)
            if done and not making.done():
                yield Progress("copying sessions", *done[-1], "sessions")
    finally:
        making.cancel()
        await asyncio.wait([making])
    making.result()
    await _note(call, "back up", {"target": target})
    yield {"target": target, "sessions": done[-1][1] if done else 0}


async def _note(call: Call, act: Act, detail: dict[str, str | int]) -> None:
    by = call.by
    await call.desk.audit.note(AuditEntry(act, by.tenant, by.key_id, outcome="ok", detail=detail))


STORE_ORDERS: Final = (
    Order("db.check", "Read and verify all that is stored; changes nothing.", _check, reads=True, basis="whole"),
    Order("db.stats", "What takes how much.", _stats, reads=True, basis="whole"),
    Order("db.vacuum", "Give back to the disk what nothing needs; holds up no call.", _vacuum, basis="whole"),
    Order(
        "db.backup",
        "Make a backup in a directory of that name, an absolute path where the owner can write.",
        _back_up,
        {"target": Field("text", required=True)},
        basis="whole",
    ),
)
