"""What a head is good for: hibernating what it covers, and listing what it holds."""

from pathlib import Path

import pytest

from orchestrator.adapters.store import schema, snapshots
from orchestrator.adapters.store.records import SqliteRecords, open_records
from tests.contract.records.snapshot_steps import head_of, in_state, intended, named, saved, state_of, written
from tests.contract.records.steps import ENVIRONMENT, TENANT, opened, ready_session, run_cell, stored
from tests.manual_clock import ManualClock

# --- hibernating -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ready", "snapshotting"])
async def test_a_session_whose_head_covers_all_hibernates(sqlite: SqliteRecords, state: str) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    await saved(sqlite, session)
    await in_state(sqlite, session, state)

    assert await sqlite.hibernate_saved(session.key, 1, 1)
    assert await state_of(sqlite, session) == "hibernated"


@pytest.mark.parametrize("state", ["creating", "hibernated", "destroying"])
async def test_a_session_in_another_state_does_not_hibernate_so(sqlite: SqliteRecords, state: str) -> None:
    session = await ready_session(sqlite)
    await saved(sqlite, session)
    await in_state(sqlite, session, state)

    assert not await sqlite.hibernate_saved(session.key, 1, 0)


async def test_a_session_without_a_head_does_not_hibernate(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await intended(sqlite, session)

    assert not await sqlite.hibernate_saved(session.key, 1, 0)


async def test_a_session_with_activity_that_the_head_does_not_cover_does_not_hibernate(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    await saved(sqlite, session)
    await run_cell(sqlite, session)

    for activity_seen in (1, 2, 3):
        assert not await sqlite.hibernate_saved(session.key, 1, activity_seen)
    assert await state_of(sqlite, session) == "ready"


async def test_a_session_with_an_open_cell_does_not_hibernate(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await saved(sqlite, session)
    await opened(sqlite, session)
    await sqlite._db.write(lambda tx: tx.change("UPDATE snapshots SET head_activity = 9"))

    assert not await sqlite.hibernate_saved(session.key, 1, 1)


# --- listings ----------------------------------------------------------------------------------------------------


async def test_what_the_head_holds_is_listed_without_its_file(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await run_cell(sqlite, session)
    await saved(sqlite, session, named("old"))
    names = (named("x"), named("f", "refused"), named("y", "unrehearsed"))
    await saved(sqlite, session, *names)

    listing = await sqlite.saved_listing(TENANT, "s")

    assert listing is not None
    assert (listing.names, listing.unlisted, listing.execution, listing.python) == (names, 0, 1, "3.11")


async def test_every_way_to_a_session_says_through_which_execution_it_is_saved(sqlite: SqliteRecords) -> None:
    session, other = await ready_session(sqlite), await ready_session(sqlite, "other")
    await sqlite.void_snapshots(other.key, 1)
    for _ in range(2):
        await run_cell(sqlite, session)
    intent = await intended(sqlite, session)
    await run_cell(sqlite, session)
    assert (await stored(sqlite, session.key)).saved_through == 0, "it is only intended"
    await sqlite.snapshot_committed(session.key, written(intent))

    found = await sqlite.find_session(TENANT, "s")
    listed = {row.session_id: row.saved_through for row in await sqlite.sessions(TENANT)}
    hibernated = await sqlite.session_hibernated(session.key, 1)
    creating = await sqlite.begin_creating(session.key, 1)
    ways = [
        found,
        await sqlite.ensure_session(TENANT, "s", ENVIRONMENT),
        await stored(sqlite, session.key),
        hibernated,
        creating,
        await sqlite.session_ready(session.key, 2),
    ]
    assert [way and way.saved_through for way in ways] == [2] * len(ways)
    assert listed == {"s": 2, "other": 0}


async def test_what_is_only_intended_is_not_listed(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await saved(sqlite, session, named("x"))
    await intended(sqlite, session)

    listing = await sqlite.saved_listing(TENANT, "s")
    assert listing is not None
    assert [name.name for name in listing.names] == ["x"]


async def test_a_listing_belongs_to_its_tenant_and_goes_with_its_session(sqlite: SqliteRecords) -> None:
    session = await ready_session(sqlite)
    await saved(sqlite, session, named("x"))
    assert await sqlite.saved_listing("somebody else", "s") is None

    await sqlite.session_destroying(session.key)
    assert await sqlite.saved_listing(TENANT, "s") is None
    assert not await sqlite.void_snapshots(session.key, 1)

    await sqlite.delete_session(session.key)
    assert await sqlite.snapshot_records() == []
    left = await sqlite._db.read(lambda tx: tx.rows("SELECT count(*) AS rows FROM heads")[0]["rows"])
    assert left == 0


async def test_a_worker_reads_the_listing_by_key_and_what_was_refused_apart(sqlite: SqliteRecords) -> None:
    session, other = await ready_session(sqlite), await ready_session(sqlite, "other")
    assert await sqlite.saved_listing_of(session.key) is None
    assert await sqlite.head_refused(session.key) == ()
    await run_cell(sqlite, session)
    await saved(sqlite, session, named("x"), named("f", "refused"), named("y", "unrehearsed"))
    await saved(sqlite, other, named("g", "refused"))

    assert await sqlite.saved_listing_of(session.key) == await sqlite.saved_listing(TENANT, "s")
    assert await sqlite.head_refused(session.key) == (named("f", "refused"),)
    await saved(sqlite, session, named("f"))
    assert await sqlite.head_refused(session.key) == ()

    await sqlite.session_destroying(session.key)
    assert await sqlite.saved_listing_of(session.key) is not None


async def test_a_listing_too_long_for_the_records_keeps_what_was_refused_and_counts_the_rest(
    sqlite: SqliteRecords,
) -> None:
    session = await ready_session(sqlite)
    many = [named(f"v{i}") for i in range(snapshots.LISTED_NAMES + 10)]
    many[-1] = named("lost", "refused")

    await saved(sqlite, session, *many)

    listing = await sqlite.saved_listing(TENANT, "s")
    assert listing is not None
    assert len(listing.names) == snapshots.LISTED_NAMES
    assert listing.unlisted == 10
    assert [name.name for name in listing.names[-2:]] == [f"v{snapshots.LISTED_NAMES - 2}", "lost"]


async def test_records_from_before_snapshots_are_brought_up_to_date(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        async with open_records(path, clock) as records:
            # By hand: what reads sessions today asks for tables that this schema has not.
            row = ("k" * 32, TENANT, "s", "ready", 1, ENVIRONMENT, 0, 0)
            columns = "key, tenant, session_id, state, incarnation, environment, created_at, used_at"
            made = f"INSERT INTO sessions ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - see above
            await records._db.write(lambda tx: tx.change(made, row))

    async with open_records(path, clock) as records:
        session = await stored(records, "k" * 32)
        await saved(records, session)
        assert await head_of(records, session) == 1
