"""What the supervisor gives up when a cell takes more and more memory, and in which order."""

import time
from collections.abc import Callable

import pytest

from tests.unit.test_agent_saves import load

memory_watch, reactor, crash_report = load("memory_watch"), load("reactor"), load("crash_report")


class Gauge:
    """A thousand bytes, used as a test says."""

    def __init__(self) -> None:
        self.limit, self.usage = 1000, 100

    def look(self, *, older_than: float = 0.0) -> None:
        pass

    def used(self) -> int:
        return self.usage

    def begin(self) -> None:
        pass

    def most(self) -> int:
        return self.usage


class Rig:
    def __init__(self) -> None:
        self.gauge, self.taken, self.busy = Gauge(), 0, True
        self.living = ["rehearsal", "snapshot", "savepoint"]
        self.asked_for_lines = 0
        self.reactor = reactor.Reactor()
        self.watch = memory_watch.MemoryWatch(
            self.reactor,
            self.gauge,
            wanted=lambda: self.busy,
            taken=lambda: self.taken,
            reliefs=[self.relief(name) for name in self.living],
            full=self.full,
        )

    def relief(self, name: str) -> Callable[[], str | None]:
        def give_up() -> str | None:
            if name not in self.living:
                return None
            self.living.remove(name)
            return name

        return give_up

    def full(self) -> None:
        self.asked_for_lines += 1

    def look(self) -> float:
        """Let the next look come, whenever that is; how long it was waited for."""
        (timer,) = [timer for timer in self.reactor._timers if timer.live]
        self.reactor._timers.clear()
        timer.act()
        return float(timer.when - time.monotonic())


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_is_worth_least_goes_first_and_one_thing_at_each_look(rig: Rig) -> None:
    rig.watch.begin_cell()
    rig.look()
    rig.gauge.usage, rig.taken = 820, 700
    left = []
    for _ in range(4):
        rig.look()
        left.append(list(rig.living))
    assert left == [["snapshot", "savepoint"], ["savepoint"], [], []]
    assert rig.watch.notes() == ["rehearsal", "snapshot", "savepoint"]
    assert rig.watch.notes() == []


def test_all_goes_at_once_where_memory_is_nearly_full_and_the_cell_is_asked_for_its_lines_once(rig: Rig) -> None:
    rig.watch.begin_cell()
    rig.look()
    rig.gauge.usage, rig.taken = 950, 800
    rig.look()
    rig.look()
    assert (rig.living, rig.asked_for_lines) == ([], 1)
    rig.watch.end_cell()
    rig.watch.begin_cell()
    rig.look()
    assert rig.asked_for_lines == 2


def test_what_a_save_takes_beside_a_modest_cell_is_the_save_s_own_loss(rig: Rig) -> None:
    rig.watch.begin_cell()
    rig.look()
    rig.gauge.usage, rig.taken = 990, 20
    rig.look()
    rig.watch.end_cell()
    rig.taken = 900
    rig.look()
    assert rig.living == ["rehearsal", "snapshot", "savepoint"]


def test_nothing_is_looked_at_while_nothing_goes_on(rig: Rig) -> None:
    rig.watch.begin_cell()
    rig.watch.begin_cell()
    rig.busy = False
    rig.look()
    assert not [timer for timer in rig.reactor._timers if timer.live]


def test_without_a_limit_nothing_is_given_up(rig: Rig) -> None:
    rig.gauge.limit = 0
    rig.watch.begin_cell()
    rig.gauge.usage, rig.taken = 10**12, 10**12
    rig.look()
    rig.look()
    assert (len(rig.living), rig.asked_for_lines) == (3, 0)
