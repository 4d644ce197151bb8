"""`kill -9` of the owner at each step of a call, a save, a hibernation, a wake, a rollback, a clear and a delete, on
the whole system.

Afterwards a session has what it had before or after, never a mixture, from its live sandbox where there is one; no
execution runs twice; what is gone is told by its execution; nothing is left of containers, sockets, rows and pieces.
"""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME, PiecesPolicy, open_pieces
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.domain.model import LOCAL_TENANT, Loss, SessionState
from orchestrator.services.adoption_notes import alive_note, gone_note, never_arrived_note
from orchestrator.services.results import loss_note
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left, what_is_left
from tests.docker.killed_session import REMOVING, SESSION, STARTING, STEPS

_CAUSE = "its orchestrator had ended, and its sandbox did not outlive that: its container was removed"
_READ = (
    "(globals().get('x'), 'x' in globals() and x is y, globals().get('z'),"
    " __import__('zlib').crc32(globals().get('a', b'') + globals().get('b', b'')),"
    " open('f').read() if __import__('os').path.exists('f') else None)"
)
_COUNT = "open('count').read() if __import__('os').path.exists('count') else ''"


def _bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - the same bytes again


_ONE, _TWO = _bytes(1, 2_000_000), _bytes(2, 1_500_000)
_THREE, _FOUR = _bytes(3, 2_000_000), _bytes(4, 1_500_000)
# What `_READ` answers where all is as that execution left it.
AFTER: Mapping[int, str] = {
    1: repr(([1], True, "one", zlib.crc32(_ONE + _TWO), "1")),
    2: repr(([1, 2], True, "two", zlib.crc32(_THREE + _TWO), "2")),
    3: repr(([1, 2, 3], True, "three", zlib.crc32(_THREE + _FOUR), "3")),
}
CLEARED = repr((None, False, None, 0, "2"))
# What each execution binds.
NAMES = {2: ("a", "z"), 3: ("b", "z")}


def loss(first: int, names: tuple[str, ...], *, last: int = 0) -> str:
    """What is told of those executions."""
    return loss_note(Loss(first, last or first, _CAUSE, names))


# Scenario and step, the channel, and whether the containers are there when the next owner comes.
Case = tuple[str, str, str, bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the next owner's first caller finds and is told."""

    value: str
    asleep: bool = False  # it wakes from its snapshot; else its sandbox was found alive
    notes: tuple[str, ...] = ()  # how each of them begins
    rows: Mapping[int, str] = field(default_factory=dict)  # how unanswered executions ended


def alive(value: int | str, held: int, *notes: str, rows: Mapping[int, str] | None = None) -> Outcome:
    """The sandbox holds what it held after that execution."""
    after = AFTER[value] if isinstance(value, int) else value
    return Outcome(after, notes=(alive_note(held), *notes), rows=rows or {})


def asleep(value: int | str, *notes: str) -> Outcome:
    """The sandbox is gone, or is none of the session's."""
    return Outcome(AFTER[value] if isinstance(value, int) else value, asleep=True, notes=notes)


ENDED = "Execution 3 ended after its orchestrator had: ok"
HEARD = {3: "ok"}
# A fresh worker, with the names of the head; files go on.
REFILLED = AFTER[1].replace("'1')", "'2')")
STARTED = repr((None, False, None, 0, None))
OUTCOMES: Mapping[tuple[str, str], Outcome] = {
    ("idle", "between two calls"): alive(2, 2),
    ("run", "after the execution's row"): alive(2, 2, never_arrived_note(3), rows={3: "never_arrived"}),
    ("run", "while it runs"): alive(3, 3, ENDED, rows=HEARD),
    ("run", "after the reply"): alive(3, 3, ENDED, rows=HEARD),
    ("run", "before the execution's end"): alive(3, 3, ENDED, rows=HEARD),
    ("run", "after the execution's end"): alive(3, 3),
    **{("start", step): asleep(STARTED) for step in STARTING},
    ("start", "after ready"): alive(STARTED, 0),
    ("start", "after the execution's row"): alive(STARTED, 0, never_arrived_note(1), rows={1: "never_arrived"}),
    **{("save", step): alive(2, 2) for step in STEPS["save"]},
    ("quiet", "before collecting"): alive(2, 2),
    **{("hibernate", step): alive(2, 2) for step in STEPS["hibernate"]},
    **{("hibernate", step): asleep(2) for step in ("after hibernated", *REMOVING)},
    **{("wake", step): asleep(2) for step in STEPS["wake"]},
    ("wake", "after ready"): alive(2, 2),
    ("wake", "after the execution's row"): alive(2, 2, never_arrived_note(3), rows={3: "never_arrived"}),
    ("wake", "before the execution's end"): alive(3, 3, ENDED, rows=HEARD),
    ("wake", "after the execution's end"): alive(3, 3),
    **{("roll back", step): asleep(1) for step in STEPS["roll back"]},
    **{
        ("roll back", step): alive(3, 3)
        for step in (
            "while the present is saved",
            "after the present is saved",
            "after the intent",
            "inside the commit",
        )
    },
    **{("clear", step): asleep(CLEARED) for step in STEPS["clear"]},
    ("clear", "after the intent"): alive(2, 2),
    **{
        ("clear", step): alive(REFILLED, 2, "Lost: the effects of execution 2, because its process was replaced")
        for step in ("after the worker", "inside the commit")
    },
    **{("clear", step): alive(CLEARED, 2) for step in ("after the clear's row", "after the answer")},
}
# Its containers are gone with the owner, as after the end of the whole machine.
LOST: Mapping[tuple[str, str], Outcome] = {
    ("idle", "between two calls"): Outcome(AFTER[1], notes=(loss(2, NAMES[2]),)),
    ("run", "while it runs"): Outcome(AFTER[1], notes=(loss(2, NAMES[2], last=3),), rows={3: "outcome_unknown"}),
    ("save", "amid the pieces"): Outcome(AFTER[1], notes=(loss(2, NAMES[2]),)),
    ("save", "between commit and head"): Outcome(AFTER[2], notes=(gone_note("its container was removed", 2),)),
    ("hibernate", "before hibernated"): Outcome(AFTER[2], notes=(gone_note("its container was removed", 2),)),
    ("hibernate", "after hibernated"): asleep(2),
    ("wake", "after the execution's row"): Outcome(AFTER[2], notes=(loss(3, ()),), rows={3: "outcome_unknown"}),
}
CASES = [
    *((*killed, "unix", True) for killed in OUTCOMES),
    *((*killed, "attach", True) for killed in OUTCOMES if killed[0] in ("idle", "run")),
    *((*killed, "unix", False) for killed in LOST),
]
DELETED = [("remove", step, "unix", True) for step in STEPS["remove"]]


class Owners:
    """A process that lets owners live until they kill themselves, each in a fork of what it has imported."""

    def __init__(self, process: "subprocess.Popen[str]", directory: Path) -> None:
        self._process = process
        self._directory = directory

    def killed(self, case: Case) -> Settings:
        """What one had that was killed at its step."""
        scenario, step, channel, _ = case
        place = self._directory / str([*CASES, *DELETED].index(case))
        settings = Settings.load(
            data_dir=place / "data", runtime_dir=place / "run", channel="unix", interrupt_grace=0.5
        )
        line = [scenario, step, str(settings.data_dir), str(settings.runtime_dir), channel]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        assert int(self._process.stdout.readline()) == signal.SIGKILL, "it never came to its step"
        return settings


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owners]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.docker.killed_session"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield Owners(process, tmp_path_factory.mktemp("killed"))


def test_every_step_has_its_outcome() -> None:
    steps = {(scenario, step) for scenario, steps in STEPS.items() for step in steps}
    assert set(OUTCOMES) | {("remove", step) for step in STEPS["remove"]} == steps


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the engine may still be at what a dead owner asked of it; here it was asked for nothing."""
    assert Sandboxes.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Sandboxes.__init__.__kwdefaults__, "create_bound", 0.05)


def _name(case: Case) -> str:
    scenario, step, channel, lives = case
    return f"{scenario}, {step}, {channel}{'' if lives else ', gone'}"


@pytest.mark.parametrize("case", CASES, ids=_name)
async def test_killed_at_a_step_a_session_is_what_it_was_before_or_after(
    case: Case, owners: Owners, engine: docker.APIClient
) -> None:
    scenario, step, _, lives = case
    outcome = (OUTCOMES if lives else LOST)[scenario, step]
    settings = owners.killed(case)
    if not lives:
        remove_containers(engine, settings)

    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as orchestrator:
        assert (await orchestrator.check()).problems == ()
        ((asleep),) = [one.state is SessionState.HIBERNATED for one in await orchestrator.list_sessions()]
        assert asleep is outcome.asleep or not lives
        woken = await orchestrator.execute(_READ, session_id=SESSION)
        assert (woken.error, woken.value) == (None, outcome.value)
        told = sorted(woken.notes)
        assert len(told) == len(outcome.notes), told
        assert all(map(str.startswith, told, sorted(outcome.notes))), told
        ran = (await orchestrator.execute(_COUNT, session_id=SESSION)).value or ""
        assert len(set(ran.strip("' ").split())) == len(ran.strip("' ").split()), ran  # none has run twice
        rows = await orchestrator.sessions._records.executions(LOCAL_TENANT, SESSION)
        ended = {row.number: row.outcome for row in rows}
        assert None not in ended.values()
        assert outcome.rows.items() <= ended.items()
        await orchestrator.save(SESSION)
        assert (await orchestrator.check()).problems == ()

    await assert_nothing_is_left(settings, engine, held, running)
    (key,) = _sessions_in_rest(settings)
    async with open_pieces(settings.data_dir, SystemClock(), PiecesPolicy()) as pieces:
        assert (await pieces.sizes(key)).unreferenced == 0
    assert not leaks.files(settings.data_dir / DIRECTORY_NAME, expected=[f"{key}.pieces", f"{key}.pieces-journal"])


@pytest.mark.parametrize("case", DELETED, ids=_name)
async def test_killed_while_it_is_deleted_a_session_is_gone(
    case: Case, owners: Owners, engine: docker.APIClient
) -> None:
    settings = owners.killed(case)
    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as orchestrator:
        assert await orchestrator.list_sessions() == []
        assert (await orchestrator.check()).problems == ()
        assert (await orchestrator.execute(_READ, session_id=SESSION)).value == STARTED
        await orchestrator.delete(SESSION)
    await assert_nothing_is_left(settings, engine, held, running)
    assert not leaks.files(settings.data_dir / DIRECTORY_NAME)


def remove_containers(engine: docker.APIClient, settings: Settings) -> None:
    installation, _ = records_left(settings.data_dir / RECORDS_NAME)
    for row in engine.containers(all=True, filters={"label": [f"{LABEL_INSTALLATION}={installation}"]}):
        engine.remove_container(row["Id"], force=True)


async def assert_nothing_is_left(
    settings: Settings, engine: docker.APIClient, held: set[str], running: set[str]
) -> None:
    left = await what_is_left(settings, engine, held, running)
    assert not left, left


def _sessions_in_rest(settings: Settings) -> list[str]:
    with closing(sqlite3.connect(settings.data_dir / RECORDS_NAME)) as records:
        rows = records.execute("SELECT key, state, untold_loss, untold_notes FROM sessions").fetchall()
        assert records.execute("SELECT session FROM snapshots WHERE intended IS NOT NULL").fetchall() == []
    assert [row[1:] for row in rows] == [("hibernated", None, "[]")]
    return [row[0] for row in rows]
