"""A session that begins with a past: whole in one transaction, or not at all."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.domain.errors import QuotaError
from orchestrator.domain.import_ports import Arrival
from orchestrator.domain.model import ExecutionRecord, SessionState
from tests.contract.records.snapshot_steps import written
from tests.contract.records.steps import TENANT

AT = datetime(2030, 1, 2, tzinfo=UTC)
PAST = (ExecutionRecord(6, 0, "ok", AT, AT, ("x",), ()), ExecutionRecord(7, 0, "never_arrived", AT, None, (), ()))


async def arrival(sqlite: SqliteRecords, name: str = "came") -> Arrival:
    intent = await sqlite.imports.plan_import(7, 99)
    return Arrival(TENANT, name, intent, written(intent), PAST)


async def test_it_is_there_with_its_past_its_head_and_a_seed_of_its_own(sqlite: SqliteRecords) -> None:
    coming = await arrival(sqlite)
    assert await sqlite.find_session(TENANT, "came") is None, "planning changes nothing"

    session = await sqlite.imports.import_session(coming, most=1)

    assert session is not None
    assert session == await sqlite.find_session(TENANT, "came")
    assert (session.key, session.state, session.executions) == (coming.intent.key, SessionState.HIBERNATED, 7)
    assert (session.saved_through, session.namespace_since) == (7, 8)
    assert await sqlite.executions(TENANT, "came") == list(PAST[::-1])
    record = await sqlite.snapshot_record(session.key)
    assert record is not None
    assert (record.head, record.intended, record.since, record.head_activity) == (1, None, 1, session.activity)
    assert record.seed not in (99, None)
    assert await sqlite.begin_creating(session.key, 0) is not None, "it can be woken"


async def test_a_name_that_is_taken_and_a_quota_that_is_full_change_nothing(sqlite: SqliteRecords) -> None:
    first = await arrival(sqlite)
    await sqlite.imports.import_session(first, most=None)

    assert await sqlite.imports.import_session(await arrival(sqlite), most=None) is None
    with pytest.raises(QuotaError):
        await sqlite.imports.import_session(await arrival(sqlite, "other"), most=1)

    assert [session.key for session in await sqlite.all_sessions()] == [first.intent.key]
    assert [record.session for record in await sqlite.snapshot_records()] == [first.intent.key]


async def test_each_plan_has_a_key_that_nobody_has(sqlite: SqliteRecords) -> None:
    one, other = await sqlite.imports.plan_import(0, 1), await sqlite.imports.plan_import(0, 1)

    assert one.key != other.key
    assert replace(one, key=other.key) == other
