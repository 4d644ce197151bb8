"""What becomes of sessions that nobody uses: the rules, branch by branch."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.ageing import (
    DAY,
    AgedSession,
    AgeingCounts,
    AgeingPolicy,
    Allowance,
    allowance,
    expiry_of,
    plan_ageing,
)
from orchestrator.domain.model import SessionState

HIBERNATED, INACTIVE, EXPIRED, DESTROYING = (
    SessionState.HIBERNATED,
    SessionState.INACTIVE,
    SessionState.EXPIRED,
    SessionState.DESTROYING,
)
POLICY = AgeingPolicy()
NEVER = AgeingPolicy(inactive_after=None, expire_after=None, delete_after=None)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def aged(state: SessionState, days: float, key: str = "k") -> AgedSession:
    return AgedSession(key, "local", "s", state, incarnation=3, activity=7, stamp=11, seconds=days * DAY)


def targets(*rows: AgedSession, most: int | None = None, policy: AgeingPolicy = POLICY) -> list[SessionState]:
    return [age.target for age in plan_ageing(rows, most, policy)]


@pytest.mark.parametrize(
    ("state", "days", "target"),
    [
        (HIBERNATED, 6.99, None),
        (HIBERNATED, 7, INACTIVE),
        (HIBERNATED, 29.99, INACTIVE),
        (HIBERNATED, 30, EXPIRED),
        (INACTIVE, 29.99, None),
        (INACTIVE, 30, EXPIRED),
        (EXPIRED, 0.99, None),
        (EXPIRED, 1, DESTROYING),
    ],
)
def test_a_session_goes_on_by_its_age(state: SessionState, days: float, target: SessionState | None) -> None:
    assert targets(aged(state, days)) == ([] if target is None else [target])


@pytest.mark.parametrize("state", [HIBERNATED, INACTIVE, EXPIRED])
def test_where_nothing_is_to_age_nothing_does(state: SessionState) -> None:
    assert targets(aged(state, 10_000), policy=NEVER) == []
    assert NEVER.horizons() == []


def test_each_age_may_be_left_out() -> None:
    assert targets(aged(HIBERNATED, 20), aged(HIBERNATED, 40), policy=AgeingPolicy(inactive_after=None)) == [EXPIRED]
    assert targets(aged(HIBERNATED, 40), policy=AgeingPolicy(expire_after=None)) == [INACTIVE]
    assert targets(aged(EXPIRED, 40), policy=AgeingPolicy(delete_after=None)) == []


def test_a_decision_names_what_it_saw_and_says_why() -> None:
    (age,) = plan_ageing([aged(EXPIRED, 1.26)], None, POLICY)

    assert age.session == aged(EXPIRED, 1.26)
    assert age.why == "expired for 1.3 days"
    assert [age.why for age in plan_ageing([aged(HIBERNATED, 8)], None, POLICY)] == ["not used for 8.0 days"]


def test_of_those_that_would_expire_as_many_do_as_may_and_the_others_grow_inactive() -> None:
    rows = [aged(HIBERNATED, 40), aged(INACTIVE, 40), aged(HIBERNATED, 40), aged(INACTIVE, 40), aged(EXPIRED, 2)]

    assert targets(*rows, most=2) == [EXPIRED, EXPIRED, INACTIVE, DESTROYING]
    assert targets(*rows, most=0) == [INACTIVE, INACTIVE, DESTROYING]


@pytest.mark.parametrize(
    ("sessions", "expiring", "stopped"),
    [(5, 5, False), (10, 10, False), (11, 11, True), (1_000, 11, False), (1_000, 100, False), (1_000, 101, True)],
)
def test_more_than_ten_and_a_tenth_at_once_are_too_many(sessions: int, expiring: int, *, stopped: bool) -> None:
    allowed = allowance(AgeingCounts(sessions, expiring), 500.0, None)

    assert allowed.most == (0 if stopped else None)
    assert allowed.stopped_at == (500.0 if stopped else None)
    assert (allowed.why is not None) is stopped


def test_a_mass_expiry_that_has_stood_for_a_day_goes_on_bit_by_bit() -> None:
    counts = AgeingCounts(1_000, 400)

    assert allowance(counts, 500.0 + DAY - 1, 500.0).most == 0
    later = allowance(counts, 500.0 + DAY, 500.0)
    assert (later.most, later.stopped_at) == (100, 500.0)
    assert later.why is not None
    assert allowance(AgeingCounts(900, 90), 500.0 + DAY, 500.0) == Allowance(None)


def test_a_mass_expiry_is_told_with_its_numbers() -> None:
    assert allowance(AgeingCounts(40, 12), 0.0, None).why == (
        "12 of 40 sessions would expire at once; none does until this has stood for a day"
    )


@given(
    state=st.sampled_from([HIBERNATED, INACTIVE, EXPIRED]),
    days=st.floats(0, 100),
    ages=st.tuples(*[st.none() | st.floats(0.001, 50)] * 3),
)
def test_whatever_has_something_coming_is_found_by_the_horizons(
    state: SessionState, days: float, ages: tuple[float | None, float | None, float | None]
) -> None:
    inactive, expire, delete = (None if age is None else age * DAY for age in ages)
    policy = AgeingPolicy(inactive, expire, delete)
    row = aged(state, days)
    found = any(row.state is horizon and row.seconds >= seconds for horizon, seconds in policy.horizons())

    if targets(row, policy=policy):
        assert found


@pytest.mark.parametrize(
    ("used_days_ago", "unused_days", "expected_in_days"),
    [
        (0, 0, 30),
        (10, 10, 20),
        (10, 9.99, 20),  # counted time lags a little behind the date
        (40, 3, 27),  # the machine was off
        (40, 30.5, 0),  # due: at the next look
        (-3_000, 0, 3_030),  # used while the clock was wrong
    ],
)
def test_when_a_session_expires_is_told_by_its_date_unless_less_time_counts(
    used_days_ago: float, unused_days: float, expected_in_days: float
) -> None:
    used_at = NOW - timedelta(days=used_days_ago)

    expires_at = expiry_of(used_at, unused_days * DAY, NOW, POLICY)

    assert expires_at == NOW + timedelta(days=expected_in_days)


def test_what_never_expires_has_no_such_date() -> None:
    assert expiry_of(NOW, 0.0, NOW, NEVER) is None
