"""Each kind of value that breaks other ways of saving comes back equal and the same, or is refused with its reason.

The table is in snapshot_table/cases. Every case goes through a real hibernate and wake: its cells, sleep, what listings
and the next answer say of what was refused, one more snapshot, in which nothing may have changed, and its checks. Cases
whose names don't meet share a session, which a case thus has to be saved beside; a worker's session wakes in another
sandbox each time, and is cleared for the next ones.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.comparison import Comparison
from orchestrator.domain.model import ExecutionResult
from orchestrator.settings import Settings
from tests.docker.snapshot_table.table import Case, packed, read_cases

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
    by_limits: dict[tuple[tuple[str, int], ...], list[Case]] = {}
    # What needs libraries first, since it takes longest and goes well together.
    for case in sorted(CASES, key=lambda case: (case.table != "science", -len(case.names))):
        by_limits.setdefault(tuple(case.limits.items()), []).append(case)
    try:
        for number, (limits, cases) in enumerate(by_limits.items()):
            settings = Settings.load(
                data_dir=folder / f"data{number}",
                runtime_dir=folder / f"run{number}",
                channel="unix",
                snapshot_after=1000,
                **{f"{key}_limit": value for key, value in limits},
            )
            packs = deque(packed(cases))
            async with Orchestrator.open(settings) as orchestrator, asyncio.TaskGroup() as group:
                for worker in range(min(AT_A_TIME, len(packs))):
                    group.create_task(run_some(orchestrator, f"s{worker}", packs, futures))
    finally:
        for future in futures.values():
            if not future.done():
                future.set_exception(AssertionError("it was not run to its end"))


async def run_some(orchestrator: Orchestrator, session: str, packs: deque[list[Case]], futures: Results) -> None:
    """As many as there are, one after the other."""
    while packs:
        pack = packs.popleft()
        try:
            async with asyncio.timeout(BOUND_S):
                faults = await run(orchestrator, session, pack)
                await orchestrator.clear(session)
        except Exception as error:  # noqa: BLE001 - the other cases say whether it is more than these
            faults = {case.name: [f"the session failed: {error!r}"] for case in pack}
            session += "+"
        for name, found in faults.items():
            futures[name].set_result(found)


async def run(orchestrator: Orchestrator, session: str, pack: Sequence[Case]) -> dict[str, list[str]]:
    """What went wrong in each."""
    faults: dict[str, list[str]] = {case.name: [] for case in pack}
    for case in pack:
        for cell in case.cells:
            faults[case.name] += await failure(orchestrator, session, cell)
    if not await (await orchestrator.sessions.find(session)).hibernate():
        return {case.name: ["it was not hibernated"] for case in pack}
    listed = await orchestrator.list_variables(session)
    woken = await orchestrator.execute("pass", session_id=session)
    again = await orchestrator.save(session)
    before = (await orchestrator.history(session)).snapshots[1]
    compared = await orchestrator.compare(session, before.sequence, again.sequence)
    for case in pack:
        found = faults[case.name]
        found += [f"in the listing: {fault}" for fault in refusals(case, listed.notes)]
        found += [f"{one.name} is listed" for one in listed.variables if one.name in case.refused]
        found += [f"at wake: {fault}" for fault in refusals(case, woken.notes)]
        found += [f"it was not told: {part}" for part in case.told if not any(part in note for note in woken.notes)]
        found += changes(case, compared)
        found += await failure(orchestrator, session, absence(case))
        found += await failure(orchestrator, session, case.check)
    faults[pack[0].name] += others(pack, woken.notes)
    return faults


async def failure(orchestrator: Orchestrator, session: str, cell: str) -> list[str]:
    result = await orchestrator.execute(cell, session_id=session)
    return [] if result.error is None else [shown(result)]


def shown(result: ExecutionResult) -> str:
    return "" if result.error is None else result.error.traceback or result.error.message


def refusals(case: Case, notes: Sequence[str]) -> list[str]:
    """What is said of the case's names and is not so in the table; and the other way round."""
    said = {name: why for name, why in map(refused_in, notes) if name}
    faults = [f"{name} was refused: {said[name]}" for name in said if name in case.names - case.refused.keys()]
    for name, reason in case.refused.items():
        if name not in said:
            faults.append(f"{name} was not refused")
        elif reason not in said[name]:
            faults.append(f"{name} was refused because {said[name]}")
    return faults


def refused_in(note: str) -> tuple[str, str]:
    if not note.startswith(_REFUSED):
        return "", ""
    name, _, why = note.removeprefix(_REFUSED).partition(" (")
    return name, why


def others(pack: Sequence[Case], notes: Sequence[str]) -> list[str]:
    """Notes that nobody expects."""
    names = {name for case in pack for name in (*case.names, *case.refused)}
    told = [part for case in pack for part in case.told]
    left = [note for note in notes if not any(part in note for part in told) and refused_in(note)[0] not in names]
    return [f"it was told: {note}" for note in left]


def changes(case: Case, compared: Comparison) -> list[str]:
    """What another snapshot holds otherwise, although nothing was done since the wake."""
    names, files = compared.names, compared.files
    changed = {*names.added, *names.removed, *(names.changed if case.stable else ())} & case.names
    changed |= {*files.added, *files.removed, *files.changed}
    return [f"saved again it is another: {', '.join(sorted(changed))}"] if changed else []


def absence(case: Case) -> str:
    """Nothing came back of what was refused."""
    return f"assert not [name for name in {list(case.refused)!r} if name in globals()]"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_case_of_the_table(results: Results, case: Case) -> None:
    faults = results[case.name].result(BOUND_S)
    assert not faults, "\n".join(faults)


def test_the_table_has_what_it_should() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= LEAST
