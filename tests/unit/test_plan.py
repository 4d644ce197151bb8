"""When sessions are saved and hibernated: the rules of the plan."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.plan import ContainerRow, Hibernate, Save, SavingPolicy, SessionRow, plan

POLICY = SavingPolicy(snapshot_after=2, snapshot_max_age=60, hibernate_after=600, cpu_share=0.1)
NOW = 10_000.0


def session(*, busy: bool = False, quiet: float = 0, unsaved: float | None = None) -> SessionRow:
    return SessionRow("s", busy, NOW - quiet, None if unsaved is None else NOW - unsaved)


def container(
    *, saving: bool = False, saved: float = 100, duration: float = 0.1, cpu: float = 0.1, wait: float = 0
) -> ContainerRow:
    return ContainerRow(saving, NOW - saved, duration, cpu, NOW + wait)


def due(row: SessionRow, facts: ContainerRow | None) -> list[Save | Hibernate]:
    return plan(NOW, [row], {} if facts is None else {row.key: facts}, POLICY)


def test_a_quiet_session_with_unsaved_work_is_saved() -> None:
    assert due(session(quiet=2, unsaved=2), container()) == [Save("s", "quiet")]


def test_a_session_that_was_used_a_moment_ago_is_left_alone() -> None:
    assert due(session(quiet=1.9, unsaved=30), container()) == []


def test_a_busy_session_is_not_quiet() -> None:
    assert due(session(busy=True, unsaved=30), container()) == []


def test_work_that_is_too_old_is_saved_however_busy_the_session_is() -> None:
    assert due(session(busy=True, unsaved=60), container()) == [Save("s", "age")]


def test_where_saving_takes_long_the_age_may_be_twice_that_long() -> None:
    slow = container(duration=40)
    assert due(session(busy=True, unsaved=79), slow) == []
    assert due(session(busy=True, unsaved=80), slow) == [Save("s", "age")]
    assert due(session(busy=True, unsaved=60), container(duration=30)) == [Save("s", "age")]


def test_what_is_saved_is_not_saved_again() -> None:
    assert due(session(quiet=30), container()) == []


def test_dear_snapshots_wait_until_they_take_a_tenth_of_the_time() -> None:
    assert due(session(quiet=5, unsaved=5), container(saved=44, cpu=5)) == []
    assert due(session(quiet=5, unsaved=5), container(saved=45, cpu=5)) == [Save("s", "quiet")]


def test_an_idle_session_is_hibernated_even_where_all_is_saved() -> None:
    assert due(session(quiet=600), container()) == [Hibernate("s")]


def test_a_session_without_a_container_needs_nothing() -> None:
    assert due(session(quiet=10_000, unsaved=10_000), None) == []


def test_while_a_snapshot_is_on_its_way_nothing_else_is_due() -> None:
    assert due(session(quiet=10_000, unsaved=10_000), container(saving=True)) == []


def test_after_a_failure_there_is_a_pause_for_hibernation_too() -> None:
    assert due(session(quiet=10_000, unsaved=10_000), container(wait=1)) == []


@given(
    row=st.builds(session, busy=st.booleans(), quiet=st.floats(0, 2_000), unsaved=st.none() | st.floats(0, 2_000)),
    facts=st.builds(container, saved=st.floats(0, 2_000), duration=st.floats(0, 300), cpu=st.floats(0, 300)),
)
def test_nothing_stays_unsaved_beyond_its_bound_and_quiet_saves_keep_to_their_share(
    row: SessionRow, facts: ContainerRow
) -> None:
    actions = due(row, facts)

    if row.unsaved_since is not None and NOW - row.unsaved_since >= max(60, 2 * facts.duration):
        assert actions
    if actions == [Save("s", "quiet")]:
        assert not row.busy
        rest = NOW - facts.saved_at
        assert facts.cpu_seconds <= 0.1 * (rest + facts.cpu_seconds) + 1e-6
    if row.busy:
        assert Hibernate("s") not in actions
