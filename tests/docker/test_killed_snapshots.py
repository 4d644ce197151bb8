"""`kill -9` of the owner at each step of a save, a hibernation, a wake, a rollback and a clear, on the whole system.

Afterwards a session has what it had before or after, never a mixture; what is gone is told by its execution; nothing is
left of containers, sockets, rows and pieces.
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
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME, PiecesPolicy, open_pieces
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.model import Loss, SessionState
from orchestrator.services.results import loss_note
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import what_is_left
from tests.docker.killed_session import SESSION, STEPS

_CAUSE = "the orchestrator that ran it had ended without closing it"
_READ = (
    "(globals().get('x'), 'x' in globals() and x is y, globals().get('z'),"
    " __import__('zlib').crc32(globals().get('a', b'') + globals().get('b', b'')), open('f').read())"
)


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the next owner's first caller finds and is told."""

    value: str
    lost: int | None = None  # the one execution
    names: tuple[str, ...] = ()

    @property
    def loss(self) -> set[str]:
        """Every note that there is."""
        return set() if self.lost is None else {loss_note(Loss(self.lost, self.lost, _CAUSE, self.names))}


SAVED = Outcome(AFTER[2])
UNSAVED = Outcome(AFTER[1], 2, NAMES[2])
OUTCOMES: Mapping[tuple[str, str], Outcome] = {
    **{
        ("save", step): UNSAVED
        for step in (
            "before the intent",
            "after the intent",
            "after begin",
            "after frozen",
            "amid the pieces",
            "after the last piece",
            "inside the commit",
        )
    },
    **{("save", step): SAVED for step in ("between commit and head", "inside the head's change", "after the head")},
    ("quiet", "before collecting"): SAVED,
    **{("hibernate", step): UNSAVED for step in ("after snapshotting", "after frozen", "amid the pieces")},
    **{
        ("hibernate", step): SAVED
        for step in (
            "between commit and head",
            "before hibernated",
            "after hibernated",
            "before the sandbox goes",
            "after the sandbox went",
        )
    },
    **{("wake", step): SAVED for step in STEPS["wake"]},
    ("wake", "after the execution's row"): Outcome(AFTER[2], 3),
    ("wake", "before the execution's end"): Outcome(AFTER[2], 3),
    ("wake", "after the execution's end"): Outcome(AFTER[2], 3, NAMES[3]),
    ("roll back", "while the present is saved"): Outcome(AFTER[2], 3, NAMES[3]),
    **{
        ("roll back", step): Outcome(AFTER[3])
        for step in ("after the present is saved", "after the intent", "inside the commit")
    },
    **{
        ("roll back", step): Outcome(AFTER[1])
        for step in (
            "between commit and head",
            "inside the head's change",
            "after the head",
            "after hibernated",
            "before the sandbox goes",
        )
    },
    **{("clear", step): UNSAVED for step in ("after the intent", "after the worker", "inside the commit")},
    **{
        ("clear", step): Outcome(CLEARED)
        for step in (
            "between commit and head",
            "inside the head's change",
            "after the head",
            "after the clear's row",
            "after the answer",
        )
    },
}


class Owners:
    """A process that lets owners live until they kill themselves, each in a fork of what it has imported."""

    def __init__(self, process: "subprocess.Popen[str]", directory: Path) -> None:
        self._process = process
        self._directory = directory

    def killed(self, scenario: str, step: str) -> Settings:
        """What one had that was killed at its step."""
        place = self._directory / str(list(OUTCOMES).index((scenario, step)))
        settings = Settings.load(
            data_dir=place / "data", runtime_dir=place / "run", channel="unix", interrupt_grace=0.5
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            json.dumps([scenario, step, str(settings.data_dir), str(settings.runtime_dir)]) + "\n"
        )
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
    assert set(OUTCOMES) == {(scenario, step) for scenario, steps in STEPS.items() for step in steps}


@pytest.mark.parametrize(("scenario", "step"), OUTCOMES)
async def test_killed_at_a_step_a_session_is_what_it_was_before_or_after(
    scenario: str, step: str, owners: Owners, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long the engine may still be at what a dead owner asked of it; here it was asked for nothing.
    assert Sandboxes.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Sandboxes.__init__.__kwdefaults__, "create_bound", 0.5)
    outcome = OUTCOMES[scenario, step]
    settings = owners.killed(scenario, step)

    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as orchestrator:
        assert (await orchestrator.check()).problems == ()
        assert [one.state for one in await orchestrator.list_sessions()] == [SessionState.HIBERNATED]
        assert outcome.loss <= set((await orchestrator.list_variables(SESSION)).notes)
        woken = await orchestrator.execute(_READ, session_id=SESSION)
        assert (woken.error, woken.value, set(woken.notes)) == (None, outcome.value, outcome.loss)
        await orchestrator.save(SESSION)
        assert (await orchestrator.check()).problems == ()

    left = await what_is_left(settings, engine, held, running)
    assert not left, left
    (key,) = _sessions_in_rest(settings)
    async with open_pieces(settings.data_dir, SystemClock(), PiecesPolicy()) as pieces:
        assert (await pieces.sizes(key)).unreferenced == 0
    assert not leaks.files(settings.data_dir / DIRECTORY_NAME, expected=[f"{key}.pieces", f"{key}.pieces-journal"])


def _sessions_in_rest(settings: Settings) -> list[str]:
    with closing(sqlite3.connect(settings.data_dir / RECORDS_NAME)) as records:
        rows = records.execute("SELECT key, state, untold_loss, untold_notes FROM sessions").fetchall()
        assert records.execute("SELECT session FROM snapshots WHERE intended IS NOT NULL").fetchall() == []
    assert [row[1:] for row in rows] == [("hibernated", None, "[]")]
    return [row[0] for row in rows]
