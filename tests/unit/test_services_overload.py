"""More calls than sandboxes: idle sessions make room, the others wait in a fair line, and nothing leaks."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.domain.errors import BusyError, EngineUnavailableError, OrchestratorError, ShuttingDownError
from orchestrator.domain.model import ExecutionResult, SandboxRecord
from orchestrator.domain.ports import Agent, SandboxImage
from orchestrator.services import sandboxes as sandboxes_module
from orchestrator.services.jobs import Job, JobQueue
from orchestrator.services.slots import Slots, Ticket
from orchestrator.services.tasks import Tasks
from tests.unit.pretended_agent import ENDLESS, FakeAgent
from tests.unit.pretended_engine import House, begun, closed, house, rows_left, runs, until
from tests.unit.pretended_faults import Faults, Hang, fail

LONG = 5.0  # seconds; nobody waits for so long here


async def session(opened: House, session_id: str, value: int) -> None:
    """One that holds a value, and was used a second later than the one before."""
    opened.clock.advance(1)
    await opened.run(f"x = {value}", session_id)


async def waiting(opened: House, number: int = 1) -> None:
    async def are() -> bool:
        return opened.sandboxes._slots.waiting == number

    await until(are)


async def states(opened: House) -> dict[str, str]:
    return {row.session_id: str(row.state) for row in await opened.records.all_sessions()}


def calls(opened: House, *codes: str, tenant: str = "local") -> list[asyncio.Task[ExecutionResult]]:
    """Stateless ones."""
    return [asyncio.create_task(opened.sessions.execute(code, tenant=tenant)) for code in codes]


async def end(call: asyncio.Task[ExecutionResult]) -> None:
    call.cancel()
    await asyncio.wait([call])


async def test_the_session_that_was_idle_for_longest_makes_room_and_wakes_as_it_was(tmp_path: Path) -> None:
    async with house(tmp_path, wait=LONG) as opened:
        await session(opened, "s", 1)
        await session(opened, "t", 2)
        await session(opened, "u", 3)
        assert await states(opened) == {"s": "hibernated", "t": "ready", "u": "ready"}
        result = await opened.run("x")
        assert (result.value, result.notes) == ("1", ())
        assert await states(opened) == {"s": "ready", "t": "hibernated", "u": "ready"}
        await until(lambda: opened._sandboxes_are(2))


async def test_a_stateless_call_has_a_session_make_room_too(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        await session(opened, "s", 1)
        assert (await opened.run("1", None)).value == "1"
        assert await opened.value("x") == "1"


async def test_a_session_in_use_is_never_evicted_and_the_call_is_busy_after_its_wait(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1) as opened:
        running = asyncio.create_task(opened.run(ENDLESS))
        await until(lambda: runs(opened))
        for session_id in ("t", None):
            with pytest.raises(BusyError, match="1 sandboxes are in use, and none came free") as busy:
                await opened.run("1", session_id)
            assert "makes room by itself" in str(busy.value.hint)
        assert not running.done()
        assert len(opened.engine.agents) == 1
        await end(running)
        assert (await opened.run("2", "t")).value == "2"


async def test_a_session_whose_save_fails_is_passed_over(tmp_path: Path) -> None:
    async with house(tmp_path, wait=LONG) as opened:
        await session(opened, "s", 1)
        await session(opened, "t", 2)
        opened.faults.at("save", fail)
        await session(opened, "u", 3)
        assert await states(opened) == {"s": "ready", "t": "hibernated", "u": "ready"}
        assert "could not be saved" in (await opened.run("x")).notes[0]


async def test_a_session_that_cannot_be_recorded_as_asleep_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, wait=LONG) as opened:
        await session(opened, "s", 1)
        await session(opened, "t", 2)
        stubborn, genuine = (await opened.row("s")).key, opened.records.session_snapshotting
        tried: list[str] = []

        async def refused(key: str, incarnation: int, activity: int) -> bool:
            tried.append(key)
            return key != stubborn and await genuine(key, incarnation, activity)

        monkeypatch.setattr(opened.records, "session_snapshotting", refused)
        await session(opened, "u", 3)
        assert (await states(opened))["t"] == "hibernated"
        assert tried.count(stubborn) == 1
        assert await opened.value("x") == "1"


async def test_a_call_that_comes_while_its_session_makes_room_keeps_it_and_another_one_goes(tmp_path: Path) -> None:
    async with house(tmp_path, wait=LONG) as opened:
        await session(opened, "s", 1)
        await session(opened, "t", 2)
        hang = Hang()
        opened.faults.at("piece", hang)
        new = asyncio.create_task(opened.run("3", "u"))
        await hang.entered.wait()
        opened.clock.advance(1)
        assert (await opened.run("x")).value == "1"
        assert (await new).value == "3"
        assert await states(opened) == {"s": "ready", "t": "hibernated", "u": "ready"}


async def test_a_waking_session_is_not_evicted_before_its_call_has_run(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        await session(opened, "s", 1)
        await opened.hibernate()
        hang = Hang()
        opened.faults.at("restore namespace", hang)
        waking = asyncio.create_task(opened.run("x"))
        await hang.entered.wait()
        other = asyncio.create_task(opened.run("2", "t"))
        await waiting(opened)
        for _ in range(5):
            opened.eviction.look()
            await asyncio.sleep(0.01)
        assert not opened.eviction._under_way
        hang.go.set()
        assert [(await waking).value, (await other).value] == ["1", "2"]


async def test_two_who_wait_evict_one_session_where_another_place_is_coming(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=3, wait=LONG) as opened:
        for number, session_id in enumerate("stu"):
            await session(opened, session_id, number)
        opened.engine.may_destroy.clear()
        deleting = asyncio.create_task(opened.sessions.delete("u"))
        await until(lambda: is_removing(opened, 1))
        two = calls(opened, "1", "2")
        await waiting(opened, 2)
        await until(lambda: is_removing(opened, 2))
        for _ in range(5):
            opened.eviction.look()
            await asyncio.sleep(0.01)
        assert await states(opened) == {"s": "hibernated", "t": "ready", "u": "destroying"}
        opened.engine.may_destroy.set()
        assert [(await call).value for call in two] == ["1", "2"]
        await deleting
        assert await states(opened) == {"s": "hibernated", "t": "ready"}


async def is_removing(opened: House, number: int) -> bool:
    return len(opened.sandboxes._removals) == number


async def test_a_hibernation_for_somebody_who_goes_away_harms_nobody(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        await session(opened, "s", 1)
        for point in ("save", "report"):
            opened.clock.advance(10)
            hang = Hang()
            opened.faults.at(point, hang)
            call = calls(opened, "1")[0]
            await hang.entered.wait()
            await end(call)
            hang.go.set()
            assert await opened.value("x") == "1"
        await opened.assert_nothing_leaks()


async def test_who_goes_away_leaves_the_line_at_once_and_holds_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        (running,) = calls(opened, ENDLESS)
        await until(lambda: runs(opened))
        gone = calls(opened, "1", "2")
        await waiting(opened, 2)
        for one in gone:
            await end(one)
        assert opened.sandboxes._slots.waiting == 0
        await end(running)
        await until(lambda: closed(opened))
        assert opened.sandboxes._slots.held == 0
        assert len(opened.engine.agents) == 1


async def test_a_turn_that_comes_as_its_call_goes_away_is_handed_on() -> None:
    slots = Slots(limit=1, wait=LONG)
    first = await slots.take("a", Ticket())
    assert first is not None
    gone, next_one = (asyncio.create_task(slots.take(tenant, Ticket())) for tenant in "ab")
    await asyncio.sleep(0)
    gone.cancel()
    first.free()  # before the cancelled one can look
    first.free()
    await asyncio.wait([gone])
    assert gone.cancelled()
    async with asyncio.timeout(LONG):
        slot = await next_one
    assert slot is not None
    assert (slots.held, slots.waiting) == (1, 0)
    assert not slots.crowded.is_set()


async def test_a_burst_of_one_tenant_does_not_starve_another(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        opened.engine.may_launch.clear()
        burst = calls(opened, *(f"a{number}" for number in range(6)), tenant="a")
        await waiting(opened, 5)
        other = calls(opened, "b0", "b1", tenant="b")
        await waiting(opened, 7)
        opened.engine.may_launch.set()
        await asyncio.gather(*burst, *other)
        order = [agent.ran[0] for agent in opened.engine.agents]
        assert order == ["a0", "a1", "b0", "a2", "b1", "a3", "a4", "a5"]


async def test_a_ticket_tells_the_place_in_line(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        (running,) = calls(opened, ENDLESS)
        await until(lambda: runs(opened))
        tickets = [Ticket() for _ in range(3)]
        assert tickets[0].place is None
        lined_up = []
        for number, ticket in enumerate(tickets):
            work = opened.sessions.execute("1", session_id=None if number else "s", ticket=ticket)
            lined_up.append(asyncio.create_task(work))
            await waiting(opened, number + 1)
        assert [ticket.place for ticket in tickets] == [1, 2, 3]
        await end(lined_up[0])
        assert [ticket.place for ticket in tickets] == [None, 1, 2]
        await end(running)
        assert [(await call).value for call in lined_up[1:]] == ["1", "1"]


async def test_a_full_line_is_busy_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1) as opened:
        opened.sandboxes._slots = Slots(limit=1, wait=LONG, per_tenant=2, in_all=3)
        (running,) = calls(opened, ENDLESS)
        await until(lambda: runs(opened))
        lined_up = calls(opened, "1", "2") + calls(opened, "3", tenant="a")
        await waiting(opened, 3)
        with pytest.raises(BusyError, match="2 calls wait for a sandbox already"):
            await opened.run("4", None)
        with pytest.raises(BusyError, match="Too many calls wait"):
            await opened.sessions.execute("4", tenant="b")
        await end(running)
        assert [(await call).value for call in lined_up] == ["1", "2", "3"]


async def test_a_clear_ends_a_call_that_waits_for_a_sandbox(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        await session(opened, "s", 1)
        await opened.hibernate()
        (running,) = calls(opened, ENDLESS)
        await until(lambda: runs(opened))
        call = asyncio.create_task(opened.run("x"))
        await waiting(opened)
        assert await states(opened) == {"s": "hibernated"}, "what waits for long is in no state that is to be over soon"
        await opened.sessions.clear("s")
        with pytest.raises(BusyError, match="stopped while it waited for a sandbox"):
            await call
        await end(running)
        assert await opened.value("x") == "NameError"


async def test_a_deleted_session_and_an_end_leave_nobody_waiting(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        (running,) = calls(opened, ENDLESS)
        await until(lambda: runs(opened))
        doomed = asyncio.create_task(opened.run("1"))
        await waiting(opened)
        await opened.sessions.delete("s")
        with pytest.raises(OrchestratorError) as deleted:
            await doomed
        assert deleted.value.code == "deleted"
        left = [asyncio.create_task(opened.run("1", session_id)) for session_id in ("t", None)]
        await waiting(opened, 2)
        await opened.sessions.close(seconds=LONG)
        for call in (running, *left):
            with pytest.raises(ShuttingDownError):
                await call
        assert (opened.sandboxes._slots.waiting, opened.sandboxes._slots.held) == (0, 0)
    assert rows_left(tmp_path) == []


# what counts


async def test_a_sandbox_that_is_being_removed_keeps_its_place_until_the_engine_has_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes_module, "_REMOVAL_PAUSES", (0.01,))
    async with house(tmp_path, sandboxes=1) as opened:
        opened.engine.may_destroy.clear()
        await opened.run("1", None)
        with pytest.raises(BusyError):
            await opened.run("2", None)
        opened.engine.failures = [EngineUnavailableError("It hangs.") for _ in range(10_000)]
        opened.engine.may_destroy.set()
        with pytest.raises(BusyError, match="The engine has not removed 1 of them yet"):
            await opened.run("2", None)
        assert len(opened.engine.there) == 1
        opened.engine.failures.clear()
        assert (await opened.run("2", None)).value == "2"


async def test_a_removal_that_pauses_tries_again_when_somebody_waits_for_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine was away for long and is back: who calls now does not wait out a pause of a minute."""
    monkeypatch.setattr(sandboxes_module, "_REMOVAL_PAUSES", (0.01, 600.0))
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        opened.engine.failures = [EngineUnavailableError("It is away.") for _ in range(2)]
        await opened.run("1", None)

        async def failed_twice() -> bool:
            return not opened.engine.failures

        await until(failed_twice)
        assert (await opened.run("2", None)).value == "2"


async def test_a_removal_that_is_stuck_is_not_counted_on(tmp_path: Path) -> None:
    async with house(tmp_path, wait=LONG) as opened:
        await session(opened, "s", 1)
        opened.engine.failures = [EngineUnavailableError("It is stuck.") for _ in range(10_000)]
        await opened.run("1", None)

        async def stuck() -> bool:
            return bool(opened.sandboxes._stuck)

        await until(stuck)
        call = calls(opened, "2")[0]
        await until(lambda: is_removing(opened, 2))
        assert await states(opened) == {"s": "hibernated"}
        opened.engine.failures.clear()
        assert (await call).value == "2"


async def test_what_an_earlier_owner_left_counts_until_it_is_gone(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1) as opened:
        record = await opened.records.open_sandbox("image")
        assert await opened.records.sandbox_created(record.id, "handle")
        opened.engine.there[record.id] = FakeAgent(Faults())
        opened.engine.may_destroy.clear()
        await opened.sandboxes.remove_leftovers()
        await opened.sandboxes.remove_leftovers()
        assert opened.sandboxes._slots.held == 1
        with pytest.raises(BusyError):
            await opened.run("1", None)
        opened.engine.may_destroy.set()
        assert (await opened.run("1", None)).value == "1"
        await until(lambda: closed(opened))
        assert opened.sandboxes._slots.held == 0


async def test_a_create_that_was_never_answered_keeps_its_row_and_not_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        may_end, genuine = asyncio.Event(), opened.engine.launch

        async def launch(record: SandboxRecord, _image: SandboxImage) -> tuple[str, Agent]:
            opened.engine.unanswered[record.id] = may_end
            monkeypatch.setattr(opened.engine, "launch", genuine)
            raise EngineUnavailableError("No answer came.")

        monkeypatch.setattr(opened.engine, "launch", launch)
        with pytest.raises(EngineUnavailableError):
            await opened.run("1", None)
        assert (await opened.run("2", None)).value == "2"
        await until(lambda: has_rows(opened, 1))
        (late,) = [row.id for row in await opened.records.sandboxes()]
        opened.engine.there[late] = FakeAgent(Faults())  # it has come through
        may_end.set()
        await until(lambda: closed(opened))
        assert opened.engine.destroyed.count(late) == 2
        assert opened.engine.there == {}


async def has_rows(opened: House, number: int) -> bool:
    return len(await opened.records.sandboxes()) == number


@pytest.mark.parametrize("part", ["prepare", "open_sandbox", "launch"])
async def test_a_start_that_fails_leaks_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:

        async def fails(*_: object, **__: object) -> None:
            raise EngineUnavailableError("It failed.")

        with monkeypatch.context() as patched:
            patched.setattr(opened.records if part == "open_sandbox" else opened.engine, part, fails)
            for _ in range(3):
                with pytest.raises(EngineUnavailableError):
                    await opened.run("1", None)
        assert (await opened.run("2", None)).value == "2"
        await until(lambda: closed(opened))
        assert opened.sandboxes._slots.held == 0


async def test_a_cancelled_start_leaks_no_place(tmp_path: Path) -> None:
    async with house(tmp_path, sandboxes=1, wait=LONG) as opened:
        opened.engine.may_launch.clear()
        starting = asyncio.create_task(opened.start())
        await until(lambda: begun(opened))
        starting.cancel()
        await asyncio.wait([starting])
        await until(lambda: closed(opened))
        assert opened.sandboxes._slots.held == 0


async def test_work_of_ours_that_calls_overtook_is_stopped_before_it_begins() -> None:
    """A hibernation that waits behind one call does not go before the next."""
    async with asyncio.TaskGroup() as group:
        queue = JobQueue(Tasks(group), "test", limit=4, idle=lambda: None)
        go = asyncio.Event()

        async def call(_: Job[None]) -> None:
            await go.wait()

        async def work(job: Job[bool]) -> bool:
            return job.stopped

        first = asyncio.create_task(queue.submit(call))
        await asyncio.sleep(0)
        ours = asyncio.create_task(queue.submit(work, kind="yielding"))
        await asyncio.sleep(0)
        second = asyncio.create_task(queue.submit(call))
        await asyncio.sleep(0)
        go.set()
        assert await ours
        await asyncio.gather(first, second)
