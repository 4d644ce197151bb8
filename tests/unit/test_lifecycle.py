"""The transition tables are data; what holds for every pair of states is held here, the refused ones too."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import product

import pytest

from orchestrator.domain.lifecycle import (
    ASLEEP,
    SANDBOX_TRANSITIONS,
    SESSION_TRANSITIONS,
    sandbox_sources,
    session_sources,
)
from orchestrator.domain.model import SandboxState, SessionState

ALLOWED_SESSION_CHANGES = {
    (None, "hibernated"),
    ("hibernated", "creating"),
    ("hibernated", "inactive"),
    ("hibernated", "expired"),
    ("hibernated", "destroying"),
    ("inactive", "creating"),
    ("inactive", "hibernated"),
    ("inactive", "expired"),
    ("inactive", "destroying"),
    ("expired", "creating"),
    ("expired", "hibernated"),
    ("expired", "destroying"),
    ("creating", "ready"),
    ("creating", "hibernated"),
    ("creating", "destroying"),
    ("ready", "creating"),
    ("ready", "snapshotting"),
    ("ready", "hibernated"),
    ("ready", "destroying"),
    ("snapshotting", "ready"),
    ("snapshotting", "hibernated"),
    ("snapshotting", "destroying"),
    ("destroying", "expired"),
    ("destroying", None),
}
ALLOWED_SANDBOX_CHANGES = {
    (None, "creating"),
    ("creating", "unclaimed"),
    ("creating", "failed"),
    ("creating", "destroying"),
    ("unclaimed", "claimed"),
    ("unclaimed", "failed"),
    ("unclaimed", "destroying"),
    ("claimed", "failed"),
    ("claimed", "destroying"),
    ("failed", "destroying"),
    ("destroying", None),
}

Table = Mapping[StrEnum | None, frozenset[StrEnum | None]]
TABLES = [
    pytest.param(SESSION_TRANSITIONS, SessionState, ALLOWED_SESSION_CHANGES, id="session"),
    pytest.param(SANDBOX_TRANSITIONS, SandboxState, ALLOWED_SANDBOX_CHANGES, id="sandbox"),
]


@pytest.mark.parametrize(("table", "states", "allowed"), TABLES)
def test_every_pair_of_states_is_allowed_or_refused_as_written(
    table: Table, states: type[StrEnum], allowed: set[tuple[str | None, str | None]]
) -> None:
    everything = (None, *states)

    assert set(table) == set(everything)
    for source, target in product(everything, everything):
        assert (target in table[source]) is ((source, target) in allowed), f"{source} → {target}"


@pytest.mark.parametrize(("table", "states", "allowed"), TABLES)
def test_every_state_can_be_reached_and_left_for_good(
    table: Table, states: type[StrEnum], allowed: set[tuple[str | None, str | None]]
) -> None:
    assert allowed
    for state in states:
        assert state in _reachable(table, None)
        assert None in _reachable(table, state)


def _reachable(table: Table, start: StrEnum | None) -> set[StrEnum | None]:
    seen: set[StrEnum | None] = set()
    ahead = list(table[start])
    while ahead:
        state = ahead.pop()
        if state not in seen:
            seen.add(state)
            ahead += table[state]
    return seen


def test_nothing_is_gone_without_having_been_on_its_way_out() -> None:
    assert {source for source, target in ALLOWED_SESSION_CHANGES if target is None} == {"destroying"}
    assert {source for source, target in ALLOWED_SANDBOX_CHANGES if target is None} == {"destroying"}


def test_whoever_sleeps_wakes_alike_and_has_no_sandbox() -> None:
    assert {"hibernated", "inactive", "expired"} == ASLEEP
    assert all({"creating", "destroying"} <= SESSION_TRANSITIONS[state] for state in ASLEEP)
    assert not any({"ready", "snapshotting"} & SESSION_TRANSITIONS[state] for state in ASLEEP)


@pytest.mark.parametrize("target", SessionState)
def test_a_sessions_sources_are_the_table_read_backwards(target: SessionState) -> None:
    assert session_sources(target) == {source for source, to in ALLOWED_SESSION_CHANGES if to == target and source}


@pytest.mark.parametrize("target", SandboxState)
def test_a_sandboxs_sources_are_the_table_read_backwards(target: SandboxState) -> None:
    assert sandbox_sources(target) == {source for source, to in ALLOWED_SANDBOX_CHANGES if to == target and source}
