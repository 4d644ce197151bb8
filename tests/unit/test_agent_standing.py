"""What the supervisor tells of a worker that ended: to each kind of request once, since several may be on their way."""

import itertools

import pytest

from tests.unit.test_agent_saves import load

standing = load("standing")
KINDS = ("execute", "save", "list")


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS)))
def test_requests_that_are_on_their_way_are_all_told_of_a_takeover(order: tuple[str, ...]) -> None:
    before = standing.Standing()
    before.began(3)
    copy = before.taken_over("it was killed", told=False)
    assert [copy.loss(kind) for kind in order] == [("it was killed", 3)] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_asks_again_has_heard_of_it(kind: str) -> None:
    before = standing.Standing()
    before.began(3)
    copy = before.taken_over("it was killed", told=False)
    assert copy.loss(kind) == ("it was killed", 3)
    assert [copy.loss(again) for again in (kind, *KINDS)] == [None] * 4
    copy.asked_by_another()
    assert copy.loss(kind) == ("it was killed", 3), "another host has heard of nothing"


def test_a_cell_goes_on_with_what_there_is() -> None:
    before = standing.Standing()
    before.began(3)
    copy = before.taken_over("it was killed", told=False)
    copy.began(4)
    assert [copy.loss(kind) for kind in KINDS] == [None] * 3


def test_what_needs_the_namespace_is_told_as_long_as_that_is_not_there() -> None:
    fresh = standing.Standing(lost="it was killed")
    assert [fresh.loss("save"), fresh.loss("list"), fresh.loss("save")] == [("it was killed", None)] * 3
    fresh.restored(2)
    assert [fresh.loss(kind) for kind in KINDS] == [None] * 3
