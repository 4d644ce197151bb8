"""How many locks on ranges of files a sandbox holds, as the kernel shows them, and who is told of too many."""

import fcntl
import inspect
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.unit.test_agent_saves import load

lock_watch, reactor = load("lock_watch"), load("reactor")

LOCK = "lock:\t{number}: POSIX  ADVISORY  WRITE 9 00:2a:1707 {number} {number}\n"
OF_WHOLE_FILES = "lock:\t1: FLOCK  ADVISORY  WRITE 9 00:2a:1707 0 EOF\n"
HEAD = "pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t1707\n"


class Rig:
    def __init__(self, folder: Path, ours: Collection[int] = ()) -> None:
        self.folder = folder
        (folder / "meminfo").touch()
        self.time = 0.0
        self.told: list[str] = []
        self.reactor = reactor.Reactor()
        self.watch = lock_watch.LockWatch(
            self.reactor, self.told.append, lambda: ours, processes=str(folder), now=lambda: self.time
        )
        self.parts = 0

    def holds(self, process: str, fd: int, locks: int, more: str = "") -> Path:
        """`process` as /proc names it: `7`, or `7/task/8`."""
        table = self.folder / process / "fdinfo"
        table.mkdir(parents=True, exist_ok=True)
        lines = "".join(LOCK.format(number=number) for number in range(1, locks + 1))
        (table / str(fd)).write_text(HEAD + lines + more, "ascii")
        return table / str(fd)

    def look(self) -> list[str]:
        """Let a walk begin and come to its end; what it told."""
        self.told.clear()
        self.parts = 0
        while self.parts == 0 or inspect.getgeneratorstate(self.watch._walk) != inspect.GEN_CREATED:
            self.parts += 1
            (timer,) = [timer for timer in self.reactor._timers if timer.live]
            timer.cancel()
            timer.act()
        return self.told


def hide(monkeypatch: pytest.MonkeyPatch, *processes: str, error: type[OSError] = PermissionError) -> None:
    """As the kernel does for who may not look; root, as which tests may run, may."""
    listdir = lock_watch.os.listdir

    def refuse(path: str) -> list[str]:
        if any(path.endswith(f"/{process}/fdinfo") for process in processes):
            raise error
        found: list[str] = listdir(path)
        return found

    monkeypatch.setattr(lock_watch.os, "listdir", refuse)


def test_locks_of_all_processes_together_are_told_of_again_and_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.holds("7", 3, 4000)
    rig.holds("8", 3, 90)
    rig.holds("8", 4, 6)
    assert rig.look() == []
    last = rig.holds("8", 4, 7)
    assert rig.look() == [lock_watch.TOO_MANY_LOCKS]
    assert rig.look() == [lock_watch.TOO_MANY_LOCKS]
    last.unlink()
    assert rig.look() == []


def test_locks_on_whole_files_are_not_counted_since_descriptors_bound_them(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.holds("7", 3, 4096, more=OF_WHOLE_FILES)
    assert rig.look() == []


def test_pid_1_and_the_agents_own_are_not_looked_into(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ours={7})
    rig.holds("1", 3, 5000)
    rig.holds("7", 3, 5000)
    assert rig.look() == []


def test_a_process_whose_first_thread_has_ended_is_looked_into_through_another(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for thread in ("7", "7/task/7", "7/task/8"):
        rig.holds(thread, 3, 0).unlink()
    (tmp_path / "7" / "task" / "10").mkdir()  # one that has ended while it was looked for
    rig.holds("7/task/9", 3, 5000)
    assert rig.look() == [lock_watch.TOO_MANY_LOCKS]


def test_many_descriptors_are_looked_at_in_parts_and_none_is_left_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for number in range(1300):
        rig.holds(str(100 + number % 2), number, 3)
    assert rig.look() == []
    assert rig.parts == 3
    rig.holds("100", 0, 500)
    assert rig.look() == [lock_watch.TOO_MANY_LOCKS]


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_process_that_hides_for_seconds_is_told_of_and_one_that_is_just_forked_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    rig = Rig(tmp_path)
    rig.holds("7", 3, 0)
    rig.holds("8", 3, 0)
    rig.watch.look_into(8)
    hide(monkeypatch, "7", error=error)
    for second in range(5):
        rig.time = float(second)
        assert rig.look() == [], second
    rig.time = 5.0
    assert rig.look() == rig.look() == [lock_watch.HIDDEN]
    monkeypatch.undo()
    hide(monkeypatch, "8", error=error)  # another, which is new to it
    rig.time = 6.0
    assert rig.look() == []


def test_a_long_pause_of_the_sandbox_alone_makes_nobody_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.holds("7", 3, 0)
    hide(monkeypatch, "7")
    assert rig.look() == []
    rig.time = 1000.0
    assert rig.look() == []


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError])
def test_a_process_that_ends_under_the_look_hides_nothing_and_the_others_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    rig = Rig(tmp_path)
    rig.holds("7", 3, 0)
    rig.holds("8", 3, 5000)
    hide(monkeypatch, "7", error=error)
    for second in range(10):
        rig.time = float(second)
        assert rig.look() == [lock_watch.TOO_MANY_LOCKS]


def test_a_look_that_fails_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.holds("7", 3, 5000)
    with monkeypatch.context() as patch:
        patch.setattr(lock_watch, "_numbers", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            rig.look()
    rig.look()  # the one that failed has ended; this one finds that, and makes a new one
    assert rig.look() == [lock_watch.TOO_MANY_LOCKS]


def test_the_kernels_own_words_are_understood(tmp_path: Path) -> None:
    """A real process's locks, in the real /proc."""
    with (tmp_path / "locked").open("wb") as file:
        for start in range(300):
            fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * start)
        assert sum(lock_watch._locks_of(f"/proc/{os.getpid()}")) == 300
    assert sum(lock_watch._locks_of(f"/proc/{os.getpid()}")) == 0


def test_nobody_is_taken_for_hiding_where_a_fresh_worker_cannot_be_looked_into_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a security module that forbids it, or on a kernel that has no such files."""
    rig = Rig(tmp_path)
    rig.holds("7", 3, 0)
    hide(monkeypatch, "7")
    rig.watch.look_into(7)
    for second in range(20):
        rig.time = float(second)
        assert rig.look() == [], second
