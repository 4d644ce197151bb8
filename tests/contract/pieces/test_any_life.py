"""Whatever a session goes through, its snapshots are what a dictionary would hold."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store.pieces.store import PiecesPolicy, open_pieces
from orchestrator.domain.model import CellText
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import SnapshotRefusedError
from tests.contract.pieces.steps import (
    KEY,
    OTHER,
    expected,
    intent_of,
    is_sound,
    piece,
    save,
    saved_contents,
    sequences,
)
from tests.manual_clock import ManualClock

KEPT = 3
_CONTENTS = st.lists(st.integers(0, 7).map(lambda i: bytes([i]) * (1 + i * 30_000)), max_size=4, unique=True)


@dataclass(slots=True)
class Model:
    """What must be readable: heads by their sequence, and a snapshot that was committed and is not head."""

    heads: dict[int, list[bytes]] = field(default_factory=dict)
    strays: set[int] = field(default_factory=set)
    sequence: int = 0
    cells: int = 0

    @property
    def head(self) -> int | None:
        return max(self.heads, default=None)

    def next(self) -> int:
        self.sequence += 1
        return self.sequence

    def became_head(self, sequence: int, contents: list[bytes]) -> None:
        # A stray counts among the last ones until the next snapshot drops it, which is before this one is committed.
        self.strays.clear()
        self.heads[sequence] = contents
        for old in sorted(self.heads)[:-KEPT]:
            del self.heads[old]


async def _saved(pieces: Pieces, model: Model, contents: list[bytes]) -> None:
    """The agent sends what the head lacks."""
    known = model.heads.get(model.head or 0, [])
    sequence = model.next()
    await save(pieces, sequence, model.head, contents, sent=[c for c in contents if c not in known])
    model.became_head(sequence, contents)


async def _aborted(pieces: Pieces, model: Model, contents: list[bytes]) -> None:
    async with await pieces.begin(intent_of(model.next(), model.head)) as writer:
        for content in contents:
            await writer.put(piece(content))
    model.strays.clear()


async def _refused(pieces: Pieces, model: Model, contents: list[bytes]) -> None:
    """The agent refers to a piece that it neither sent nor may share."""
    known = model.heads.get(model.head or 0, [])
    try:
        await save(pieces, model.next(), model.head, contents, sent=[])
    except SnapshotRefusedError:
        assert set(contents) - set(known)
        model.strays.clear()
    else:
        assert set(contents) <= set(known)
        model.became_head(model.sequence, contents)


async def _stray(pieces: Pieces, model: Model, contents: list[bytes]) -> None:
    """Committed in the file, and then the records refused to make it head."""
    if model.head is None or len(model.heads) == KEPT:  # there it would push a head out of the file
        return
    sequence = model.next()
    await save(pieces, sequence, model.head, contents)
    model.strays = {sequence}


async def _rolled_back(pieces: Pieces, model: Model, contents: list[bytes]) -> None:
    if model.heads:
        source = sorted(model.heads)[len(contents) % len(model.heads)]
        sequence = model.next()
        await pieces.restate(intent_of(sequence, model.head, replaces=True), source)
        model.became_head(sequence, model.heads[source])


async def _cleared(pieces: Pieces, model: Model, _contents: list[bytes]) -> None:
    sequence = model.next()
    await pieces.restate(intent_of(sequence, model.head, replaces=True), model.head, namespace=False)
    model.became_head(sequence, [])


async def _collected(pieces: Pieces, _model: Model, _contents: list[bytes]) -> None:
    await pieces.collect(KEY)


async def _forked(pieces: Pieces, model: Model, _contents: list[bytes]) -> None:
    if model.head is not None:
        sequence = model.next()
        await pieces.fork(KEY, model.head, intent_of(sequence, None, key=OTHER, replaces=True))
        assert await saved_contents(pieces, sequence, key=OTHER) == expected(*model.heads[model.head])


async def _noted(pieces: Pieces, model: Model, contents: list[bytes]) -> None:
    cells = [CellText(model.cells + 1 + i, repr(content[:1]), "", len(content)) for i, content in enumerate(contents)]
    await pieces.note_cells(KEY, cells)
    model.cells += len(cells)


Step = Callable[[Pieces, Model, list[bytes]], Awaitable[None]]
_STEPS: tuple[Step, ...] = (
    _saved,
    _saved,
    _saved,
    _aborted,
    _refused,
    _stray,
    _rolled_back,
    _cleared,
    _collected,
    _forked,
    _noted,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_STEPS), _CONTENTS), max_size=12))
def test_any_life_of_a_session_leaves_its_last_snapshots_whole(
    life: list[tuple[Step, list[bytes]]],
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="pieces-"))
    try:
        asyncio.run(asyncio.wait_for(_live(directory, life), timeout=60))
    finally:
        shutil.rmtree(directory)


async def _live(directory: Path, life: list[tuple[Step, list[bytes]]]) -> None:
    model = Model()
    policy = PiecesPolicy(history=KEPT, floor_bytes=0)
    for step, contents in life:
        # Opened again for each step: nothing that matters is only in memory.
        async with open_pieces(directory, ManualClock(), policy) as pieces:
            await step(pieces, model, contents)
            there = await sequences(pieces, 10**6)
            assert set(there) - model.strays == set(model.heads)
            for sequence, saved in model.heads.items():
                assert await saved_contents(pieces, sequence) == expected(*saved)
            assert [cell.number for cell in await pieces.cells(KEY)] == list(range(1, model.cells + 1))
            assert await is_sound(pieces, model.head)
