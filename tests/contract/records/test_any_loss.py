"""Whatever a session goes through, each execution that was neither saved nor replaced is told as lost once."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.domain.model import Loss, Session
from tests.contract.records.snapshot_steps import intended, named, replacing, written
from tests.contract.records.steps import opened, ready_session, run_cell, stored
from tests.contract.records.test_falling_back import bindings
from tests.manual_clock import ManualClock

_NAMES = st.lists(st.sampled_from("abcde"), unique=True, max_size=4)


@dataclass(slots=True)
class Model:
    """What a session holds: which execution bound each name, and which executions are in no head."""

    executions: int = 0
    held: dict[str, int] = field(default_factory=dict)
    unsaved: list[int] = field(default_factory=list)
    head: dict[str, int] = field(default_factory=dict)
    untold: Loss | None = None

    def ran(self, bound: Sequence[str], removed: Sequence[str]) -> None:
        self.executions += 1
        self.unsaved.append(self.executions)
        for name in removed:
            self.held.pop(name, None)
        self.held |= dict.fromkeys(bound, self.executions)

    def saved(self, names: Sequence[str], through: int) -> None:
        self.head = dict.fromkeys(names, through)
        self.unsaved = [execution for execution in self.unsaved if execution > through]

    def replaced(self, names: Sequence[str]) -> None:
        self.saved(names, self.executions)
        self.held = dict(self.head)
        self.untold = None

    def lost(self) -> None:
        if self.unsaved:
            went = sorted((execution, name) for name, execution in self.held.items() if execution in self.unsaved)
            before = () if self.untold is None else self.untold.names
            first = self.unsaved[0] if self.untold is None else self.untold.first
            names = tuple(dict.fromkeys((*before, *(name for _, name in went))))
            self.untold = Loss(first, self.unsaved[-1], "gone", names)
        self.held = self.head | {name: number for name, number in self.held.items() if number not in self.unsaved}
        self.unsaved = []


@dataclass(slots=True)
class Life:
    """A session in the records, and the model of it."""

    records: SqliteRecords
    session: Session
    model: Model = field(default_factory=Model)


Step = Callable[[Life, Sequence[str], Sequence[str]], Awaitable[None]]


async def _run(life: Life, names: Sequence[str], others: Sequence[str]) -> None:
    removed = [name for name in others if name not in names]
    await run_cell(life.records, life.session, bound=names, removed=removed)
    life.model.ran(names, removed)


async def _saved(life: Life, names: Sequence[str], _: Sequence[str]) -> None:
    intent = await intended(life.records, life.session)
    assert await life.records.snapshot_committed(life.session.key, written(intent, *map(named, names)))
    life.model.saved(names, life.model.executions)


async def _saved_beside_a_call(life: Life, names: Sequence[str], others: Sequence[str]) -> None:
    through = life.model.executions
    intent = await intended(life.records, life.session)
    await _run(life, others, ())
    assert await life.records.snapshot_committed(life.session.key, written(intent, *map(named, names)))
    life.model.saved(names, through)


async def _replaced(life: Life, names: Sequence[str], _: Sequence[str]) -> None:
    intent = await replacing(life.records, life.session)
    assert await life.records.snapshot_committed(life.session.key, written(intent, *map(named, names)))
    life.model.replaced(names)


async def _lost(life: Life, _: Sequence[str], __: Sequence[str]) -> None:
    life.model.lost()
    assert await life.records.namespace_lost(life.session.key, life.session.incarnation, "gone") == life.model.untold


async def _lost_before_a_call(life: Life, names: Sequence[str], _: Sequence[str]) -> None:
    number = await opened(life.records, life.session)
    life.model.lost()
    told = await life.records.namespace_lost(life.session.key, life.session.incarnation, "gone", before=number)
    assert told == life.model.untold
    await life.records.close_execution(
        life.session.key, number, "ok", bound=names, removed=(), variable_count=len(names)
    )
    life.model.ran(names, ())


async def _told(life: Life, _: Sequence[str], __: Sequence[str]) -> None:
    await life.records.loss_told(life.session.key)
    life.model.untold = None


async def _killed(life: Life, _: Sequence[str], __: Sequence[str]) -> None:
    await life.records.recover("gone")
    life.model.lost()
    life.session = await ready_session(life.records)


_STEPS: tuple[Step, ...] = (
    _run,
    _run,
    _run,
    _saved,
    _saved_beside_a_call,
    _replaced,
    _lost,
    _lost_before_a_call,
    _told,
    _killed,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_STEPS), _NAMES, _NAMES), max_size=15))
def test_in_any_life_every_execution_is_saved_replaced_or_told_once(
    life: list[tuple[Step, list[str], list[str]]],
) -> None:
    with tempfile.TemporaryDirectory(prefix="records-") as directory:
        asyncio.run(asyncio.wait_for(_live(Path(directory), life), timeout=60))


async def _live(directory: Path, steps: Sequence[tuple[Step, Sequence[str], Sequence[str]]]) -> None:
    async with open_records(directory / "records.db", ManualClock()) as records:
        life = Life(records, await ready_session(records))
        for step, names, others in steps:
            await step(life, names, others)
            row = await stored(records, life.session.key)
            assert row.untold_loss == life.model.untold
            assert await bindings(records, life.session) == life.model.held
