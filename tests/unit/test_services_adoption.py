"""The next owner finds sandboxes alive: they serve on with all that they hold, and what nobody has heard is told."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.domain.errors import EngineUnavailableError, SessionDeletedError
from orchestrator.domain.model import ExecutionRecord, SandboxState, SessionState
from orchestrator.domain.ports import SandboxImage
from orchestrator.services import sessions as sessions_module
from orchestrator.services.adoption_notes import alive_note, never_arrived_note, outdated_note, unknown_note
from tests.unit.pretended_agent import DEADLY, ENDLESS, FORK, KILLED, KILLED_BACK, LOST, STARVED
from tests.unit.pretended_engine import (
    IMAGE,
    REMOVED,
    SANDBOX_GONE,
    FakeEngine,
    FullOnce,
    House,
    closed,
    house,
    rows_left,
    runs,
    until,
)
from tests.unit.pretended_faults import Fault, Hang, Sufferer, fail, lose


class Death:
    """What is on the disk and in the engine at one moment, as a kill of the owner would leave it."""

    def __init__(self, opened: House) -> None:
        self._opened = opened
        self.path = Path()
        self.engine = FakeEngine()

    def __call__(self) -> None:
        self.path, self.engine = self._opened.die(), self._opened.engine.as_it_is()

    def fault(self) -> Fault:
        """At a point of an agent."""

        async def fault(_: Sufferer) -> None:
            self()

        return fault


async def outcomes(opened: House, session_id: str = "s") -> Mapping[int, str | None]:
    rows: list[ExecutionRecord] = list(await opened.records.executions("local", session_id))
    return {row.number: row.outcome for row in rows}


async def decided(opened: House) -> bool:
    return not opened.sandboxes.survivors.undecided


async def test_an_idle_session_serves_on_with_what_no_snapshot_had(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt one")
        await opened.save()
        await opened.run("x = 2")
        death = Death(opened)
        death()
    async with house(death.path, engine=death.engine) as again:
        assert (await again.row()).state is SessionState.READY
        result = await again.run("x")
        assert (result.value, result.execution, result.notes) == ("2", 3, (alive_note(2),))
        assert (result.saved_through, again.agent.files) == (1, {"a.txt": "one"})
        assert (await again.run("x")).notes == ()
        assert again.agent.restores == []
        await again.assert_nothing_leaks()
        await again.hibernate()
        assert await again.value("x") == "2"
    assert rows_left(death.path) == []


async def test_every_survivor_is_adopted_without_being_called_and_saved_when_that_is_due(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        for session_id in ("a", "b"):
            await opened.run("x = 1", session_id)
        death = Death(opened)
        death()
    async with house(death.path, engine=death.engine) as again:
        adopting = asyncio.create_task(again.sessions.adopt_all())
        await until(lambda: decided(again))
        await again.look(3)

        async def all_saved() -> bool:
            return [(await again.row(session_id)).saved_through for session_id in ("a", "b")] == [1, 1]

        await until(all_saved)
        assert again.sandboxes._slots.held == 2
        assert (await again.run("1", "c")).value == "1"  # one of them makes room, like any other
        assert sorted([(await again.row(session_id)).state for session_id in ("a", "b")]) == ["hibernated", "ready"]
        adopting.cancel()
        await asyncio.wait([adopting])


async def test_nobody_takes_a_survivor_for_a_leftover(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        death()
    async with house(death.path, engine=death.engine) as again:
        await again.sandboxes.remove_leftovers()
        again.engine.may_adopt.clear()
        call = asyncio.create_task(again.run("x"))
        await asyncio.sleep(0.02)
        await again.sandboxes.remove_leftovers()
        again.engine.may_adopt.set()
        assert (await call).value == "1"
        await again.sandboxes.remove_leftovers()
        assert await again.value("x") == "1"


async def test_an_execution_that_was_not_sent_never_arrived(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        opened.faults.at("execute", death.fault())
        await opened.run("x = 2")
    async with house(death.path, engine=death.engine) as again:
        assert await outcomes(again) == {1: "ok", 2: None}
        result = await again.run("x")
        assert (result.value, result.execution) == ("1", 3)
        assert result.notes == (alive_note(1), never_arrived_note(2))
        assert await outcomes(again) == {1: "ok", 2: "never_arrived", 3: "ok"}


async def test_an_execution_that_ended_is_answered_with_its_result_names_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death, genuine = Death(opened), opened.records.close_execution

        async def killed(*arguments: object, **named: object) -> None:
            death()
            await genuine(*arguments, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(opened.records, "close_execution", killed)
            await opened.run("y = 2\ny")
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert result.notes == (
            alive_note(2),
            "Execution 2 ended after its orchestrator had: ok, 0 s. Value: 2. It bound y.",
        )
        assert await outcomes(again) == {1: "ok", 2: "ok", 3: "ok"}
        assert again.agent.ran == ["x = 1", "y = 2\ny", "x"]
        assert (await again.records.binding_executions((await again.row()).key))["y"] == 2
        await again.save()
        assert (await again.row()).saved_through == 3
        texts = {text.number: text for text in await again.pieces.cells((await again.row()).key)}
        assert (texts[2].code, texts[2].output) == ("", "")


async def running(tmp_path: Path) -> Death:
    """`x` is 1, and an endless cell runs."""
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        call = asyncio.create_task(opened.run(ENDLESS))
        await until(lambda: runs(opened))
        await until(lambda: _has_order(opened))
        death = Death(opened)
        death()
        call.cancel()
        await asyncio.wait([call])
    return death


async def _has_order(opened: House) -> bool:
    return opened.agent.order is not None


async def test_a_cell_goes_on_and_calls_wait_for_it_and_listings_do_not(tmp_path: Path) -> None:
    death = await running(tmp_path)
    async with house(death.path, engine=death.engine) as again:
        call = asyncio.create_task(again.run("x"))
        await until(lambda: decided(again))
        assert "last known state" in (await again.sessions.list_variables("s")).notes[0]
        await again.look(3)  # nor is it saved or hibernated under its cell
        await again.look(50)
        assert again.agent.orders == []
        assert await outcomes(again) == {1: "ok", 2: None}
        assert not call.done()
        again.agent.interrupt(2)
        result = await call
        assert (result.value, result.execution) == ("1", 3)
        assert "Execution 2 ended after its orchestrator had: interrupted" in result.notes[1]
        assert await outcomes(again) == {1: "ok", 2: "interrupted", 3: "ok"}
        assert again.agent.ran == ["x = 1", ENDLESS, "x"]


async def test_who_waits_behind_a_found_cell_and_goes_away_does_not_interrupt_it(tmp_path: Path) -> None:
    death = await running(tmp_path)
    async with house(death.path, engine=death.engine) as again:
        call = asyncio.create_task(again.run("x"))
        await until(lambda: decided(again))
        call.cancel()
        await asyncio.wait([call])
        assert await _has_order(again)
        await again.sessions.clear("s")  # but this does
        assert not await _has_order(again)
        assert await again.value("x") == "NameError"


async def test_a_clear_that_is_the_first_call_of_all_interrupts_what_it_finds(tmp_path: Path) -> None:
    death = await running(tmp_path)
    async with house(death.path, engine=death.engine) as again:
        async with asyncio.timeout(5):
            await again.sessions.clear("s")
        assert await outcomes(again) == {1: "ok", 2: "interrupted"}
        assert await again.value("x") == "NameError"


@pytest.mark.parametrize("connected", [False, True])
async def test_a_session_is_deleted_whatever_its_survivor_does(tmp_path: Path, *, connected: bool) -> None:
    death = await running(tmp_path)
    async with house(death.path, engine=death.engine) as again:
        if not connected:
            again.engine.may_adopt.clear()
        call = asyncio.create_task(again.run("x"))
        await asyncio.sleep(0.05)
        assert await decided(again) is connected
        await again.sessions.delete("s")
        with pytest.raises(SessionDeletedError):
            await call
        await until(lambda: closed(again))
        assert again.engine.there == {}
        assert await again.records.all_sessions() == []


async def test_a_cell_that_ended_while_nobody_was_there_is_answered(tmp_path: Path) -> None:
    death = await running(tmp_path)
    (agent,) = death.engine.there.values()
    assert agent.order is not None
    agent.end_cell(agent.order)
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert (result.value, await outcomes(again)) == ("1", {1: "ok", 2: "interrupted", 3: "ok"})


async def test_a_result_that_is_not_kept_is_unknown_and_what_it_did_is_there(tmp_path: Path) -> None:
    death = await running(tmp_path)
    (agent,) = death.engine.there.values()
    agent.order = None
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert (result.value, result.notes) == ("1", (alive_note(2), unknown_note(2)))
        assert await outcomes(again) == {1: "ok", 2: "outcome_unknown", 3: "ok"}
        await again.save()  # nothing is open that would keep it from that


async def test_a_worker_that_was_being_filled_again_is_filled_by_the_next_owner(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run(KILLED)
        death = Death(opened)
        opened.faults.at("restore namespace", death.fault())
        await opened.run("x")
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert result.value == "1"
        assert [order.section for order in again.agent.restores] == ["namespace"] * 2
        assert not [note for note in result.notes if note.startswith("Lost")]  # the answer before has said so
        await again.assert_nothing_leaks()


async def test_a_killed_worker_that_nobody_was_told_of_is_told_and_filled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        death, genuine = Death(opened), opened.records.close_execution

        async def killed(*arguments: object, **named: object) -> None:
            death()
            await genuine(*arguments, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(opened.records, "close_execution", killed)
            await opened.run(KILLED)
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert result.value == "1"
        assert result.notes[0] == (
            "Lost: the effects of executions 2 to 3, because a cell reached the memory limit. They had left: x."
        )
        assert "Execution 3 ended after its orchestrator had: oom" in result.notes[2]
        assert await outcomes(again) == {1: "ok", 2: "ok", 3: "oom", 4: "ok"}


async def test_a_killed_worker_whose_copy_goes_on_loses_no_more_for_the_next_owner(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run(f"x = 1\n{FORK}")
        death = Death(opened)
        opened.faults.at("execute", death.fault())
        await opened.run(KILLED_BACK)
    (agent,) = death.engine.there.values()
    agent.last, agent.kept = 2, opened.agent.kept
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert (result.value, again.agent.restores) == ("1", [])
        assert result.notes[0] == "Lost: the effects of execution 2, because a cell reached the memory limit."


async def test_what_did_not_come_back_is_told_by_the_next_owner_where_the_first_cell_saw_the_end_of_this_one(
    tmp_path: Path,
) -> None:
    """Nobody else knows that this sandbox holds less than was saved."""
    async with house(tmp_path) as opened:
        await opened.run(f'x = 1\ny = "{DEADLY}"')
        await opened.hibernate()
        death = Death(opened)
        opened.faults.at("execute", death.fault())
        await opened.run("x")
    async with house(death.path, engine=death.engine) as again:
        assert any(note.startswith("Not restored: y") for note in (await again.run("x")).notes)


@pytest.mark.parametrize("when", ["claim", "result"])
async def test_a_survivor_that_dies_under_its_adoption_is_a_loss_like_any_other(tmp_path: Path, when: str) -> None:
    death = await running(tmp_path)
    death.engine.faults.at(when, lose)
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert result.value == "NameError"
        assert "Lost: the effects of executions 1 to 2, because" in result.notes[0]
        ending = {"claim": "outcome_unknown", "result": "sandbox_lost"}[when]
        assert await outcomes(again) == {1: "ok", 2: ending, 3: "ok"}
        await again.assert_nothing_leaks()


@pytest.mark.parametrize("asleep", [False, True])
async def test_a_survivor_that_is_gone_costs_what_no_snapshot_had(tmp_path: Path, *, asleep: bool) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        if not asleep:
            await opened.run("x = 2")
        killed = opened.die()
    async with house(killed) as again:
        result = await again.run("x")
        assert result.value == "1"
        if asleep:
            (note,) = result.notes
            assert note.startswith("The orchestrator had ended, and the session's sandbox did not outlive that")
            assert REMOVED in note
            assert note.endswith("it goes on with what was saved after execution 1.")
        else:
            lost = f"Lost: the effects of execution 2, because {SANDBOX_GONE}. They had left: x."
            assert result.notes == (lost,)
        await again.assert_nothing_leaks()


async def test_an_engine_that_is_away_costs_no_survivor_and_calls_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "_ADOPTION_PAUSE", 0.02)
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        death()
    death.engine.is_away = True
    async with house(death.path, engine=death.engine) as again:
        adopting = asyncio.create_task(again.sessions.adopt_all())
        for _ in range(2):
            with pytest.raises(EngineUnavailableError):
                await again.run("x")
            with pytest.raises(EngineUnavailableError):
                await again.sessions.clear("s")
        assert (await again.row()).executions == 1
        assert "last known state" in (await again.sessions.list_variables("s")).notes[0]
        again.engine.is_away = False
        await until(lambda: decided(again))
        await asyncio.wait([adopting], timeout=5)
        assert adopting.done()
        result = await again.run("x")
        assert (result.value, result.notes) == ("1", (alive_note(1),))


@pytest.mark.parametrize("point", ["save", "piece", "report"])
async def test_a_kill_under_a_save_leaves_the_session_awake_and_savable(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1\nfile a.txt one")
        await opened.save()
        await opened.run("x = 2")
        death = Death(opened)
        opened.faults.at(point, death.fault())
        await opened.save()
    async with house(death.path, engine=death.engine) as again:
        await again.run("y = 3")
        await again.save()
        assert again.agent.orders[-1].head is not None  # it may be named: the agent sends what it does not know
        await again.hibernate()
        assert (await again.value("x"), await again.value("y")) == ("2", "3")
        assert again.agent.files == {"a.txt": "one"}
        assert (await again.histories.check()).problems == ()


@pytest.mark.parametrize("point", ["save", "report"])
async def test_a_kill_under_a_hibernation_leaves_the_session_ready(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        opened.faults.at(point, death.fault())
        await opened.hibernate()
    async with house(death.path, engine=death.engine) as again:
        assert (await again.row()).state is SessionState.SNAPSHOTTING
        result = await again.run("x")
        assert (result.value, result.notes) == ("1", (alive_note(1),))
        assert (await again.row()).state is SessionState.READY
        await again.assert_nothing_leaks()


async def test_a_kill_under_a_start_leaves_no_survivor(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.hibernate()
        death = Death(opened)
        opened.faults.at("restore namespace", death.fault())
        await opened.run("x")
    async with house(death.path, engine=death.engine) as again:
        assert again.sandboxes.survivors.undecided == ()
        result = await again.run("x")
        assert (result.value, result.notes) == ("1", ())
        await again.sandboxes.remove_leftovers()
        await again.assert_nothing_leaks()


@pytest.mark.parametrize("operation", ["clear", "roll back"])
async def test_a_head_that_replaced_what_a_sandbox_holds_is_what_the_next_owner_goes_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        deaths: list[Death] = []
        for name in ("intend_replacement", "snapshot_committed"):
            genuine = getattr(opened.records, name)

            async def killed(*arguments: object, genuine=genuine, name=name) -> object:  # type: ignore[no-untyped-def] # noqa: ANN001
                answer = await genuine(*arguments)
                if name == "intend_replacement" or (deaths and len(deaths) == 1):
                    deaths.append(Death(opened))
                    deaths[-1].path = opened.die(str(len(deaths)))
                    deaths[-1].engine = opened.engine.as_it_is()
                return answer

            monkeypatch.setattr(opened.records, name, killed)
        if operation == "clear":
            await opened.sessions.clear("s")
        else:
            await opened.histories.roll_back("s", 1)
        monkeypatch.undo()
    intended, committed = deaths
    async with house(intended.path, engine=intended.engine) as again:
        # Nothing of it had been done to the sandbox yet.
        assert await again.value("x") == "2"
        await again.save()
        await again.assert_nothing_leaks()
    async with house(committed.path, engine=committed.engine) as again:
        assert again.sandboxes.survivors.undecided == ()
        result = await again.run("x")
        assert (result.value, result.notes) == ({"clear": "NameError", "roll back": "1"}[operation], ())
        await again.sandboxes.remove_leftovers()
        await again.assert_nothing_leaks()


async def test_a_worker_that_a_clear_has_emptied_without_a_word_gets_the_head_back_and_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        death = Death(opened)
        opened.faults.at("save", death.fault())  # the clear's own, after it has emptied the worker
        await opened.sessions.clear("s")
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert result.value == "1"
        assert "Lost: the effects of execution 2, because its process was replaced" in result.notes[0]
        await again.assert_nothing_leaks()
    del monkeypatch


async def test_an_adoption_that_is_cut_short_is_begun_again_by_the_next_owner(tmp_path: Path) -> None:
    first = await running(tmp_path)
    path, engine = first.path, first.engine
    for _ in range(2):
        async with house(path, engine=engine) as again:
            call = asyncio.create_task(again.run("x"))
            await until(lambda again=again: decided(again))  # type: ignore[misc]
            death = Death(again)
            death()
            call.cancel()
            await asyncio.wait([call])
        path, engine = death.path, death.engine
    async with house(path, engine=engine) as again:
        call = asyncio.create_task(again.run("x"))
        await until(lambda: decided(again))
        again.agent.interrupt(2)
        result = await call
        assert result.value == "1"
        assert result.notes[0] == alive_note(2)  # once
        assert len(result.notes) == 2
        assert again.agent.ran == ["x = 1", ENDLESS, "x"]


@pytest.mark.parametrize("savable", [True, False])
async def test_a_sandbox_with_an_older_agent_is_saved_and_woken_in_a_current_one(
    tmp_path: Path, *, savable: bool
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        death()
    current = SandboxImage(IMAGE.tag, IMAGE.environment, "b" * 64, IMAGE.python)
    death.engine.images[IMAGE.environment] = current
    if not savable:
        death.engine.faults.at("save", fail)
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert result.value == "1"
        assert alive_note(1) in result.notes
        assert outdated_note(replaced=savable) in result.notes
        assert [len(agent.restores) for agent in again.engine.agents] == ([0, 2] if savable else [0])
        await again.assert_nothing_leaks()


async def test_a_close_that_cannot_save_leaves_the_session_alive_and_nothing_is_lost(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        opened.faults.at("save", fail)
        engine = opened.engine
    assert [state for _, state in rows_left(tmp_path)] == [SandboxState.CLAIMED]
    assert engine.destroyed == []
    async with house(tmp_path, engine=engine) as again:
        result = await again.run("x")
        assert result.value == "1"
        assert alive_note(1) in result.notes
        assert any(note.startswith("The session could not be saved") for note in result.notes)
    assert rows_left(tmp_path) == []


async def test_a_close_in_a_hurry_leaves_a_running_cell_to_the_next_owner(tmp_path: Path) -> None:
    async with house(tmp_path, stop_seconds=60) as opened:
        await opened.run("x = 1")
        hang = Hang()
        opened.faults.at("save", hang)
        call = asyncio.create_task(opened.save())
        await hang.entered.wait()
        opened.tasks.patience.lose()
        engine = opened.engine
    with pytest.raises(Exception, match="stopping"):
        await call
    async with house(tmp_path, engine=engine) as again:
        assert await again.value("x") == "1"
    assert rows_left(tmp_path) == []


async def test_a_close_before_a_survivor_is_reached_leaves_it_as_it_is(tmp_path: Path) -> None:
    death = await running(tmp_path)
    async with house(death.path, engine=death.engine) as again:
        again.engine.may_adopt.clear()
        call = asyncio.create_task(again.run("x"))
        await asyncio.sleep(0.02)
    with pytest.raises(Exception, match="stopping"):
        await call
    death.engine.may_adopt.set()
    assert death.engine.destroyed == []
    async with house(death.path, engine=death.engine) as again:
        call = asyncio.create_task(again.run("x"))
        await until(lambda: decided(again))
        again.agent.interrupt(2)
        assert (await call).value == "1"


async def test_a_close_interrupts_a_found_cell_and_saves_the_session(tmp_path: Path) -> None:
    death = await running(tmp_path)
    async with house(death.path, engine=death.engine) as again:
        adopting = asyncio.create_task(again.sessions.adopt_all())
        await until(lambda: decided(again))
        await asyncio.wait([adopting], timeout=0.05)
        adopting.cancel()
    assert rows_left(death.path) == []
    async with house(death.path, engine=death.engine) as again:
        result = await again.run("x")
        assert (result.value, result.saved_through) == ("1", 2)
        assert "interrupted" in result.notes[1]


async def test_an_adoption_that_fails_for_a_fault_of_ours_makes_no_second_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        death()
    async with house(death.path, engine=death.engine) as again:

        async def odd(_: object) -> None:
            raise ValueError("odd")

        with monkeypatch.context() as patched:
            patched.setattr(again.engine, "adopt", odd)
            with pytest.raises(Exception, match="in the log"):
                await again.run("x")
        assert len(again.engine.agents) == 0
        assert "odd" in caplog.text
        assert await again.value("x") == "1"


async def test_a_full_store_under_an_adoption_delays_it_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        death = Death(opened)
        opened.faults.at("execute", death.fault())
        await opened.run("x = 2")
    async with house(death.path, engine=death.engine) as again:
        FullOnce(monkeypatch, again.records, "executions")
        with pytest.raises(Exception, match="disk is full"):
            await again.run("x")
        FullOnce(monkeypatch, again.records, "leave_notes")
        result = await again.run("x")
        assert result.value == "1"
        assert set(result.notes) == {alive_note(1), never_arrived_note(2)}


@pytest.mark.parametrize("code", [LOST, STARVED])
async def test_a_sandbox_that_its_memory_ended_is_told_from_one_that_was_lost(tmp_path: Path, code: str) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.save()
        for session_id in ("s", None):
            result = await opened.run(code, session_id)
            assert result.error is not None
            assert result.error.code == ("oom" if code == STARVED else "sandbox_lost")
            assert ("1024 MiB" in result.error.message) is (code == STARVED)
        assert (await outcomes(opened))[2] == ("oom" if code == STARVED else "sandbox_lost")
        assert await opened.value("x") == "1"
