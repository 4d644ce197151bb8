"""The line for sandboxes is fair: nobody waits longer than the round takes, whatever the others do."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.fair_line import FairLine

TENANTS = "abcd"


def line(*waiting: str, per_tenant: int = 100, in_all: int = 100) -> FairLine[str]:
    """Whoever waits is named by its tenant and a number, such as `a1`."""
    made: FairLine[str] = FairLine(per_tenant=per_tenant, in_all=in_all)
    for name in waiting:
        made.join(name[0], name)
    return made


def served(fair: FairLine[str]) -> Sequence[str]:
    """All of them, in their order."""
    order = []
    while (one := fair.next()) is not None:
        order.append(one)
    return order


def test_tenants_take_turns_and_each_is_first_come_first_served() -> None:
    assert served(line("a1", "a2", "a3", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_leaves_costs_nobody_a_turn() -> None:
    fair = line("a1", "a2", "b1", "b2")
    fair.leave("b", "b1")
    fair.leave("b", "b1")
    fair.leave("c", "c1")
    assert served(fair) == ["a1", "b2", "a2"]
    assert len(fair) == 0


def test_both_bounds_are_told_apart() -> None:
    fair = line("a1", "a2", "b1", per_tenant=2, in_all=4)
    assert fair.full_for("a") == "tenant"
    assert fair.full_for("b") is None
    fair.join("b", "b2")
    assert (fair.full_for("b"), fair.full_for("c")) == ("tenant", "all")
    fair.next()
    assert (fair.full_for("a"), fair.full_for("c")) == (None, None)


class Play:
    """A line in which somebody joins, leaves, or has its turn, as a list of moves says."""

    def __init__(self) -> None:
        self.fair = line()
        self.waiting: list[str] = []
        self.turns: list[str] = []
        self._joined = 0

    def join(self, tenant: str) -> str:
        self._joined += 1
        name = f"{tenant}{self._joined}"
        self.fair.join(tenant, name)
        self.waiting.append(name)
        return name

    def move(self, move: str, number: int) -> None:
        if move in TENANTS:
            self.join(move)
        elif move == "leave" and self.waiting:
            gone = self.waiting.pop(number % len(self.waiting))
            self.fair.leave(gone[0], gone)
        elif move == "serve":
            one = self.fair.next()
            assert (one is None) == (not self.waiting)
            if one is not None:
                self.waiting.remove(one)
                self.turns.append(one)


MOVES = st.lists(st.tuples(st.sampled_from([*TENANTS, "leave", "serve", "serve"]), st.integers(0, 50)), max_size=60)


@given(MOVES, st.sampled_from(TENANTS), MOVES)
def test_nobody_is_overtaken_more_often_than_once_a_round_by_each_other_tenant(
    before: list[tuple[str, int]], tenant: str, after: list[tuple[str, int]]
) -> None:
    play = Play()
    for move, number in before:
        play.move(move, number)
    ahead = sum(name[0] == tenant for name in play.waiting)  # of its own
    mine = play.join(tenant)
    play.turns.clear()
    for move, number in after:
        play.move(move, number)
    if mine in play.turns:
        overtaken = play.turns[: play.turns.index(mine)]
        for other in set(TENANTS) - {tenant}:
            assert sum(name[0] == other for name in overtaken) <= ahead + 1
        assert sum(name[0] == tenant for name in overtaken) <= ahead


@given(MOVES)
def test_place_is_the_number_of_turns_until_its_own_where_nobody_else_comes_or_goes(
    moves: list[tuple[str, int]],
) -> None:
    play = Play()
    for move, number in moves:
        play.move(move, number)
    places = {name: play.fair.place(name[0], name) for name in play.waiting}
    assert len(play.fair) == len(places)
    assert places == {name: number for number, name in enumerate(served(play.fair), 1)}
    assert play.fair.place("a", "a0") is None


@pytest.mark.parametrize("bursts", [1, 5])
def test_burst_of_one_tenant_costs_another_one_turn(bursts: int) -> None:
    fair = line(*(f"a{number}" for number in range(10 * bursts)), "b1")
    assert fair.place("b", "b1") == 2


# weights


def test_turns_are_shared_by_weight() -> None:
    fair = line()
    for number in range(40):
        fair.join("a", f"a{number}", weight=3)
        fair.join("b", f"b{number}", weight=1)
    first = served(fair)[:40]
    assert sum(name[0] == "a" for name in first) == 30
    assert all("b" in {name[0] for name in first[start : start + 5]} for start in range(35))


def test_who_comes_new_waits_for_no_more_than_a_round_however_long_others_have_waited() -> None:
    fair = line(*(f"a{number}" for number in range(50)))
    for _ in range(20):
        fair.next()
    fair.join("b", "b1", weight=0.5)
    fair.join("c", "c1", weight=4)
    assert served(fair)[:4].index("c1") <= 1
    fair = line(*(f"a{number}" for number in range(50)))
    fair.join("b", "b1")
    assert served(fair)[1] == "b1"


def test_who_leaves_and_comes_again_gains_nothing_by_it() -> None:
    fair = line()
    turns = []
    for number in range(20):
        fair.join("a", f"a{number}")  # one at a time
        fair.join("b", f"b{number}")
        fair.join("b", f"bb{number}")
        turns += [fair.next(), fair.next()]
    assert abs(sum(str(turn)[0] == "a" for turn in turns) - 20) <= 1


def test_a_tenant_that_may_not_have_a_turn_holds_up_nobody_and_bursts_nowhere_later() -> None:
    fair = line(*(f"a{number}" for number in range(20)), *(f"b{number}" for number in range(20)))
    assert [fair.next(lambda tenant: tenant != "a") for _ in range(10)] == [f"b{number}" for number in range(10)]
    assert fair.next(lambda _: False) is None
    later = [str(fair.next()) for _ in range(10)]
    assert sum(name[0] == "a" for name in later) <= 6
