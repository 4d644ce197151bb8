"""Savepoints in the supervisor's hands, with a worker that is only pretended and says whatever a test wants."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.unit.test_agent_saves import load

savepoints, savepoint_copy, standing, reactor, wire = map(
    load, ("savepoints", "savepoint_copy", "standing", "reactor", "wire")
)
MIB = 1024 * 1024
PIDS = (2**22 - 1, 2**22 - 2)
SUPERVISED = 77  # a process of ours


class Worker:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.held = False
        self.orders: list[list[int]] = []  # the descriptors of each
        self.killed_for: list[str] = []
        self.killed: list[int] = []  # so far, where a test looks
        self.spared: list[tuple[int, int]] = []  # and how many had been killed by then

    def send(self, header: dict[str, Any], _parts: Sequence[bytes] = (), descriptors: Sequence[int] = ()) -> None:
        assert header == {"type": "savepoint", "execution": 3}
        self.orders.append(list(descriptors))

    def kill(self, why: str) -> None:
        self.killed_for.append(why)

    def ours(self) -> set[int]:
        return {SUPERVISED}

    def spare(self, pid: int) -> None:
        self.spared.append((pid, len(self.killed)))

    def close(self, order: int) -> None:
        for descriptor in self.orders[order]:
            os.close(descriptor)
        self.orders[order] = []


class Gauge:
    def __init__(self) -> None:
        self.limit, self.usage = 1024 * MIB, 100 * MIB

    def used(self) -> int:
        return self.usage

    def look(self, *, older_than: float = 0.0) -> None:
        pass


class Rig:
    """Savepoints with all that they need, after execution 3."""

    def __init__(self) -> None:
        self.reactor: Any = reactor.Reactor()
        self.worker, self.gauge, self.released, self.free = Worker(), Gauge(), 0, True
        self.standing: Any = standing.Standing()
        self.standing.began(3)
        self.savepoints: Any = savepoints.Savepoints(
            self.reactor,
            self.worker,
            self.gauge,
            free=lambda: self.standing if self.free else None,
            released=self.release,
        )

    def release(self) -> None:
        self.released += 1

    def order(self) -> None:
        """A cell has ended, and a fork is ordered for it."""
        self.savepoints.cell_ended(0, 0.1)
        before = len(self.worker.orders)
        self.savepoints.consider()
        assert len(self.worker.orders) == before + 1

    def forked(self, **said: Any) -> None:  # noqa: ANN401 - whatever a worker says
        self.savepoints.worker_says({"type": "forked", "processor": 0.001, **said})

    def parked(self, order: int, pid: object) -> None:
        """The copy's own word."""
        os.write(self.worker.orders[order][1], wire.encode({"type": "parked", "pid": pid}, []))
        self.turn()

    def stands(self, pid: int = PIDS[0]) -> None:
        """One is made, and is the newest."""
        self.order()
        self.forked()
        self.parked(-1, pid)

    def turn(self) -> None:
        """Take in what has arrived."""
        for fd, events in self.reactor._epoll.poll(0.1):
            self.reactor._callbacks[fd](events)

    def pass_time(self) -> None:
        """All timers come due."""
        due = [timer for timer in self.reactor._timers if timer.live]
        self.reactor._timers.clear()
        for timer in sorted(due, key=lambda timer: timer.when):
            timer.act()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    pids: list[int] = []

    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        pids.append(pid)

    monkeypatch.setattr(savepoint_copy.os, "kill", kill)
    return pids


@pytest.fixture
def rig(killed: list[int]) -> Iterator[Rig]:  # noqa: ARG001 - no real process is ended
    made = Rig()
    yield made
    made.savepoints.drop()
    for order in range(len(made.worker.orders)):
        made.worker.close(order)


def test_older_one_is_ended_when_the_newer_one_stands_and_not_before(rig: Rig, killed: list[int]) -> None:
    rig.worker.killed = killed
    rig.stands(PIDS[0])
    rig.savepoints._policy.taken_over(time.monotonic())
    rig.order()
    rig.forked()
    assert (killed, rig.savepoints.pids(), rig.savepoints.tasks()) == ([], {PIDS[0]}, 2)
    rig.parked(1, PIDS[1])
    assert (killed, rig.savepoints.pids(), rig.savepoints.tasks()) == ([PIDS[0]], {PIDS[1]}, 1)
    assert rig.worker.spared == [(PIDS[0], 0), (PIDS[1], 0)], "the newer one outlives a lack of memory by then"


def test_copy_that_speaks_before_the_worker_stands_and_its_fork_is_counted_all_the_same(rig: Rig) -> None:
    rig.order()
    time.sleep(0.01)
    rig.parked(0, PIDS[0])
    assert (rig.savepoints.forking, rig.savepoints.tasks()) == (True, 1)
    rig.forked()
    assert (rig.savepoints.forking, rig.savepoints.pids(), rig.released) == (False, {PIDS[0]}, 1)
    assert rig.savepoints._policy.due(time.monotonic()) > 0.1
    copy = rig.savepoints.take()
    assert copy.pid == PIDS[0]
    copy.end()


def test_copy_that_stands_while_the_worker_hangs_in_its_fork_takes_over(rig: Rig, killed: list[int]) -> None:
    rig.order()
    rig.parked(0, PIDS[0])
    rig.pass_time()
    assert rig.worker.killed_for
    copy = rig.savepoints.take()
    assert (copy.pid, killed) == (PIDS[0], [])
    copy.end()


def test_fork_that_hangs_costs_the_worker_and_the_older_savepoint_takes_over(rig: Rig, killed: list[int]) -> None:
    rig.stands(PIDS[0])
    rig.savepoints._policy.taken_over(time.monotonic())
    rig.order()
    assert rig.savepoints.forking
    rig.pass_time()
    assert (rig.worker.killed_for, rig.savepoints.forking) == (["its fork for a savepoint hung"], False)
    assert rig.savepoints.notes() == [
        "A savepoint's fork hung: the process was ended for it. One stands, as of execution 3."
    ]
    copy = rig.savepoints.take()
    assert (copy.pid, copy.standing.execution, killed) == (PIDS[0], 3, [])
    copy.end()


def test_fork_that_everything_stands_still_for_is_not_called_hung(rig: Rig) -> None:
    rig.order()
    rig.worker.held = True
    rig.pass_time()
    assert (rig.worker.killed_for, rig.savepoints.forking) == ([], True)


@pytest.mark.parametrize("pid", [SUPERVISED, 0, 1, -5, 2**22, 2**70, None, "9"])
def test_word_of_a_process_that_is_none_of_it_is_dropped(rig: Rig, pid: object) -> None:
    rig.order()
    rig.forked()
    rig.parked(0, pid)
    assert rig.savepoints.take() is None


@pytest.mark.parametrize("said", [b"garbage" * 10, b""])
def test_copy_that_says_nonsense_or_ends_is_none(rig: Rig, said: bytes) -> None:
    rig.order()
    rig.forked()
    os.write(rig.worker.orders[0][1], said) if said else rig.worker.close(0)
    rig.turn()
    assert rig.savepoints.take() is None
    assert "None stands." in rig.savepoints.notes()[0]


def test_worker_that_ends_in_its_fork_lets_nobody_wait(rig: Rig) -> None:
    rig.order()
    rig.worker.close(0)
    rig.turn()
    assert (rig.savepoints.forking, rig.released) == (False, 1)


@pytest.mark.parametrize("skipped", ["threads", "processes", 5])
def test_fork_that_could_not_be_is_told_and_lets_go_of_the_worker(rig: Rig, skipped: object) -> None:
    rig.order()
    rig.forked(skipped=skipped)
    assert (rig.savepoints.forking, rig.released) == (False, 1)
    assert len(rig.savepoints.notes()) == 1


def test_word_that_comes_after_it_was_given_up_lets_go_of_the_worker_all_the_same(rig: Rig) -> None:
    rig.order()
    rig.savepoints.drop()
    rig.forked()
    assert rig.released == 1


def test_killed_savepoint_is_made_again_after_the_next_cell(rig: Rig, killed: list[int]) -> None:
    rig.stands()
    rig.savepoints.process_ended(PIDS[0])
    assert rig.savepoints.notes() == ["The savepoint was lost: its process was ended. None stands."]
    rig.savepoints.process_ended(PIDS[0])
    rig.savepoints._policy._free_at = 0.0
    rig.order()
    rig.forked()
    rig.parked(1, PIDS[1])
    assert rig.savepoints.pids() == {PIDS[1]}
    assert killed == [], "its number may be another process's by then"


def test_worker_that_is_used_is_not_forked_and_later_is(rig: Rig) -> None:
    rig.free = False
    rig.savepoints.cell_ended(0, 0.1)
    rig.savepoints.consider()
    assert rig.worker.orders == []
    rig.free = True
    rig.savepoints.consider()
    assert len(rig.worker.orders) == 1


def test_one_that_is_not_due_yet_comes_when_it_is(rig: Rig) -> None:
    rig.stands()
    rig.savepoints.cell_ended(0, 0.1)
    rig.savepoints.consider()
    assert len(rig.worker.orders) == 1
    rig.savepoints._policy._free_at = 0.0
    rig.pass_time()
    assert len(rig.worker.orders) == 2


def test_nothing_new_needs_no_new_one(rig: Rig) -> None:
    rig.stands()
    rig.savepoints._policy._free_at = 0.0
    rig.savepoints.consider()
    assert len(rig.worker.orders) == 1


def test_none_is_kept_in_a_sandbox_that_is_more_than_half_full(rig: Rig, killed: list[int]) -> None:
    rig.stands()
    rig.gauge.usage = 600 * MIB
    rig.savepoints.cell_ended(0, 0.1)
    assert killed == [PIDS[0]]
    assert rig.savepoints.notes() == [
        "No savepoint is kept: 600 MiB are used, more than half of the sandbox's 1024 MiB. None stands."
    ]
    rig.savepoints.cell_ended(0, 0.1)
    rig.savepoints.consider()
    assert (rig.savepoints.notes(), len(rig.worker.orders)) == ([], 1)


def test_savepoint_that_holds_little_is_not_given_up_for_memory(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.stands()
    private = {"size": 5 * MIB}
    monkeypatch.setattr(savepoint_copy.SavepointCopy, "private", lambda _: private["size"])
    assert rig.savepoints.give_up() is None
    private["size"] = 50 * MIB
    assert "given up" in rig.savepoints.give_up()
    assert rig.savepoints.give_up() is None


@pytest.mark.parametrize(("private", "told"), [(300 * MIB, True), (MIB, False)])
def test_copies_are_held_against_a_savepoint_only_where_pages_are_not_shared_any_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, private: int, told: bool
) -> None:
    rig.stands()
    monkeypatch.setattr(savepoint_copy.SavepointCopy, "private", lambda _: private)
    rig.savepoints.cell_ended(100_000, 0.3)
    assert bool(rig.savepoints.notes()) is told


@pytest.mark.parametrize(
    ("said", "notes"),
    [
        ({"threads": 0, "tasks": None}, []),
        ({"threads": 1, "tasks": None}, ["Not kept: 1 thread of the session's; locks that they held stay held."]),
        ({"threads": 0, "tasks": 0}, ["Not kept: asyncio's event loop, which is made anew."]),
        (
            {"threads": 2, "tasks": 3},
            [
                "Not kept: 2 threads of the session's; locks that they held stay held.",
                "Not kept: asyncio's event loop, which is made anew; tasks of it that were not done: 3.",
            ],
        ),
        ({"threads": "many", "tasks": []}, []),
        ({}, []),
    ],
)
def test_what_a_takeover_has_not_kept_is_told(said: dict[str, Any], notes: list[str]) -> None:
    assert savepoint_copy.notes_of(said) == notes


def test_copy_that_the_worker_forked_last_is_waited_for_when_it_ends(rig: Rig) -> None:
    rig.stands(PIDS[0])
    rig.savepoints._policy.taken_over(time.monotonic())
    rig.order()
    taken: list[Any] = []
    rig.savepoints.await_arrival(lambda: taken.append(rig.savepoints.take()))
    assert taken == []
    rig.parked(1, PIDS[1])
    (copy,) = taken
    assert copy.pid == PIDS[1]
    rig.pass_time()
    assert len(taken) == 1
    copy.end()


@pytest.mark.parametrize("how", ["nothing is coming", "it ends", "it says nothing"])
def test_nobody_waits_for_a_copy_that_does_not_come(rig: Rig, how: str) -> None:
    rig.stands(PIDS[0])
    if how != "nothing is coming":
        rig.savepoints._policy.taken_over(time.monotonic())
        rig.order()
    taken: list[Any] = []
    rig.savepoints.await_arrival(lambda: taken.append(rig.savepoints.take()))
    if how == "it ends":
        rig.worker.close(1)
        rig.turn()
    elif how == "it says nothing":
        assert taken == []
        rig.pass_time()
    (copy,) = taken
    assert copy.pid == PIDS[0]
    copy.end()
