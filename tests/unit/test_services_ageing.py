"""Sessions that nobody uses grow inactive, expire and are deleted, and a call always wins."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.domain.ageing import Age, AgedSession, AgeingPolicy
from orchestrator.domain.errors import EngineUnavailableError, SessionDeletedError, SessionNotFoundError
from orchestrator.domain.model import ExecutionResult, Session, SessionState
from orchestrator.domain.ticks import Counted
from orchestrator.domain.upkeep import Due
from orchestrator.services.equipment import Limits
from orchestrator.services.slots import Ticket
from tests.manual_clock import ManualClock
from tests.unit.pretended_engine import FullOnce, House, house, until

DAY = 86_400.0
INACTIVE, EXPIRED, DESTROYING = SessionState.INACTIVE, SessionState.EXPIRED, SessionState.DESTROYING
GONE = None


async def state(opened: House, session_id: str = "s") -> SessionState | None:
    rows = await opened.records.all_sessions()
    return next((row.state for row in rows if row.session_id == session_id), GONE)


async def asleep(opened: House, session_id: str = "s") -> None:
    """A session with something in it that sleeps, in an orchestrator that has looked at the clock."""
    await opened.run("x = 1\nfile a.txt hello", session_id)
    assert await opened.hibernate(session_id)
    await opened.sweep()


async def expired(opened: House) -> None:
    await asleep(opened)
    await opened.sweep()
    await opened.sweep(31 * DAY)
    assert await state(opened) is EXPIRED


async def watched(opened: House, seconds: float) -> None:
    """That much passes under somebody's eyes, but for the last minute."""
    for _ in range(int(seconds // 600)):
        await opened.sweep(600)


async def doomed(opened: House) -> Age:
    """What the next round would do to the session: delete it."""
    await expired(opened)
    await watched(opened, DAY - 600)
    opened.clock.advance(600)
    (age,) = [action for action in (await opened.sweeper.due()).actions if isinstance(action, Age)]
    assert age.target is DESTROYING
    return age


async def files(opened: House) -> frozenset[str]:
    return await opened.pieces.keys()


async def test_a_session_that_nobody_uses_is_inactive_then_expired_then_gone_with_its_file(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        await opened.sweep()
        await opened.sweep(7 * DAY - 60)
        assert await state(opened) is SessionState.HIBERNATED
        await opened.sweep()
        assert await state(opened) is INACTIVE
        await opened.sweep(23 * DAY - 60)
        assert await state(opened) is INACTIVE
        await opened.sweep()
        assert await state(opened) is EXPIRED
        await watched(opened, DAY - 600)
        assert await state(opened) is EXPIRED
        assert len(await files(opened)) == 1
        await opened.sweep(600)
        assert await state(opened) is GONE
        assert await files(opened) == frozenset()
        assert not opened.sessions.in_use()
        await opened.assert_nothing_leaks()
        assert (await opened.run("x")).value == "NameError", "the name is free"


@pytest.mark.parametrize("days", [8, 31])
async def test_an_old_session_wakes_as_usual_and_is_young_again(tmp_path: Path, days: int) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        await opened.sweep()
        await opened.sweep(days * DAY)
        assert await state(opened) is (INACTIVE if days == 8 else EXPIRED)
        result = await opened.run("x")
        assert (result.value, result.notes) == ("1", ())
        assert opened.agent.files == {"a.txt": "hello"}
        await opened.hibernate()
        await opened.sweep(6 * DAY)
        assert await state(opened) is SessionState.HIBERNATED


async def test_a_session_that_lives_never_ages(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.sweep()
        for _ in range(4):
            await opened.sweep(20 * DAY)
        assert await state(opened) is SessionState.READY
        assert await opened.value("x") == "1"


async def test_an_expired_session_is_not_listed_and_its_variables_still_are(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await expired(opened)
        assert await opened.sessions.list_sessions() == []
        listing = await opened.sessions.list_variables("s")
        assert [variable.name for variable in listing.variables] == ["x"]
        assert await state(opened) is EXPIRED, "looking is no use"


Use = Callable[[House], Awaitable[object]]


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda opened: opened.sessions.clear("s"), id="clear"),
        pytest.param(lambda opened: opened.histories.roll_back("s", 1), id="roll back"),
        pytest.param(lambda opened: opened.histories.fork("s", "t"), id="fork"),
        pytest.param(lambda opened: opened.histories.fork("s", "t", sequence=1), id="fork of a snapshot"),
    ],
)
async def test_a_session_that_is_used_without_being_woken_is_no_longer_old(tmp_path: Path, use: Use) -> None:
    async with house(tmp_path) as opened:
        await expired(opened)
        await use(opened)
        assert await state(opened) is SessionState.HIBERNATED
        await opened.sweep(6 * DAY)
        assert await state(opened) is SessionState.HIBERNATED


async def test_a_call_that_could_not_wake_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> None:
        raise EngineUnavailableError("No engine answers.")

    async with house(tmp_path) as opened:
        await expired(opened)
        with monkeypatch.context() as patched:
            patched.setattr(opened.engine, "launch", refused)
            with pytest.raises(EngineUnavailableError):
                await opened.run("x")
        await opened.sweep(6 * DAY)
        assert await state(opened) is SessionState.HIBERNATED
        assert await opened.value("x") == "1"


async def test_where_nothing_is_to_age_nothing_does(tmp_path: Path) -> None:
    limits = Limits(ageing=AgeingPolicy(None, None, None))
    async with house(tmp_path, limits=limits) as opened:
        await asleep(opened)
        for _ in range(3):
            await opened.sweep(10_000 * DAY)
        assert await state(opened) is SessionState.HIBERNATED
        (listed,) = await opened.sessions.list_sessions()
        assert listed.expires_at is None


async def test_callers_are_told_when_a_session_expires(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        (listed,) = await opened.sessions.list_sessions()
        assert listed.expires_at == listed.last_used_at + timedelta(days=30)
        opened.clock.advance(50 * DAY)  # the machine was off
        (later,) = await opened.sessions.list_sessions()
        assert later.expires_at is not None
        assert later.expires_at > opened.clock.now() + timedelta(days=29)


# --- a call that comes meanwhile ---------------------------------------------------------------------------------


class Meanwhile:
    """Has a call come at a moment of the guarded change."""

    def __init__(self, opened: House, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        self.call: asyncio.Task[ExecutionResult] | None = None
        self._opened = opened
        self._when = when
        self._genuine = opened.records.upkeep.age
        monkeypatch.setattr(opened.records.upkeep, "age", self._age)

    async def _comes(self) -> None:
        self.call = asyncio.create_task(self._opened.run("x"))
        await asyncio.sleep(0.01)

    async def _age(self, session: AgedSession, target: SessionState) -> bool:
        if self._when == "before":
            await self._comes()
        changed = await self._genuine(session, target)
        if self._when == "after":
            await self._comes()
        return changed


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_that_comes_while_its_session_is_deleted_wins_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    async with house(tmp_path) as opened:
        await doomed(opened)
        meanwhile = Meanwhile(opened, monkeypatch, when)
        await opened.sweep(0)
        assert meanwhile.call is not None
        result = await meanwhile.call
        assert (result.value, result.notes) == ("1", ())
        assert await state(opened) is SessionState.READY
        await opened.sweep(DAY)
        assert await opened.value("x") == "1"


async def test_a_call_between_the_decision_and_its_turn_wins(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        age = await doomed(opened)
        assert await opened.value("x") == "1"
        await opened.hibernate()
        await opened.sweeper._actions.carry_out(age)
        assert await state(opened) is SessionState.HIBERNATED
        assert await opened.value("x") == "1"


@pytest.mark.parametrize("target", [INACTIVE, EXPIRED])
async def test_a_call_that_comes_while_its_session_grows_older_finds_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: SessionState
) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        await opened.sweep()
        meanwhile = Meanwhile(opened, monkeypatch, "after")
        await opened.sweep((8 if target is INACTIVE else 31) * DAY)
        assert meanwhile.call is not None
        assert (await meanwhile.call).value == "1"
        assert await state(opened) is SessionState.READY


async def test_calls_all_around_a_deletion_find_the_session_or_a_new_one_and_never_half_of_it(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        for pause in range(12):
            await doomed(opened)
            sweeping = asyncio.create_task(opened.sweep(0))
            for _ in range(pause):
                await asyncio.sleep(0)
            result = await opened.run("x")
            assert (result.value, result.notes) in [("1", ()), ("NameError", ())]
            await sweeping
            assert await opened.value("x") == result.value
            await opened.sessions.delete("s")
        assert await files(opened) == frozenset()
        await opened.assert_nothing_leaks()


async def test_a_delete_by_its_owner_meanwhile_is_one_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        await doomed(opened)
        genuine = opened.records.upkeep.age

        async def age(session: AgedSession, target: SessionState) -> bool:
            await opened.sessions.delete("s")
            return await genuine(session, target)

        monkeypatch.setattr(opened.records.upkeep, "age", age)
        with suppress(SessionDeletedError):
            await opened.sweep(0)
        assert await state(opened) is GONE
        assert await files(opened) == frozenset()
        await opened.assert_nothing_leaks()


async def test_who_holds_a_session_that_was_deleted_is_told_so(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await doomed(opened)
        live = await opened.live()
        await opened.sweep(0)
        with pytest.raises(SessionDeletedError, match="for its age"):
            await live.execute("x", 1, Ticket())
        with pytest.raises(SessionNotFoundError):
            await opened.sessions.list_variables("s")


# --- cut short ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["age", "delete", "delete_session"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_amid_a_deletion_the_session_is_there_or_gone_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, moment: str
) -> None:
    found: list[Path] = []
    async with house(tmp_path / "data") as opened:
        await doomed(opened)
        owner: object = {"age": opened.records.upkeep, "delete": opened.pieces, "delete_session": opened.records}[
            method
        ]
        genuine = getattr(owner, method)

        async def killed(*arguments: object) -> object:
            if moment == "before":
                found.append(opened.die())
            answer = await genuine(*arguments)
            if moment == "after":
                found.append(opened.die())
            return answer

        monkeypatch.setattr(owner, method, killed)
        await opened.sweep(0)
    async with house(found[0]) as again:
        if (method, moment) == ("age", "before"):
            assert await state(again) is EXPIRED
            assert await again.value("x") == "1"
        else:
            assert await again.records.all_sessions() == []
            assert await files(again) == frozenset()
            assert await again.pieces.aside() == []
            assert await again.value("x") == "NameError"


@pytest.mark.parametrize("method", ["delete", "delete_session"])
async def test_a_deletion_that_fails_half_way_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with house(tmp_path) as opened:
        await doomed(opened)
        FullOnce(monkeypatch, opened.pieces if method == "delete" else opened.records, method)
        await opened.sweep(0)
        assert await state(opened) is DESTROYING
        await opened.sweep(0)
        for _ in range(4):
            await opened.sweep(60)
        assert await state(opened) is GONE
        assert await files(opened) == frozenset()


async def test_a_delete_that_its_caller_asked_for_and_that_failed_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        FullOnce(monkeypatch, opened.pieces, "delete")
        await opened.sessions.delete("s")
        assert await state(opened) is DESTROYING
        for _ in range(4):
            await opened.sweep(60)
        assert await state(opened) is GONE


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_round_that_is_cancelled_anywhere_can_be_done_again(tmp_path: Path, steps: int) -> None:
    async with house(tmp_path) as opened:
        await doomed(opened)
        sweeping = asyncio.create_task(opened.sweeper.round())
        for _ in range(steps):
            await asyncio.sleep(0)
        sweeping.cancel()
        await asyncio.wait([sweeping])
        for _ in range(5):
            await opened.sweep(60)
        assert await state(opened) is GONE
        assert await files(opened) == frozenset()
        await opened.assert_nothing_leaks()


async def test_one_that_cannot_be_aged_keeps_no_other_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened, "s")
        await asleep(opened, "t")
        await opened.sweep()
        genuine = opened.records.upkeep.age

        async def age(session: AgedSession, target: SessionState) -> bool:
            if session.session_id == "s":
                raise ZeroDivisionError
            return await genuine(session, target)

        with monkeypatch.context() as patched:
            patched.setattr(opened.records.upkeep, "age", age)
            await opened.sweep(8 * DAY)
            assert (await state(opened, "s"), await state(opened, "t")) == (SessionState.HIBERNATED, INACTIVE)
            due = await opened.sweeper.due()
            assert due.actions == ()
            assert "ZeroDivisionError" in due.withheld[0].why
        await opened.sweep(61)
        assert await state(opened, "s") is INACTIVE


# --- clocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-10_000 * DAY, -2 * 3600.0, 2 * 3600.0, 40 * DAY, 10_000 * DAY])
@pytest.mark.parametrize("when", ["in between", "before the first look", "while no owner ran"])
async def test_no_clock_that_is_set_ages_anybody(tmp_path: Path, jump: float, when: str) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as opened:
        if when == "before the first look":
            await opened.run("x = 1")
            await opened.hibernate()
            clock.jump(jump)
        else:
            await asleep(opened)
        await opened.sweep()
        if when == "in between":
            clock.jump(jump)
        await watched(opened, 2 * 3600)
        assert await state(opened) is SessionState.HIBERNATED
    if when == "while no owner ran":
        clock.jump(jump)
    async with house(tmp_path, clock=clock) as opened:
        await watched(opened, DAY)
        assert await state(opened) is SessionState.HIBERNATED
        assert await opened.value("x") == "1"


async def test_on_the_first_look_after_a_start_nothing_ages_and_that_is_told(tmp_path: Path) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as opened:
        await asleep(opened)
        await opened.sweep()
        await opened.sweep(6.5 * DAY)
    clock.advance(12 * 3600)
    async with house(tmp_path, clock=clock) as opened:
        await opened.sweep()
        for _ in range(12):
            await opened.sweep()
        assert await state(opened) is INACTIVE, "half a day without an owner counts, once the clock has held"


async def test_of_years_without_an_owner_a_day_counts(tmp_path: Path) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as opened:
        await asleep(opened)
    clock.advance(1_000 * DAY)
    async with house(tmp_path, clock=clock) as opened:
        await watched(opened, 3600)
        assert await state(opened) is SessionState.HIBERNATED
        assert await opened.value("x") == "1"


async def test_a_session_that_is_used_right_after_a_long_sleep_of_the_machine_is_young(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened, "s")
        await asleep(opened, "other")
        await opened.sweep()
        opened.clock.advance(31 * DAY)
        assert await opened.value("x") == "1"
        await opened.hibernate()
        await opened.sweep(1)
        assert (await state(opened, "s"), await state(opened, "other")) == (SessionState.HIBERNATED, EXPIRED)


async def test_an_expired_session_is_not_deleted_while_the_machine_sleeps(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await expired(opened)
        for _ in range(20):
            await opened.sweep(3 * DAY)
        assert await state(opened) is EXPIRED


# --- many at once ------------------------------------------------------------------------------------------------


async def states(opened: House) -> dict[str, int]:
    counted: dict[str, int] = {}
    for row in await opened.records.all_sessions():
        counted[row.state] = counted.get(row.state, 0) + 1
    return counted


async def made(opened: House, number: int) -> list[Session]:
    return [await opened.records.ensure_session("local", f"s{i}", "e") for i in range(number)]


async def test_a_thousand_sessions_grow_old_and_are_deleted_bit_by_bit(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await made(opened, 1_000)
        await asleep(opened)
        await opened.sweep()
        await opened.sweep(7 * DAY)
        assert await states(opened) == {"inactive": 1_001}

        await opened.sweep(23 * DAY)
        assert await states(opened) == {"inactive": 1_001}, "too many at once"
        assert "1001 of 1001 sessions would expire at once" in (await opened.sweeper.due()).withheld[0].why
        await watched(opened, DAY - 600)
        assert await states(opened) == {"inactive": 1_001}
        await opened.sweep(600)
        assert await states(opened) == {"inactive": 901, "expired": 100}
        for _ in range(10):
            await opened.sweep()
        assert await states(opened) == {"expired": 1_001}

        await opened.run("1", "s500")
        for _ in range(150):
            await opened.sweep(600)
        assert await states(opened) == {"ready": 1}
        assert len(await files(opened)) <= 1


async def test_a_mass_expiry_stays_stopped_for_its_day_over_restarts(tmp_path: Path) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as opened:
        await made(opened, 30)
        await opened.sweep()
        await opened.sweep()
        await opened.sweep(31 * DAY)
        assert await states(opened) == {"inactive": 30}
        await watched(opened, DAY / 2)
    async with house(tmp_path, clock=clock) as opened:
        await watched(opened, DAY / 2 - 600)
        assert await states(opened) == {"inactive": 30}
        await opened.sweep(600)
        await opened.sweep(600)
        assert (await states(opened)).get("expired", 0) >= 10


async def test_a_few_sessions_of_few_may_all_expire(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await made(opened, 10)
        await opened.sweep()
        await opened.sweep()
        await opened.sweep(31 * DAY)
        assert await states(opened) == {"expired": 10}


# --- a dry run ---------------------------------------------------------------------------------------------------


async def looked(opened: House) -> tuple[object, ...]:
    """All that a dry run could change."""
    rows = tuple(await opened.records.all_sessions())
    sweeper = opened.sweeper
    return rows, await opened.records.upkeep.counted(), sweeper._ticks, sweeper._sightings, await files(opened)


async def test_a_dry_run_names_what_the_next_round_does_and_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened, "s")
        await asleep(opened, "t")
        await opened.sweep()
        await opened.sweep(20 * DAY)
        await opened.run("x", "t")
        await opened.hibernate("t")
        opened.clock.advance(11 * DAY)
        before = await looked(opened)

        due = await opened.sweeper.due()

        assert await looked(opened) == before
        assert [(age.session.session_id, age.target) for age in due.actions if isinstance(age, Age)] == [("s", EXPIRED)]
        assert due.withheld == ()
        await opened.sweep(0)
        assert (await state(opened, "s"), await state(opened, "t")) == (EXPIRED, SessionState.HIBERNATED)
        assert await opened.sweeper.due() == Due((), ())


async def test_a_dry_run_says_what_is_withheld_because_of_the_clock(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        await opened.sweep()
        await opened.records.upkeep.count(Counted(8 * DAY, 0.0, opened.clock.now()))
        opened.clock.jump(2 * DAY)

        due = await opened.sweeper.due()

        assert due.actions == ()
        assert [(one.what, one.why) for one in due.withheld] == [
            ("1 session would age", "the clock moved by 172800 s while 0 s passed")
        ]


async def test_before_the_first_look_a_dry_run_withholds_what_is_old(tmp_path: Path) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as opened:
        await asleep(opened)
        await opened.sweep()
        opened.clock.advance(8 * DAY)
        counted = opened.sweeper._ticks
        assert counted is not None
        await opened.records.upkeep.count(counted.next(clock.now(), clock.uptime()).counted)
    async with house(tmp_path, clock=clock) as opened:
        due = await opened.sweeper.due()
        assert due.actions == ()
        assert [(one.what, one.why) for one in due.withheld] == [
            ("1 session would age", "this is the first look after a start")
        ]


async def test_a_round_that_could_not_note_the_time_counts_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await asleep(opened)
        await opened.sweep()
        genuine = opened.records.upkeep.count
        failed: list[object] = []

        async def count(*arguments: object, **named: object) -> None:
            if not failed:
                failed.append(arguments)
                raise EngineUnavailableError("Whatever.")
            await genuine(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(opened.records.upkeep, "count", count)
        with pytest.raises(EngineUnavailableError):
            await opened.sweep(4 * DAY)
        await opened.sweep(4 * DAY)
        assert await state(opened) is INACTIVE


async def test_the_loop_goes_on_whatever_a_round_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as opened:
        rounds: list[int] = []

        async def looping() -> None:
            rounds.append(len(rounds))
            if len(rounds) < 3:
                raise (ZeroDivisionError if len(rounds) == 1 else EngineUnavailableError("Whatever."))

        monkeypatch.setattr("orchestrator.services.sweeper.PAUSE", 0.001)
        monkeypatch.setattr("orchestrator.services.sweeper._MAINTENANCE_WAIT", 0.0)
        monkeypatch.setattr(opened.sweeper, "round", looping)
        task = asyncio.create_task(opened.sweeper.run())

        async def many() -> bool:
            return len(rounds) > 5

        await until(many)
        task.cancel()
        await asyncio.wait([task])
