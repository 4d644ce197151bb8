"""Who makes room: nobody who is in use, and the least recently used first."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.eviction import evictions
from orchestrator.domain.plan import ContainerRow, SessionRow

NOW = 100.0
CONTAINER = ContainerRow(saving=False, saved_at=0.0, duration=0.0, cpu_seconds=0.0, not_before=0.0)


def session(key: str, active_at: float, *, busy: bool = False) -> SessionRow:
    return SessionRow(key, busy, active_at, None)


def keys(rows: list[SessionRow], containers: dict[str, ContainerRow], wanted: int) -> list[str]:
    return [row.key for row in evictions(NOW, rows, containers, wanted=wanted)]


def test_least_recently_used_sessions_make_room_and_no_more_than_are_wanted() -> None:
    rows = [session("late", 90), session("early", 10), session("middle", 50)]
    containers = dict.fromkeys(("late", "early", "middle"), CONTAINER)
    assert keys(rows, containers, 2) == ["early", "middle"]
    assert keys(rows, containers, 0) == []
    assert keys(rows, containers, -1) == []


def test_sessions_in_use_being_saved_or_without_a_sandbox_make_no_room() -> None:
    rows = [session("busy", 1, busy=True), session("saving", 2), session("asleep", 3), session("idle", 4)]
    containers = dict.fromkeys(("busy", "idle"), CONTAINER) | {"saving": replace(CONTAINER, saving=True)}
    assert keys(rows, containers, 4) == ["idle"]


def test_session_whose_save_failed_is_passed_over_until_it_is_tried_again() -> None:
    rows = [session("failed", 1), session("other", 2)]
    containers = {"failed": replace(CONTAINER, not_before=NOW + 1), "other": CONTAINER}
    assert keys(rows, containers, 1) == ["other"]
    containers["failed"] = replace(CONTAINER, not_before=NOW)
    assert keys(rows, containers, 1) == ["failed"]


ROWS = st.builds(SessionRow, st.uuids().map(str), st.booleans(), st.floats(0, NOW), st.none() | st.floats(0, NOW))


@given(st.lists(st.tuples(ROWS, st.booleans(), st.floats(0, 2 * NOW))), st.integers(-3, 12))
def test_whoever_makes_room_was_idle_and_nobody_idle_for_longer_is_spared(
    sessions: list[tuple[SessionRow, bool, float]], wanted: int
) -> None:
    rows = [row for row, _, _ in sessions]
    containers = {row.key: replace(CONTAINER, saving=saving, not_before=at) for row, saving, at in sessions}
    chosen = evictions(NOW, rows, containers, wanted=wanted)
    able = [row for row, saving, at in sessions if not row.busy and not saving and at <= NOW]
    assert len(chosen) == min(max(0, wanted), len(able))
    assert all(row in able for row in chosen)
    spared = [row for row in able if row not in chosen]
    assert not chosen or all(row.active_at >= chosen[-1].active_at for row in spared)
