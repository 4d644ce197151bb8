"""Time is counted as far as two clocks agree on it, and nothing ages by a clock that has jumped."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.ticks import JUMP, MOST_UNWATCHED, MOST_WATCHED, SETTLED, Counted, Ticks

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY, DECADES = 86_400.0, 30 * 365 * 86_400.0


class Life:
    """One process after the other, on a machine whose wall clock can be set."""

    def __init__(self) -> None:
        self.wall, self.uptime = START, 1_000.0
        self.ticks = Ticks(Counted()).next(self.wall, self.uptime)

    def tick(self, seconds: float = 60.0, *, jump: float = 0.0) -> Ticks:
        """That much passes, the wall clock is set, and somebody looks."""
        self.wall += timedelta(seconds=seconds + jump)
        self.uptime += seconds
        self.ticks = self.ticks.next(self.wall, self.uptime)
        return self.ticks

    def start_again(self, *, off: float = 0.0, jump: float = 0.0) -> Ticks:
        """Another process, maybe after another boot."""
        self.wall += timedelta(seconds=off + jump)
        self.ticks = Ticks(self.ticks.counted).next(self.wall, self.uptime)
        return self.ticks


def test_the_first_look_counts_nothing_and_ages_nobody() -> None:
    life = Life()

    assert life.ticks.refused == "this is the first look after a start"
    assert life.ticks.counted == Counted()


def test_before_any_look_nothing_ages() -> None:
    assert Ticks(Counted()).refused


def test_what_both_clocks_say_is_counted() -> None:
    life = Life()
    for _ in range(3):
        life.tick(60)

    assert life.ticks.refused is None
    assert life.ticks.counted == Counted(180.0, 180.0, life.wall)


@pytest.mark.parametrize("jump", [JUMP, -JUMP, 7 * DAY, -7 * DAY, DECADES, -DECADES])
def test_a_clock_that_jumped_is_not_believed_and_begins_anew(jump: float) -> None:
    life = Life()
    life.tick(60)
    refused = life.tick(60, jump=jump)

    assert refused.refused == f"the clock moved by {60 + jump:.0f} s while 60 s passed"
    assert refused.counted.seconds == 60
    assert life.tick(60).refused is None
    assert life.ticks.counted.seconds == 120
    assert life.tick(SETTLED).counted.seconds == 120 + SETTLED, "nor is it believed later"


@pytest.mark.parametrize("jump", [300.0, -300.0, JUMP - 1, 1 - JUMP])
def test_a_smaller_correction_is_no_jump_and_never_counts_more_than_has_passed(jump: float) -> None:
    life = Life()

    assert life.tick(60, jump=jump).refused is None
    assert life.ticks.counted.seconds == max(0.0, min(60.0, 60.0 + jump))


def test_an_uptime_that_runs_backwards_is_not_believed() -> None:
    life = Life()
    life.uptime -= 500

    assert life.tick(60).refused is not None


def test_a_machine_that_slept_has_grown_older_and_watched_little_of_it() -> None:
    life = Life()
    life.tick(3 * DAY)

    assert life.ticks.counted.seconds == 3 * DAY
    assert life.ticks.counted.watched == MOST_WATCHED


def test_the_time_without_an_owner_counts_once_the_clock_has_held_and_never_as_watched() -> None:
    life = Life()
    life.tick(60)
    assert life.start_again(off=5 * 3600).counted.seconds == 60
    assert life.tick(SETTLED - 1).counted.seconds == 60 + SETTLED - 1

    credited = life.tick(60)

    assert (credited.late, credited.began_at) == (5 * 3600, 60)
    assert credited.counted.seconds == 60 + SETTLED - 1 + 60 + 5 * 3600
    assert credited.counted.watched == 60 + SETTLED - 1 + 60
    assert life.tick(60).late == 0.0, "once"


@pytest.mark.parametrize("jump", [DECADES, 10 * DAY])
def test_of_the_time_without_an_owner_at_most_a_day_counts(jump: float) -> None:
    life = Life()
    life.tick(60)
    life.start_again(off=3600, jump=jump)

    assert life.tick(SETTLED).counted.seconds == 60 + SETTLED + MOST_UNWATCHED


@pytest.mark.parametrize("jump", [-DECADES, -2 * 3600.0])
def test_a_clock_that_was_set_back_while_no_owner_ran_counts_nothing(jump: float) -> None:
    life = Life()
    life.tick(60)
    life.start_again(off=3600, jump=jump)

    assert life.tick(SETTLED).counted.seconds == 60 + SETTLED


def test_a_clock_that_is_corrected_soon_after_a_start_takes_that_day_with_it() -> None:
    life = Life()
    life.tick(60)
    life.start_again(jump=DECADES)
    life.tick(60)
    life.tick(60, jump=-DECADES)

    assert life.tick(2 * SETTLED).counted.seconds == 60 + 60 + 2 * SETTLED


@given(
    st.lists(
        st.tuples(
            st.floats(0, 10 * DAY), st.sampled_from([0.0, 0.0, 59.0, -59.0, JUMP, -JUMP, 40 * DAY, DECADES, -DECADES])
        )
    )
)
def test_within_a_process_no_clock_makes_more_of_the_time_than_has_passed(steps: list[tuple[float, float]]) -> None:
    life = Life()
    passed = 0.0
    for seconds, jump in steps:
        before = life.ticks.counted
        after = life.tick(seconds, jump=jump)
        passed += seconds
        assert before.seconds <= after.counted.seconds <= passed + 1e-3
        assert after.counted.watched <= after.counted.seconds + 1e-3
        if after.refused is not None:
            assert after.counted == before
        elif jump == 0.0:
            assert after.counted.seconds == pytest.approx(before.seconds + seconds, abs=1e-3)
