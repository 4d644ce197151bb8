"""What is closed to a cell, shown by what it answers in our sandboxes and in ones that lack the protection."""

import platform
from typing import cast, get_args

import pytest

from orchestrator.domain.hostile_cells import BY_KIND, CELLS, Cell
from tests.security.arena import Arena
from tests.security.conftest import Inside
from tests.security.weakened import Weakening

KIND = "kernel surface"
CASES = [pytest.param(kind, cell, id=cell.outcome) for kind, cells in BY_KIND.items() for cell in cells]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("kind", "cell"), CASES)
async def test_closed(kind: str, cell: Cell, arena: Arena, inside: Inside) -> None:
    assert cell in BY_KIND[kind]
    if cell.machine not in (None, platform.machine()):
        pytest.skip(f"there is no such call on {platform.machine()}")
    if arena.fresh:
        await arena.reset()
    ours = await arena.value(cell.code)
    weakened = await (await inside(cast("Weakening", cell.without))).value(cell.code)
    assert ours == repr(cell.answer)
    assert weakened in [repr(answer) for answer in cell.then]


def test_every_outcome_has_a_name_of_its_own() -> None:
    assert len({cell.outcome for cell in CELLS}) == len(CELLS)
    assert {cell.without for cell in CELLS} <= set(get_args(Weakening))
