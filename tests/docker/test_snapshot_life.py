"""Whatever a program does, a session that sleeps, wakes, is forked and rolled back is as one that never was: never old.

hypothesis makes programs of the steps in snapshot_programs/steps.txt, and what happens to their sessions between cells.
After each of these the session's fingerprint has to be the one before, and at the end that of a session that ran the
same cells without an interruption. Every run of the tests tries the same programs. To hunt for longer, with others:

    HUNT_EXAMPLES=2000 make test ARGS="tests/docker/test_snapshot_life.py -x"

What fails is printed as the smallest program that does, and tried again first next time (.hypothesis keeps it).
"""

import asyncio
import difflib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from orchestrator.app import Orchestrator
from orchestrator.domain.model import ExecutionResult
from orchestrator.settings import Settings

FOLDER = Path(__file__).parent / "snapshot_programs"
EXAMPLES = int(os.environ.get("HUNT_EXAMPLES", "20"))
HUNTS = "HUNT_EXAMPLES" in os.environ
SESSION, UNDISTURBED, COPY = "session", "undisturbed", "copy"
SHOWN_LINES = 60
_, BEGIN, _STEPS, _WITH_PANDAS, _PANDAS_STEPS = re.split(
    "^===.*\n", (FOLDER / "steps.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
)
STEPS, PANDAS_STEPS = _STEPS.strip().splitlines(), _PANDAS_STEPS.strip().splitlines()

Event = Literal["save", "sleep", "back", "fork"]


@dataclass(frozen=True)
class Step:
    """One line of a cell."""

    text: str
    v: int
    w: int
    n: int
    k: int

    @property
    def lines(self) -> str:
        chosen = f"v = at({self.v}); w = at({self.w}); n = {self.n}; k = 'name{self.k}'"
        return f"{chosen}\ntry:\n    {self.text}\nexcept TypeError: pass\nglobals().pop('t', None)"


@dataclass(frozen=True)
class Part:
    """A cell, and what then happens to the session."""

    steps: list[Step]
    event: Event
    which: int  # of the snapshots, to go back to

    @property
    def cell(self) -> str:
        return "\n".join([*(step.lines for step in self.steps), "v = w = n = k = None; del v, w, n, k"])


@dataclass(frozen=True)
class Program:
    """What a session goes through."""

    parts: list[Part]
    pandas: bool

    @property
    def begin(self) -> str:
        fingerprint = (FOLDER / "fingerprint.py").read_text(encoding="utf-8")
        begin = BEGIN + (_WITH_PANDAS if self.pandas else "")
        return f"open('/workspace/.fingerprint', 'w').write({fingerprint!r})\n{begin}"


@st.composite
def programs(draw: st.DrawFn) -> Program:
    pandas = draw(st.integers(0, 3)) == 3  # it takes long to import
    texts = [*STEPS, *PANDAS_STEPS * 3] if pandas else STEPS
    index = st.integers(0, 60)
    step = st.builds(Step, st.sampled_from(texts), index, index, st.integers(0, 9), st.integers(0, 4))
    event: st.SearchStrategy[Event] = st.sampled_from(["sleep", "sleep", "save", "back", "fork"])
    part = st.builds(Part, st.lists(step, min_size=1, max_size=25), event, st.integers(0, 4))
    return Program(draw(st.lists(part, min_size=1, max_size=4)), pandas)


class Life:
    """One program, lived twice: with interruptions, and at the end without."""

    def __init__(self, orchestrator: Orchestrator, program: Program) -> None:
        self._orchestrator = orchestrator
        self._program = program
        self._cells: list[str] = []
        self._snapshots: dict[int, tuple[list[str], str]] = {}

    async def live(self) -> None:
        for session in (SESSION, UNDISTURBED):
            await self._orchestrator.execute("pass", session_id=session)
            await self._orchestrator.clear(session)
        await self._do(self._program.begin)
        for part in self._program.parts:
            await self._do(part.cell)
            before = await self._fingerprint(SESSION)
            wanted, where = await self._happens(part, before)
            found = await self._fingerprint(where)
            if where == COPY:
                await self._orchestrator.delete(COPY)
            assert_same(wanted, found, part.event)
        for cell in self._cells:
            await self._run(UNDISTURBED, cell)
        assert_same(await self._fingerprint(UNDISTURBED), await self._fingerprint(SESSION), "the whole program")

    async def _happens(self, part: Part, before: str) -> tuple[str, str]:
        """What the fingerprint must be, and of which session."""
        orchestrator, where = self._orchestrator, SESSION
        if part.event == "back" and self._snapshots:
            history = [one.sequence for one in (await orchestrator.history(SESSION)).snapshots]
            known = [sequence for sequence in history if sequence in self._snapshots]
            if known:
                chosen = known[part.which % len(known)]
                cells, before = self._snapshots[chosen]
                self._cells = list(cells)
                await orchestrator.roll_back(SESSION, chosen)
        elif part.event == "sleep":
            assert await (await orchestrator.sessions.find(SESSION)).hibernate()
        elif part.event == "fork":
            await orchestrator.fork(SESSION, COPY)
            where = COPY
        else:
            await orchestrator.save(SESSION)
        self._snapshots[(await orchestrator.history(SESSION)).snapshots[0].sequence] = (list(self._cells), before)
        return before, where

    async def _do(self, cell: str) -> None:
        self._cells.append(cell)
        await self._run(SESSION, cell)

    async def _fingerprint(self, session: str) -> str:
        cell = "exec(open('/workspace/.fingerprint').read(), {'ns': globals(), '__name__': '__main__'})"
        return (await self._run(session, cell)).output

    async def _run(self, session: str, cell: str) -> ExecutionResult:
        result = await self._orchestrator.execute(cell, session_id=session)
        assert result.error is None, f"{result.error.traceback}\n{cell}"
        # A thread that was joined may take a moment to be gone.
        assert not [text for text in result.notes if not text.startswith("background_threads")], result.notes
        assert not result.truncated
        return result


def assert_same(wanted: str, found: str, after: str) -> None:
    if wanted != found:
        differences = difflib.unified_diff(wanted.splitlines(), found.splitlines(), "before", "after", lineterm="", n=0)
        raise AssertionError(f"not the same after: {after}\n" + "\n".join(list(differences)[:SHOWN_LINES]))


@pytest.fixture
async def roomy(tmp_path: Path) -> AsyncIterator[Orchestrator]:
    """Saves only what and when it is told."""
    chosen = Settings.load(
        data_dir=tmp_path / "data",
        runtime_dir=tmp_path / "run",
        channel="unix",
        snapshot_after=1000,
        output_limit=1_048_576,
    )
    async with Orchestrator.open(chosen) as orchestrator:
        yield orchestrator


async def test_no_wake_no_rollback_and_no_fork_is_ever_old(roomy: Orchestrator) -> None:
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=EXAMPLES,
        derandomize=not HUNTS,
        database=None if not HUNTS else settings.default.database if settings.default else None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink] if HUNTS else [Phase.generate, Phase.shrink],
        print_blob=True,
    )
    @given(programs())
    def hunt(program: Program) -> None:
        for part in program.parts:
            note(f"{part.cell}\n--- {part.event} {part.which}")
        asyncio.run_coroutine_threadsafe(Life(roomy, program).live(), loop).result()

    await asyncio.to_thread(hunt)
