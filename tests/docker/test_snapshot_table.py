"""Each kind of value that breaks other ways of saving comes back equal and the same, or is refused with its reason.

The table is in snapshot_table/cases. Every case goes through a real hibernate and wake, in a namespace of its own: its
cells, sleep, what listings and the next answer say of what was refused, its checks, and one more snapshot, in which
nothing may have changed.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.model import ExecutionResult
from orchestrator.settings import Settings
from tests.docker.snapshot_table.table import Case, read_cases

CASES = read_cases()
LEAST = 136  # cases that a prototype passed
AT_A_TIME = 3
BOUND_S = 600.0
_REFUSED = "Not saved: "

Results = dict[str, Future[list[str]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """What went wrong in each case, as soon as it is known."""
    futures: Results = {case.name: Future() for case in CASES}
    folder = tmp_path_factory.mktemp("table")
    thread = threading.Thread(target=lambda: asyncio.run(run_all(folder, futures)))
    thread.start()
    yield futures
    thread.join(BOUND_S)


async def run_all(folder: Path, futures: Results) -> None:
    """One orchestrator for all that has the same limits."""
    by_limits: dict[tuple[tuple[str, int], ...], deque[Case]] = {}
    for case in sorted(CASES, key=lambda case: (bool(case.limits), not case.slow, case.table != "science")):
        by_limits.setdefault(tuple(case.limits.items()), deque()).append(case)
    try:
        for number, (limits, cases) in enumerate(by_limits.items()):
            settings = Settings.load(
                data_dir=folder / f"data{number}",
                runtime_dir=folder / f"run{number}",
                channel="unix",
                snapshot_after=1000,
                **{f"{key}_limit": value for key, value in limits},
            )
            async with Orchestrator.open(settings) as orchestrator, asyncio.TaskGroup() as group:
                for worker in range(min(AT_A_TIME, len(cases))):
                    group.create_task(run_some(orchestrator, f"s{worker}", cases, futures))
    finally:
        for future in futures.values():
            if not future.done():
                future.set_exception(AssertionError("it was not run to its end"))


async def run_some(orchestrator: Orchestrator, session: str, cases: deque[Case], futures: Results) -> None:
    """Cases in the session that wakes for each in a fresh sandbox, and is cleared for the next."""
    while cases:
        case = cases.popleft()
        try:
            async with asyncio.timeout(BOUND_S):
                futures[case.name].set_result(await run(orchestrator, session, case))
                await orchestrator.clear(session)
        except Exception as error:  # the other cases say whether it is more than this one
            if not futures[case.name].done():
                futures[case.name].set_exception(error)
            session += "+"


async def run(orchestrator: Orchestrator, session: str, case: Case) -> list[str]:
    """What went wrong."""
    for cell in case.cells:
        result = await orchestrator.execute(cell, session_id=session)
        if result.error is not None:
            return [f"a cell failed: {shown(result)}"]
    if not await (await orchestrator.sessions.find(session)).hibernate():
        return ["it was not hibernated"]
    listed = await orchestrator.list_variables(session)
    woken = await orchestrator.execute("pass", session_id=session)
    return [
        *(f"in the listing: {fault}" for fault in refusals(case, listed.notes)),
        *(f"{one.name} is listed" for one in listed.variables if one.name in case.refused),
        *(f"at wake: {fault}" for fault in [*refusals(case, woken.notes), *others(case, woken.notes)]),
        *await changes(orchestrator, session, case),
        *await check(orchestrator, session, case),
    ]


def refusals(case: Case, notes: tuple[str, ...]) -> list[str]:
    """What is said to be refused, and should not be; and the other way round."""
    said: dict[str, str] = {}
    for note in notes:
        if note.startswith(_REFUSED):
            name, _, rest = note.removeprefix(_REFUSED).partition(" (")
            said[name] = rest
    faults = [f"{name} was refused: {said[name]}" for name in said if name not in case.refused]
    for name, reason in case.refused.items():
        if name not in said:
            faults.append(f"{name} was not refused")
        elif reason not in said[name]:
            faults.append(f"{name} was refused because {said[name]}")
    return faults


def others(case: Case, notes: tuple[str, ...]) -> list[str]:
    """Notes that nobody expects, and those that are missing."""
    said = [note for note in notes if not note.startswith(_REFUSED)]
    faults = [f"it was told: {note}" for note in said if not any(part in note for part in case.told)]
    return faults + [f"it was not told: {part}" for part in case.told if not any(part in note for note in said)]


async def changes(orchestrator: Orchestrator, session: str, case: Case) -> list[str]:
    """What another snapshot holds otherwise, although nothing was done since the wake."""
    again = await orchestrator.save(session)
    before = (await orchestrator.history(session)).snapshots[1]
    compared = await orchestrator.compare(session, before.sequence, again.sequence)
    names, files = compared.names, compared.files
    changed = [*names.added, *names.removed, *(names.changed if case.stable else ()), *files.added, *files.changed]
    return [f"saved again it is another: {', '.join(changed)}"] if changed else []


async def check(orchestrator: Orchestrator, session: str, case: Case) -> list[str]:
    """The case's own checks, and that nothing came back of what was refused."""
    refused = [name for name in case.refused if name.isidentifier()]
    absent = f"assert not [name for name in {refused!r} if name in globals()]"
    for cell in (absent, case.check):
        result = await orchestrator.execute(cell, session_id=session)
        if result.error is not None:
            return [f"a check failed: {shown(result)}"]
    return []


def shown(result: ExecutionResult) -> str:
    return f"{result.error}\n{result.output}"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_case_of_the_table(results: Results, case: Case) -> None:
    faults = results[case.name].result(BOUND_S)
    assert not faults, "\n".join(faults)


def test_the_table_has_what_it_should() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= LEAST
