"""What should not be there, and from when on: the rules, branch by branch."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.domain import strays
from orchestrator.domain.model import SandboxState, SessionState
from orchestrator.domain.ports import OwnedContainer
from orchestrator.domain.strays import (
    Facts,
    FinishDelete,
    HeldSandbox,
    Mend,
    OpenExecution,
    RemoveContainer,
    RemoveSandbox,
    SessionBetween,
    SetAside,
    Sightings,
    Stray,
    Sweep,
    plan_strays,
    strays_in,
)

LONGEST_CALL = 3_602.0
SESSION = SessionBetween("k", "local", "s", SessionState.CREATING, 1)
DOOMED = replace(SESSION, state=SessionState.DESTROYING)
EXECUTION = OpenExecution("k", "local", "s", 4)
SANDBOX = HeldSandbox("b", SandboxState.CREATING, None, 0, None, None)
CLAIMED = HeldSandbox("b", SandboxState.CLAIMED, "k", 2, SessionState.READY, 2)
STATELESS = HeldSandbox("b", SandboxState.CLAIMED, None, 1, None, None)
CONTAINER = OwnedContainer("handle", "b", running=True, created=datetime(2030, 1, 1, tzinfo=UTC), launched_here=False)


def after(seconds: float, facts: Facts) -> list[Sweep]:
    """What is due of things that have been so for that long."""
    sightings = Sightings().next(100.0, strays_in(facts)).next(100.0 + seconds, strays_in(facts))
    return list(plan_strays(100.0 + seconds, sightings, facts.ours, LONGEST_CALL))


DUE = [
    pytest.param(Facts(between=[SESSION]), strays.UNSERVED, Mend, id="a start that nobody waits for"),
    pytest.param(
        Facts(between=[replace(SESSION, state=SessionState.SNAPSHOTTING)]),
        strays.UNSERVED,
        Mend,
        id="a hibernation that nobody carries out",
    ),
    pytest.param(
        Facts(between=[replace(SESSION, state=SessionState.READY)]), strays.UNSERVED, Mend, id="one that nobody serves"
    ),
    pytest.param(Facts(between=[DOOMED]), strays.UNFINISHED_DELETE, FinishDelete, id="a delete cut short"),
    pytest.param(Facts(open_executions=[EXECUTION]), strays.OPEN_EXECUTION, Mend, id="an execution of nothing"),
    pytest.param(
        Facts(open_executions=[EXECUTION], in_use=frozenset({"k"})),
        strays.OPEN_EXECUTION,
        Mend,
        id="an execution in a session that does nothing",
    ),
    pytest.param(Facts(sandboxes=[SANDBOX]), strays.ANOTHERS_SANDBOX, RemoveSandbox, id="another owner's start"),
    pytest.param(
        Facts(sandboxes=[SANDBOX], ours=frozenset({"b"})), strays.SANDBOX_STARTING, RemoveSandbox, id="a start of ours"
    ),
    pytest.param(
        Facts(sandboxes=[replace(SANDBOX, state=SandboxState.UNCLAIMED)], ours=frozenset({"b"})),
        strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="unclaimed",
    ),
    pytest.param(
        Facts(sandboxes=[replace(SANDBOX, state=SandboxState.FAILED)], ours=frozenset({"b"})),
        strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="failed",
    ),
    pytest.param(
        Facts(sandboxes=[replace(SANDBOX, state=SandboxState.DESTROYING)], ours=frozenset({"b"})),
        strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="a removal that nobody carries out",
    ),
    pytest.param(
        Facts(sandboxes=[replace(CLAIMED, session_state=SessionState.INACTIVE)], ours=frozenset({"b"})),
        strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="the sandbox of a session that sleeps",
    ),
    pytest.param(
        Facts(sandboxes=[replace(CLAIMED, session_incarnation=3)], ours=frozenset({"b"})),
        strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="the sandbox of an earlier incarnation",
    ),
    pytest.param(
        Facts(sandboxes=[replace(CLAIMED, session_state=None, session_incarnation=None)], ours=frozenset({"b"})),
        strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="the sandbox of no session",
    ),
    pytest.param(
        Facts(sandboxes=[STATELESS], ours=frozenset({"b"})),
        LONGEST_CALL + strays.SANDBOX_UNWANTED,
        RemoveSandbox,
        id="a stateless call past its longest time",
    ),
    pytest.param(Facts(containers=[CONTAINER]), strays.CONTAINER, RemoveContainer, id="a container without a row"),
    pytest.param(
        Facts(containers=[replace(CONTAINER, launched_here=True)]),
        strays.CONTAINER_OF_OURS,
        RemoveContainer,
        id="a probe that was forgotten",
    ),
    pytest.param(Facts(unknown_files=["f"]), strays.FILE, SetAside, id="a file of no session"),
]


@pytest.mark.parametrize(("facts", "deadline", "action"), DUE)
def test_what_stays_as_it_is_beyond_its_deadline_is_cleaned_up(
    facts: Facts, deadline: float, action: type[Sweep]
) -> None:
    assert after(deadline - 1, facts) == []
    assert [type(found) for found in after(deadline, facts)] == [action]


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(Facts(between=[SESSION], in_use=frozenset({"k"})), id="a session in use"),
        pytest.param(Facts(between=[DOOMED], ending=frozenset({"k"})), id="a delete under way"),
        pytest.param(
            Facts(between=[DOOMED], sandboxes=[CLAIMED], removing=frozenset({"b"})), id="a delete whose sandbox is left"
        ),
        pytest.param(
            Facts(open_executions=[EXECUTION], busy=frozenset({"k"}), in_use=frozenset({"k"})), id="a long cell"
        ),
        pytest.param(Facts(sandboxes=[CLAIMED], ours=frozenset({"b"})), id="a sandbox that serves"),
        pytest.param(Facts(sandboxes=[CLAIMED]), id="one that another owner has left to be adopted"),
        pytest.param(Facts(sandboxes=[SANDBOX], removing=frozenset({"b"})), id="a removal under way"),
        pytest.param(Facts(containers=[CONTAINER], sandboxes=[CLAIMED]), id="a container with a row"),
        pytest.param(Facts(containers=[CONTAINER], removing=frozenset({"b"})), id="one that is being removed"),
        pytest.param(Facts(unknown_files=["f"], ending=frozenset({"f"})), id="a file that is being deleted"),
    ],
)
def test_what_is_in_hand_is_left_alone_for_ever(facts: Facts) -> None:
    assert after(1e9, facts) == []


def test_what_moves_has_its_whole_time_again() -> None:
    first: list[Stray] = [SESSION]
    moved: list[Stray] = [replace(SESSION, incarnation=2)]

    sightings = Sightings().next(0.0, first).next(strays.UNSERVED - 1, moved)
    assert list(plan_strays(strays.UNSERVED + 1, sightings, frozenset(), LONGEST_CALL)) == []

    gone = sightings.next(strays.UNSERVED, [])
    back = gone.next(strays.UNSERVED + 10, moved)
    assert back.since == {moved[0]: strays.UNSERVED + 10}


def test_an_action_says_what_it_is_done_to_and_why() -> None:
    assert after(700, Facts(between=[SESSION], open_executions=[replace(EXECUTION, key="o", session_id="other")])) == [
        Mend("k", "local", "s", "creating for 700 s, and nobody serves it"),
        Mend("o", "local", "other", "execution 4 is open for 700 s, and nothing runs"),
    ]
    assert after(700, Facts(containers=[CONTAINER])) == [RemoveContainer("b", "no row names it for 700 s")]
