"""What is closed to a cell, shown by what it answers in our sandboxes and in ones that lack the protection."""

import platform

import pytest

from tests.security.closed import CELLS, Cell
from tests.security.conftest import Inside


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.outcome)
async def test_closed(cell: Cell, inside: Inside) -> None:
    if cell.machine not in (None, platform.machine()):
        pytest.skip(f"there is no such call on {platform.machine()}")
    ours = await (await inside(None)).value(cell.code)
    weakened = await (await inside(cell.without)).value(cell.code)
    assert ours == repr(cell.answer)
    assert weakened in [repr(answer) for answer in cell.then]


def test_every_outcome_has_a_name_of_its_own() -> None:
    assert len({cell.outcome for cell in CELLS}) == len(CELLS)
