"""Quotas as figures: what is left, when it frees, and what is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.quotas import NO_LIMITS, Quotas, Window, exceeded, with_overrides


def test_overrides_stand_above_the_defaults_and_none_takes_a_limit_away() -> None:
    defaults = Quotas(sessions=5, running=2, cpus=1.0)
    changed = with_overrides(defaults, {"sessions": 7.0, "running": None, "cpus": 0.5})
    assert changed == Quotas(sessions=7, running=None, cpus=0.5)


@pytest.mark.parametrize(
    "overrides",
    [{"sesions": 1}, {"sessions": -1}, {"cpus": float("nan")}, {"memory": 1000}, {"cpus": 0}, {"files": float("inf")}],
)
def test_what_is_no_quota_is_refused(overrides: dict[str, float | None]) -> None:
    with pytest.raises(InvalidRequestError):
        with_overrides(NO_LIMITS, overrides)


def test_a_quota_that_is_used_up_says_what_how_much_and_when_it_frees() -> None:
    error = exceeded("executions_a_minute", 600, 600, frees_in=12.2)
    assert (error.code, error.quota, error.used, error.limit, error.frees_in) == (
        "quota",
        "executions_a_minute",
        600,
        600,
        12.2,
    )
    assert error.message == (
        "The quota of executions a minute is used up: 600 of 600 executions a minute. It frees in 13 s."
    )
    stored = exceeded("stored_bytes", 20_000_000_001, 20_000_000_000)
    assert "20,000,000,001 of 20,000,000,000 bytes" in stored.message
    assert stored.hint == "Delete sessions that are not needed."


USES = st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 5)), max_size=40)


@given(USES, st.floats(0, 100))
def test_a_window_forgets_nothing_early_and_nothing_more_than_a_step_late(
    uses: list[tuple[float, float]], rest: float
) -> None:
    window, now, log = Window(60.0, slots=6), 0.0, []
    for pause, amount in uses:
        now += pause
        window.add(now, amount)
        log.append((now, amount))
    now += rest
    within = sum(amount for at, amount in log if at > now - 60)
    within_a_step_more = sum(amount for at, amount in log if at > now - 70 - 1e-6)
    assert within - 1e-6 <= window.used(now) <= within_a_step_more + 1e-6
    assert len(window._used) <= 8


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), min_size=1, max_size=40), st.integers(1, 50))
def test_when_a_window_frees_is_told_to_the_second(uses: list[tuple[float, int]], limit: int) -> None:
    window, now = Window(60.0, slots=6), 0.0
    for pause, amount in uses:
        now += pause
        window.add(now, amount)
    frees_in = window.frees_in(now, limit)
    assert frees_in is not None
    assert (frees_in == 0) == (window.used(now) < limit)
    if frees_in:
        before = Window(60.0, slots=6)
        before._used = dict(window._used)
        assert before.used(now + frees_in - 0.001) >= limit
        assert window.used(now + frees_in + 0.001) < limit


def test_what_may_not_be_used_at_all_never_frees() -> None:
    assert Window(60.0).frees_in(0.0, 0) is None
