"""How many locks on ranges of files a sandbox holds, as the kernel shows them; and who is told when they are too many."""

from collections.abc import Collection
from pathlib import Path

from tests.unit.test_agent_saves import load

lock_watch, reactor = load("lock_watch"), load("reactor")

LOCK = "lock:\t{number}: POSIX  ADVISORY  WRITE 9 00:2a:1707 {number} {number}\n"
OF_WHOLE_FILES = "lock:\t1: FLOCK  ADVISORY  WRITE 9 00:2a:1707 0 EOF\n"
HEAD = "pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t1707\n"


class Hiding(lock_watch.LockWatch):  # type: ignore[misc, name-defined] - root, too, is to find these hidden
    """Where a process hides, as the kernel says it."""


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
        while True:
            (timer,) = [timer for timer in self.reactor._timers if timer.live]
            timer.cancel()
            self.parts += 1
            timer.act()
            (timer,) = [timer for timer in self.reactor._timers if timer.live]
            self.reactor._timers = [timer]
            if self.watch._walk.gi_frame is not None and self.watch._walk.gi_frame.f_lasti <= 0:
                return self.told
