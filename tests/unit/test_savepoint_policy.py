"""When a savepoint is made, and when it is not worth what it costs. No clock: times are told."""

import pytest

from tests.unit.test_agent_saves import load

policy_module = load("savepoint_policy")
MIB = 1024 * 1024
LIMIT = 1024 * MIB


def test_first_one_is_due_at_once() -> None:
    assert policy_module.SavepointPolicy().due(0.0) == 0.0


@pytest.mark.parametrize("cost", [0.002, 0.02, 0.2])
def test_calls_back_to_back_give_savepoints_at_most_a_tenth_of_the_time(cost: float) -> None:
    policy = policy_module.SavepointPolicy()
    now, spent = 0.0, 0.0
    while now < 100.0:
        now += 0.001  # a call
        policy.cell_ended()
        if policy.due(now) == 0 and not policy.paused:
            now, spent = now + cost, spent + cost
            policy.made(now, cost, cost / 2)
    assert 0.03 < spent / now < 0.05, "the copy's beginning and the older one's end are the rest"


def test_pages_that_the_first_cell_copies_count_at_most_its_own_time() -> None:
    policy = policy_module.SavepointPolicy()
    policy.went_well(1.0, 400, 0.01)
    assert 0.006 < policy.due(1.0) < 0.008
    policy.went_well(1.0, 4_000, 0.001)
    assert policy.due(1.0) < 0.02


def test_pages_that_cells_copy_count_as_much_as_forks() -> None:
    policy = policy_module.SavepointPolicy()
    policy.made(1.0, 0.001, 0.001)
    before = policy.due(1.0)
    policy.copied(1.0, 10 * MIB, 100.0)
    assert policy.due(1.0) > before + 9 * 0.005


def test_cell_that_felt_a_tenth_of_its_time_has_the_next_ones_run_without() -> None:
    policy = policy_module.SavepointPolicy()
    skipped = []
    for _ in range(9):
        assert not policy.paused
        policy.copied(0.0, 300 * MIB, 0.3)
        cells = 0
        while policy.paused:
            policy.cell_ended()
            cells += 1
        skipped.append(cells)
    assert skipped == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_reason_is_told_once_until_all_is_well_again() -> None:
    policy = policy_module.SavepointPolicy()
    assert "300 MiB" in policy.copied(0.0, 300 * MIB, 0.3)
    policy.cell_ended()
    assert policy.copied(0.0, 300 * MIB, 0.3) is None
    assert "half" in policy.no_room(600 * MIB, LIMIT)
    assert policy.no_room(700 * MIB, LIMIT) is None
    for _ in range(2):
        policy.cell_ended()
    for _ in range(8):
        policy.went_well(0.0, 0, 0.1)
    assert policy.no_room(700 * MIB, LIMIT) is not None
    assert "less often" in policy.copied(0.0, 300 * MIB, 0.3)


def test_light_cells_between_heavy_ones_do_not_make_heavy_ones_pay_each_time() -> None:
    policy = policy_module.SavepointPolicy()
    paid = 0
    stands = False
    for number in range(400):
        if number % 2 == 0 and stands:  # it copies all of its memory once for each savepoint
            paid += 1
            policy.copied(0.0, 300 * MIB, 0.3)
            stands = False
        else:
            policy.went_well(0.0, 0, 0.1)
        policy.cell_ended()
        stands = stands or not policy.paused
    assert paid < 40


@pytest.mark.parametrize(
    ("faults", "duration", "suspicious"),
    [(100, 0.0001, False), (4_000, 0.01, False), (20_000, 0.1, True), (20_000, 10.0, False), (75_000, 0.35, True)],
)
def test_cell_is_looked_at_closely_only_where_its_faults_could_have_been_felt(
    *, faults: int, duration: float, suspicious: bool
) -> None:
    assert policy_module.SavepointPolicy().suspicious(faults, duration) is suspicious


def test_fork_that_takes_too_much_of_the_processor_is_told_and_makes_the_next_ones_rarer() -> None:
    policy = policy_module.SavepointPolicy()
    assert policy.made(0.0, 3.0, 0.01) is None, "a busy machine is no fault of the session's"
    assert not policy.paused
    assert "0.4 s" in policy.made(100.0, 0.5, 0.4)
    assert policy.paused


def test_takeover_makes_the_next_one_due_at_once() -> None:
    policy = policy_module.SavepointPolicy()
    policy.failed(0.0, 6.0, "fork", "it hung")
    assert policy.paused
    policy.taken_over(1.0)
    assert (policy.paused, policy.due(1.0)) == (False, 0.0)


def test_none_is_kept_where_more_than_half_of_the_memory_is_used() -> None:
    policy = policy_module.SavepointPolicy()
    assert policy.has_room(512 * MIB, LIMIT)
    assert not policy.has_room(513 * MIB, LIMIT)
    assert policy.has_room(10**12, 0), "without a limit there is room"
