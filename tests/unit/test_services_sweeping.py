"""What belongs to nobody is cleaned up, and what somebody uses is left alone however long it takes."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.domain.ageing import DAY
from orchestrator.domain.asides import DropAside
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.model import SandboxState, SessionState
from orchestrator.domain.plan import Hibernate, Save
from orchestrator.domain.ports import OwnedContainer
from orchestrator.domain.strays import FinishDelete, Mend, RemoveContainer, RemoveSandbox, SetAside
from orchestrator.services import errands
from tests.contract.records.snapshot_steps import in_state
from tests.manual_clock import ManualClock
from tests.unit.pretended_agent import ENDLESS, FakeAgent
from tests.unit.pretended_engine import House, begun, closed, house, runs, until

LONG = 24 * 3600.0  # seconds, beyond every deadline


async def swept(opened: House, seconds: float = LONG) -> None:
    """Seen, and seen again much later; the removals that this began have ended."""
    for pause in (60.0, seconds, 60.0):
        await opened.sweep(pause)


async def of_another_owner(opened: House, state: SandboxState, session: str | None = None) -> str:
    """A sandbox's row and its container, which nobody here has made."""
    record = await opened.records.open_sandbox("image")
    if state in {SandboxState.UNCLAIMED, SandboxState.CLAIMED}:
        await opened.records.sandbox_created(record.id, "handle")
    if state is SandboxState.CLAIMED:
        await opened.records.sandbox_claimed(record.id, session, 1)
    if state in {SandboxState.FAILED, SandboxState.DESTROYING}:
        await opened.records.sandbox_ending(record.id, state)
    opened.engine.there[record.id] = FakeAgent(opened.faults)
    return record.id


async def outcomes(opened: House, session_id: str = "s") -> list[str | None]:
    return [row.outcome for row in await opened.records.executions("local", session_id)]


@pytest.mark.parametrize("state", ["creating", "ready", "snapshotting"])
async def test_a_session_that_nobody_serves_is_hibernated_and_its_loss_told(tmp_path: Path, state: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        session = await opened.row()
        woken = await opened.records.begin_creating(session.key, session.incarnation)
        assert woken is not None
        await opened.records.session_ready(woken.key, woken.incarnation)
        await opened.records.open_execution(woken.key, woken.incarnation)
        await in_state(opened.records, woken, state)

        await opened.sweep()
        await opened.sweep(599)
        assert (await opened.row()).state == state
        await opened.sweep(1)

        assert (await opened.row()).state == "hibernated"
        assert await outcomes(opened) == ["outcome_unknown", "ok"]
        result = await opened.run("x")
        assert result.value == "1"
        assert result.notes == ("Lost: the effects of execution 2, because nobody served it any more.",)
        await opened.assert_nothing_leaks()


async def test_a_session_in_use_is_left_alone_however_long_it_is_so(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        call = asyncio.create_task(opened.sessions.execute(ENDLESS, session_id="s"))
        await until(lambda: runs(opened))
        for _ in range(3):
            await opened.sweep(LONG)
        assert (await opened.row()).state is SessionState.READY
        assert await outcomes(opened) == [None]
        opened.agent.interrupt(1)
        assert (await call).execution == 1
        await opened.sweep(LONG)
        assert (await opened.row()).state is SessionState.READY
        await opened.assert_nothing_leaks()


async def test_a_start_that_takes_for_ever_is_left_to_its_call(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.may_launch.clear()
        call = asyncio.create_task(opened.sessions.execute("x = 1", session_id="s"))
        await until(lambda: begun(opened))
        await opened.sweep()
        await opened.sweep(800)
        assert (await opened.row()).state is SessionState.CREATING
        opened.engine.may_launch.set()
        assert (await call).status == "ok"
        await opened.assert_nothing_leaks()


async def test_an_execution_that_stayed_open_in_an_idle_session_is_closed_and_the_session_can_sleep(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        session = await opened.row()
        await opened.records.open_execution(session.key, session.incarnation)
        assert not await opened.hibernate()

        await swept(opened, 600)

        assert await outcomes(opened) == ["outcome_unknown", "ok"]
        assert await opened.hibernate()
        assert await opened.value("x") == "1"


@pytest.mark.parametrize("state", SandboxState)
async def test_a_sandbox_that_an_earlier_owner_left_is_removed(tmp_path: Path, state: SandboxState) -> None:
    async with house(tmp_path) as opened:
        left = await of_another_owner(opened, state)
        await opened.sweep()
        await opened.sweep(179)
        assert left in opened.engine.there
        await opened.sweep(1)
        await until(lambda: closed(opened))
        assert left not in opened.engine.there


async def test_a_sandbox_that_its_session_still_is_with_is_left_to_be_adopted(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        session = await opened.records.ensure_session("local", "s", "e")
        await opened.records.begin_creating(session.key, 0)
        await opened.records.session_ready(session.key, 1)
        left = await of_another_owner(opened, SandboxState.CLAIMED, session.key)
        await opened.sweep()
        await opened.sweep(599)
        assert left in opened.engine.there


async def test_a_stateless_call_past_its_longest_time_is_ended_and_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        call = asyncio.create_task(opened.sessions.execute(ENDLESS))
        await until(lambda: runs(opened))
        await opened.sweep()
        await opened.sweep(3_600)
        assert not call.done()
        await opened.sweep(302)
        result = await call
        assert result.error is not None
        await until(lambda: closed(opened))
        await opened.assert_nothing_leaks()


async def test_a_container_without_a_row_is_removed_and_one_that_is_just_made_is_not(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.there["a" * 32] = FakeAgent(opened.faults)
        await opened.sweep()
        await opened.sweep(119)
        opened.engine.there["b" * 32] = FakeAgent(opened.faults)
        await opened.sweep(1)
        assert list(opened.engine.there) == ["b" * 32]
        await opened.run("x = 1")
        await opened.sweep(LONG)
        assert len(opened.engine.there) == 1, "of the session"
        assert await opened.value("x") == "1"


async def test_a_file_of_no_session_is_set_aside(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        (key,) = await opened.pieces.keys()
        await opened.records.session_destroying(key)
        await opened.records.delete_session(key)
        await opened.run("y = 2", "t")
        await opened.hibernate("t")
        for _ in range(16):
            assert await opened.pieces.aside() == []
            await opened.sweep()
        assert len(await opened.pieces.keys()) == 1
        (path,) = await opened.pieces.aside()
        assert key in path
        assert (await opened.run("y", "t")).value == "2"


async def test_what_was_set_aside_is_deleted_when_a_month_has_counted_and_by_no_clock_that_is_set(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        (key,) = await opened.pieces.keys()
        await opened.pieces.set_aside([key])
        (path,) = await opened.pieces.aside()
        for _ in range(20):
            await opened.sweep()
    clock.jump(1_000 * DAY)
    async with house(tmp_path, clock=clock) as opened:
        for seconds in (*[60.0] * 20, 28 * DAY, *[60.0] * 20):
            await opened.sweep(seconds)
            assert await opened.pieces.aside() == [path]
        clock.advance(2 * DAY)
        await opened.sweep()
        assert [action.path for action in (await opened.sweeper.due()).actions if isinstance(action, DropAside)] == [
            path
        ]
        for _ in range(16):
            await opened.sweep()
        assert await opened.pieces.aside() == []


async def test_without_an_engine_everything_else_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable() -> Sequence[OwnedContainer]:
        raise EngineUnavailableError("No engine answers.")

    async with house(tmp_path) as opened:
        opened.engine.there["a" * 32] = FakeAgent(opened.faults)
        session = await opened.records.ensure_session("local", "s", "e")
        await opened.records.begin_creating(session.key, 0)
        with monkeypatch.context() as patched:
            patched.setattr(opened.engine, "containers", unavailable)
            await swept(opened)
            assert (await opened.row()).state == "hibernated"
            withheld = (await opened.sweeper.due()).withheld
            assert [(one.what, one.why) for one in withheld] == [
                ("containers are not looked for", "No engine answers.")
            ]
        assert opened.engine.there
        await swept(opened)
        assert not opened.engine.there


async def test_a_removal_that_hangs_holds_up_the_others_for_its_bound_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    async with house(tmp_path) as opened:
        monkeypatch.setattr(opened.sweeper._errands, "_bound", 0.1)
        for name in "abc":
            opened.engine.there[name * 32] = FakeAgent(opened.faults)
        session = await opened.records.ensure_session("local", "s", "e")
        await opened.records.begin_creating(session.key, 0)
        opened.engine.may_destroy.clear()
        await swept(opened)
        assert (await opened.row()).state == "hibernated"
        told = [record for record in caplog.records if record.name == errands.__name__]
        assert [record.levelname for record in told] == ["WARNING"], "of a kind the first one"
        assert "took longer than" in told[0].getMessage()
        opened.engine.may_destroy.set()
        await opened.sweep(120)
        assert not opened.engine.there


async def test_what_is_no_longer_as_it_was_seen_is_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        seen = (await opened.records.upkeep.held_sandboxes())[0]
        actions = opened.sweeper._actions
        await actions.carry_out(RemoveSandbox(replace(seen, state=SandboxState.UNCLAIMED), "it was"))
        await actions.carry_out(FinishDelete((await opened.row()).key, "it was"))
        await actions.carry_out(Mend("f" * 32, "local", "s", "another session had the name"))
        await actions.carry_out(Mend("f" * 32, "local", "nobody's", "it is gone"))
        assert await opened.value("x") == "1"
        assert await opened.save() == 1


async def test_a_dry_run_names_everything_that_is_to_be_cleaned_up_and_cleans_up_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        stuck = await opened.records.ensure_session("local", "s", "e")
        await opened.records.begin_creating(stuck.key, 0)
        doomed = await opened.records.ensure_session("local", "t", "e")
        await opened.records.session_destroying(doomed.key)
        await opened.run("x = 1", "u")
        await opened.hibernate("u")
        (file,) = await opened.pieces.keys()
        await opened.records.session_destroying(file)
        await opened.records.delete_session(file)
        left = await of_another_owner(opened, SandboxState.CREATING)
        opened.engine.there["a" * 32] = FakeAgent(opened.faults)
        assert (await opened.sweeper.due()).actions == (), "it has seen nothing before"
        await opened.sweep()
        opened.clock.advance(LONG)

        due = await opened.sweeper.due()

        named = {replace(action, why="") for action in due.actions if not isinstance(action, Save | Hibernate)}
        (row,) = await opened.records.upkeep.held_sandboxes()
        assert row.id == left
        assert named == {
            Mend(stuck.key, "local", "s", ""),
            FinishDelete(doomed.key, ""),
            RemoveSandbox(row, ""),
            RemoveContainer("a" * 32, ""),
            SetAside(file, ""),
        }
        assert due == await opened.sweeper.due()
        assert left in opened.engine.there
        assert await opened.pieces.aside() == []


async def test_at_the_end_of_the_owner_nothing_of_this_is_left_running(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.may_destroy.clear()
        opened.engine.there["a" * 32] = FakeAgent(opened.faults)
        sweeping = asyncio.create_task(swept(opened))
        await asyncio.sleep(0.05)
        sweeping.cancel()
        await asyncio.wait([sweeping])
        opened.engine.may_destroy.set()
