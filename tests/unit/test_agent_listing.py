"""What may stand in the lines of a listing, which user code can write to."""

import pytest

from tests.unit.test_agent_saves import load

listing = load("listing")


@pytest.mark.parametrize("row", [["x", "int", 28, False], ["x", "int", None, True], ["x", "int", 2**53 - 1, 0]])
def test_a_row_of_ours_is_one(row: object) -> None:
    assert listing.is_row(row)


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1, "b": 2, "c": 3, "d": 4},
        "four",
        5,
        None,
        ["x", "int", 28],
        ["x", "int", 28, False, 1],
        [5, "int", 28, False],
        ["x", ["int"], 28, False],
        ["x", "int", -1, False],
        ["x", "int", 2**53, False],
        ["x", "int", True, False],
        ["x", "int", 1.5, False],
    ],
)
def test_what_the_host_would_refuse_is_none(row: object) -> None:
    assert not listing.is_row(row)
