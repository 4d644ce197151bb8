"""The audit only grows: no statement changes it, and only what is old enough goes."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.store.records import open_records
from orchestrator.domain.audit import AuditEntry, AuditQuery
from tests.manual_clock import ManualClock

ENTRY = AuditEntry(
    "execute", "a", "k", "s", 1, 2, None, "f" * 64, None, "ok", 0.5, 0.25, 1000, 12, ("running",), {"x": 1}
)


async def test_what_is_written_is_read_back_in_pages_by_what_is_wanted(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as records:
        began = clock.now()
        for number in range(5):
            tenant = "ab"[number % 2]
            clock.advance(1)
            await records.audit.append_audit([AuditEntry("execute", tenant, "k", f"s{number}")])
        await records.audit.append_audit([ENTRY])
        everything = await records.audit.audit(AuditQuery())
        assert everything[-1].entry == ENTRY
        assert [record.id for record in everything] == [1, 2, 3, 4, 5, 6]
        assert [r.id for r in await records.audit.audit(AuditQuery(tenant="a"), after=1, limit=2)] == [3, 5]
        assert [r.id for r in await records.audit.audit(AuditQuery(session="s3"))] == [4]
        since = AuditQuery(since=began + timedelta(seconds=2), until=began + timedelta(seconds=4))
        assert [r.id for r in await records.audit.audit(since)] == [2, 3]
        assert [r.id for r in await records.audit.audit(AuditQuery(act="clear"))] == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET tenant = 'b'",
        "UPDATE audit SET id = 7",
        "DELETE FROM audit",
        "UPDATE audit_horizon SET at = -1",
        "DELETE FROM audit_horizon",
    ],
)
async def test_nothing_changes_an_entry(statement: str, path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as records:
        await records.audit.append_audit([ENTRY])
    with closing(sqlite3.connect(path)) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    async with open_records(path, clock) as records:
        assert [record.entry for record in await records.audit.audit(AuditQuery())] == [ENTRY]


async def test_only_what_is_old_goes_some_at_a_time(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as records:
        await records.audit.append_audit([ENTRY] * 3)
        clock.advance(100)
        await records.audit.append_audit([ENTRY])
        horizon = clock.now()
        assert await records.audit.trim_audit(horizon, limit=2)
        assert not await records.audit.trim_audit(horizon, limit=2)
        assert [record.id for record in await records.audit.audit(AuditQuery())] == [4]
        # An earlier horizon brings nothing back and takes nothing away.
        assert not await records.audit.trim_audit(horizon - timedelta(days=1))
        assert await records.audit.append_audit([ENTRY]) == [5]


async def test_what_was_used_is_told_of_executions_alone(path: Path, clock: ManualClock) -> None:
    async with open_records(path, clock) as records:
        began = clock.now()
        await records.audit.append_audit([AuditEntry("begin", "a", "k"), ENTRY, AuditEntry("clear", "a", "k")])
        await records.audit.append_audit([AuditEntry("execute", "b", "k", cpu=9.0)])
        assert [(used.at, used.cpu) for used in await records.audit.consumption("a", began)] == [(began, 0.25)]


async def test_a_rows_two_commits_write_its_entries_and_a_second_closing_writes_none(
    path: Path, clock: ManualClock
) -> None:
    beginning, end = AuditEntry("begin", "a", "k", "s"), AuditEntry("execute", "a", "k", "s", 1, 1, outcome="ok")
    async with open_records(path, clock) as records:
        session = await records.ensure_session("a", "s", "e")
        created = await records.begin_creating(session.key, 0)
        assert created is not None
        assert await records.open_execution(session.key, 1, entry=beginning) is None
        assert await records.audit.audit(AuditQuery()) == []
        await records.session_ready(session.key, 1)
        assert await records.open_execution(session.key, 1, entry=beginning) == 1
        clock.advance(1)

        async def close() -> None:
            await records.close_execution(session.key, 1, "ok", bound=[], removed=[], variable_count=0, entry=end)

        await close()
        await close()
        told = [record.entry for record in await records.audit.audit(AuditQuery())]
        assert [(one.act, one.incarnation, one.execution, one.begun) for one in told] == [
            ("begin", 1, 1, None),
            ("execute", 1, 1, 1),
        ]
