"""A caller goes away, the end comes, or the owner is killed, at each step that something takes.

A step is a request to the records, to the files of snapshots, or to the agent.
"""

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.model import SessionState
from orchestrator.services import sessions as sessions_module
from tests.unit.pretended_agent import KILLED
from tests.unit.pretended_engine import FakeEngine, House, house, until

_NO_STEPS = {"close", "installation"}

Operation = Callable[[House, str], Awaitable[object]]


class Steps:
    """Calls `then` at the step of that number, before (or, `after`, when) it is done."""

    def __init__(self, opened: House, number: int, then: Callable[[], object], *, after: bool = False) -> None:
        self.taken = 0
        self._number = number
        self._then = then
        self._after = after
        self._replaced: list[tuple[object, str]] = []
        for store in (opened.records, opened.pieces):
            for name in dir(type(store)):
                method = getattr(store, name)
                if not name.startswith("_") and asyncio.iscoroutinefunction(method) and name not in _NO_STEPS:
                    setattr(store, name, self._counted(method))
                    self._replaced.append((store, name))
        opened.faults.each = self._step

    async def _step(self) -> None:
        self.taken += 1
        if self.taken == self._number:
            self._then()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _counted(self, method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def counted(*arguments: object, **named: object) -> object:
            if self._after:
                answer = await method(*arguments, **named)
                await self._step()
                return answer
            await self._step()
            return await method(*arguments, **named)

        return counted

    def end(self, opened: House) -> None:
        for store, name in self._replaced:
            delattr(store, name)
        opened.faults.each = None


async def execute(opened: House, session_id: str) -> object:
    return await opened.run("x = 9", session_id)


async def wake(opened: House, session_id: str) -> object:
    return await opened.run("x = 9", session_id)


async def killed(opened: House, session_id: str) -> object:
    return await opened.run(KILLED, session_id)


async def save(opened: House, session_id: str) -> object:
    return await opened.save(session_id)


async def hibernate(opened: House, session_id: str) -> object:
    return await opened.hibernate(session_id)


async def clear(opened: House, session_id: str) -> object:
    await opened.sessions.clear(session_id)
    return None


async def roll_back(opened: House, session_id: str) -> object:
    return await opened.histories.roll_back(session_id, 1)


async def fork(opened: House, session_id: str) -> object:
    return await opened.histories.fork(session_id, f"{session_id}-fork")


# What `x` may be afterwards, where it was 1 in a snapshot and is 2 in the sandbox.
OUTCOMES: dict[Operation, set[str]] = {
    execute: {"2", "9"},
    wake: {"2", "9"},
    killed: {"1", "2"},
    save: {"2"},
    hibernate: {"2"},
    clear: {"2", "NameError"},
    roll_back: {"1", "2"},
    fork: {"2"},
}


async def prepared(opened: House, session_id: str, operation: Operation) -> None:
    await opened.run("x = 1", session_id)
    await opened.save(session_id)
    await opened.run("x = 2", session_id)
    if operation is wake:
        await opened.hibernate(session_id)


async def idle(opened: House) -> bool:
    return all(live._queue._task is None for live in opened.sessions.in_use())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", OUTCOMES)
async def test_a_caller_who_goes_away_leaves_nothing_half_done(
    tmp_path: Path, operation: Operation, *, after: bool
) -> None:
    async with house(tmp_path) as opened:
        for number in range(1, 100):
            session_id = f"s{number}"
            await prepared(opened, session_id, operation)
            calls: list[asyncio.Future[Any]] = []
            steps = Steps(opened, number, lambda calls=calls: calls[0].cancel(), after=after)  # type: ignore[misc]
            calls.append(asyncio.ensure_future(operation(opened, session_id)))
            await asyncio.wait(calls)
            await until(lambda: idle(opened))
            steps.end(opened)
            await opened.assert_nothing_leaks()
            result = await opened.run("x", session_id)
            assert result.value in OUTCOMES[operation], number
            if result.value == "1" and operation is killed:
                told = [result] if calls[0].cancelled() else [calls[0].result(), result]
                (note,) = [note for answer in told for note in answer.notes]
                assert note.startswith("Lost: the effects of executions 2 to 3")
            for row in await opened.records.all_sessions():
                await opened.sessions.delete(row.session_id)
            await opened.assert_nothing_leaks()
            if steps.taken < number:
                assert number > 3
                return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("awake", [False, True])
async def test_a_delete_whose_caller_goes_away_is_done_or_not_and_the_name_can_be_used(
    tmp_path: Path, *, awake: bool, after: bool
) -> None:
    async with house(tmp_path) as opened:
        for number in range(1, 100):
            session_id = f"s{number}"
            await prepared(opened, session_id, execute if awake else wake)
            calls: list[asyncio.Future[Any]] = []
            steps = Steps(opened, number, lambda calls=calls: calls[0].cancel(), after=after)  # type: ignore[misc]
            calls.append(asyncio.ensure_future(opened.sessions.delete(session_id)))
            await asyncio.wait(calls)
            await until(lambda: nothing_is_destroyed(opened))
            steps.end(opened)
            assert await opened.value("x", session_id) in {"2", "NameError"}, number
            await opened.sessions.delete(session_id)
            await opened.assert_nothing_leaks()
            assert await opened.records.all_sessions() == []
            if steps.taken < number:
                assert number > 3
                return
    raise AssertionError("it never ended")


async def nothing_is_destroyed(opened: House) -> bool:
    return all(row.state is not SessionState.DESTROYING for row in await opened.records.all_sessions())


@pytest.mark.parametrize("alive", [False, True])
@pytest.mark.parametrize("operation", [execute, wake, killed, save, hibernate, clear, roll_back])
async def test_an_end_in_a_hurry_loses_nothing_unsaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Operation, *, alive: bool
) -> None:
    """What it leaves is `alive` or not when the next owner comes."""
    monkeypatch.setattr(sessions_module, "_ABORT_PATIENCE", 0.05)
    for number in range(1, 100):
        path = tmp_path / str(number)
        path.mkdir()
        async with house(path, stop_seconds=0) as opened:
            await prepared(opened, "s", operation)
            reached = asyncio.Event()
            steps = Steps(opened, number, reached.set)
            call = asyncio.ensure_future(operation(opened, "s"))
            ends = [asyncio.ensure_future(reached.wait()), call]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            steps.end(opened)
            ends[0].cancel()
        told: list[str] = []
        with suppress(OrchestratorError):
            told += getattr(await call, "notes", ())
        async with house(path, engine=opened.engine if alive else None) as again:
            result = await again.run("x")
            assert result.value in OUTCOMES[operation] | ({"1"} if operation is clear or not alive else set())
            if result.value == "1" and operation is not roll_back:
                (note,) = [note for note in {*told, *result.notes} if note.startswith("Lost")]
                assert note.startswith("Lost: the effects of execution"), number
            await again.sandboxes.remove_leftovers()
            await again.assert_nothing_leaks()
        if steps.taken < number:
            return
    raise AssertionError("it never ended")


ENDED = "The orchestrator had ended"
LOSS = re.compile(r"Lost: the effects of executions? (\d+)(?: to (\d+))?, ")


async def a_life(opened: House, answered: list[int]) -> None:
    """In which `x` is the number of the last execution that bound it."""

    async def run() -> None:
        answered.append((await opened.run(f"x = {answered[-1] + 1}")).execution or 0)

    await run()
    await run()
    await opened.look(3)
    await run()
    await opened.hibernate()
    await run()
    await run()
    await opened.look(3)


Dead = tuple[Path, FakeEngine, int]


async def deaths_in_a_life(home: Path, *, after: bool) -> list[Dead]:
    """What each kill leaves: data, sandboxes, and the last execution that was answered."""
    await asyncio.to_thread(home.mkdir)
    deaths: list[Dead] = []
    async with house(home) as opened:
        answered = [0]

        def die() -> None:
            steps._number += 1
            if answered[-1]:
                deaths.append((opened.die(str(steps.taken)), opened.engine.as_it_is(), answered[-1]))

        steps = Steps(opened, 1, die, after=after)
        await a_life(opened, answered)
        steps.end(opened)
    assert len(deaths) > 40
    return deaths


async def assert_all_is_closed(again: House) -> None:
    rows = await again.records.executions("local", "s")
    assert {row.outcome for row in rows} <= {"ok", "never_arrived", "outcome_unknown"}
    await again.sandboxes.remove_leftovers()
    await again.assert_nothing_leaks()


@pytest.mark.parametrize("after", [False, True])
async def test_an_owner_killed_at_any_step_loses_nothing_that_is_not_told(tmp_path: Path, *, after: bool) -> None:
    """Its sandboxes are gone with it, as after the end of the whole machine."""
    for path, _, last in await deaths_in_a_life(tmp_path / "home", after=after):
        async with house(path) as again:
            result = await again.run("x")
            lost = [found for note in result.notes if (found := LOSS.match(note))]
            assert len(lost) == len([note for note in result.notes if not note.startswith(ENDED)])
            held = 0 if result.value == "NameError" else int(result.value or "")
            assert held <= last, path
            if lost:
                (found,) = lost
                assert int(found[1]) == held + 1, path
                assert int(found[2] or found[1]) in {last, last + 1}, path  # one may have been on its way
            else:
                assert held == last, path
            await assert_all_is_closed(again)


@pytest.mark.parametrize("after", [False, True])
async def test_an_owner_killed_at_any_step_loses_nothing_where_its_sandboxes_live(
    tmp_path: Path, *, after: bool
) -> None:
    for path, engine, last in await deaths_in_a_life(tmp_path / "home", after=after):
        ran = [code for agent in engine.there.values() for code in agent.ran]
        async with house(path, engine=engine) as again:
            result = await again.run("x")
            assert not [note for note in result.notes if note.startswith("Lost")], path
            assert result.value in {str(last), str(last + 1)}, path
            if any(note.startswith("Execution") and "ended after" in note for note in result.notes):
                assert result.value == str(last + 1), path
            assert len(ran) == len(set(ran)), path  # none twice
            await assert_all_is_closed(again)


async def test_an_adoption_that_ends_at_any_step_is_done_by_the_next_owner(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    async with house(tmp_path / "home") as opened:
        await opened.run("x = 1")
        await opened.save()
        await opened.run("x = 2")
        first: list[tuple[Path, FakeEngine]] = []
        genuine = opened.records.close_execution

        async def killed(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 - handed on
            first.append((opened.die(), opened.engine.as_it_is()))
            await genuine(*arguments, **named)

        opened.records.close_execution = killed  # type: ignore[method-assign]
        await opened.run("x = 3")
        del opened.records.close_execution
    for number in range(1, 100):
        path, engine = first[0]
        deaths: list[tuple[Path, FakeEngine]] = []
        copied = shutil.copytree(path, tmp_path / str(number))
        async with house(copied, engine=engine.as_it_is()) as again:
            steps = Steps(
                again,
                number,
                lambda again=again, deaths=deaths: deaths.append((again.die(), again.engine.as_it_is())),  # type: ignore[misc]
            )
            answer = await again.run("x")
            steps.end(again)
        if not deaths:
            assert number > 8
            return
        ((path, engine),) = deaths
        async with house(path, engine=engine) as again:
            result = await again.run("x")
            assert (answer.value, result.value) == ("3", "3"), number
            notes = [note for note in result.notes if note.startswith("Execution 3 ended")]
            assert len(notes) == 1, number
            assert len(result.notes) == len(set(result.notes))
            await assert_all_is_closed(again)
    raise AssertionError("it never ended")
