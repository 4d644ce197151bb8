"""`make chaos`: sessions run programs with known answers while a second process kills what they depend on.

    CHAOS_SECONDS=600 CHAOS_SEED=1 python -m tests.chaos.run

The seed decides what each session does and which faults come when; whom they meet in which moment, it does not. Exit
code 0 where nothing was wrong.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from orchestrator import places as product
from orchestrator.app import RECORDS_NAME
from tests.chaos.clients import ANSWER_SECONDS, Editor
from tests.chaos.driver import Driver, Tally
from tests.chaos.ending import until_removed, what_is_left
from tests.chaos.faults import Need
from tests.chaos.figures import figures, history
from tests.chaos.injection import Injection
from tests.chaos.injector import Injected, Orders
from tests.chaos.places import Places, places
from tests.docker.conftest import records_left

SESSIONS = 8
EDITORS = 3
DEFAULT_SECONDS = 600.0
_LOG_LINES = 40


@dataclass(slots=True)
class Run:
    """One run, from its first call to what it has left."""

    places: Places
    seed: int
    seconds: float
    began: float = field(default_factory=time.monotonic)
    tally: Tally = field(default_factory=Tally)
    drivers: list[Driver] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    can: set[Need] = field(default_factory=set)
    left: list[str] = field(default_factory=list)

    @property
    def breaches(self) -> list[str]:
        """Everything that was wrong."""
        found = [breach for driver in self.drivers for breach in driver.breaches]
        return found + [f"left: {phrase}" for phrase in self.left]

    async def run(self) -> None:
        """Drive the sessions while faults are injected, then without, then look for what is left."""
        async with self._editors() as editors:
            await editors[0].call("python_repl", {"code": "6 * 7"}, seconds=ANSWER_SECONDS)
            orders = self._orders()
            self.can = orders.world().can
            async with Injection.begun(orders) as injection:
                self.faults = injection.faults
                self._drive(editors)
                until = time.monotonic() + self.seconds
                await _all(driver.run(until) for driver in self.drivers)
            await _all(driver.finish() for driver in self.drivers)
            await until_removed(self.places.settings)
        self.left += await what_is_left(self.places.settings, self.places.root)

    def told(self) -> Iterator[str]:
        """What is printed at the end."""
        for driver in self.drivers:
            if driver.breaches:
                yield from history(driver, self.faults, self.began)
        if self.breaches:
            log = self.places.settings.data_dir / product.LOG_NAME
            yield f"the last lines of {log.name}:"
            yield from (f"  {line}" for line in log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        yield from figures(self.drivers, self.tally, self.faults, self.can, self.left)

    @asynccontextmanager
    async def _editors(self) -> AsyncIterator[list[Editor]]:
        with (self.places.root / "relays.log").open("a") as errors:
            server = self.places.server
            made = [Editor(server, "legacy" if number % 2 else "auto", errors) for number in range(EDITORS)]
            running = [asyncio.create_task(editor.run(), name="an editor") for editor in made]
            try:
                yield made
            finally:
                for task in running:
                    task.cancel()
                await asyncio.wait(running)

    def _orders(self) -> Orders:
        settings = self.places.settings
        installation, _ = records_left(settings.data_dir / RECORDS_NAME)
        engine = self.places.engine
        return Orders(
            seed=self.seed,
            seconds=self.seconds,
            data_dir=str(settings.data_dir),
            installation=installation,
            docker_host=settings.docker_host,
            engine=None if engine is None else str(engine.root),
        )

    def _drive(self, editors: list[Editor]) -> None:
        records = self.places.settings.data_dir / RECORDS_NAME
        self.drivers += [
            Driver(
                f"s{number}",
                editors[number % len(editors)],
                random.Random(f"{self.seed} {number}"),
                self.tally,
                records,
            )
            for number in range(SESSIONS)
        ]


def main() -> None:
    """Run, print, and leave with what came of it."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    seconds = float(os.environ.get("CHAOS_SECONDS") or DEFAULT_SECONDS)
    print(f"chaos: {seconds:g} s with CHAOS_SEED={seed}", flush=True)
    left: list[str] = []
    with places(left) as found:
        if found.why_none is not None:
            print(f"no private engine ({found.why_none}): the common one is used, and not hurt", flush=True)
        run = Run(found, seed, seconds)
        try:
            asyncio.run(_until_a_signal(run))
        finally:
            for line in run.told():
                print(line)
    breaches = run.breaches + [f"left: {phrase}" for phrase in left]
    for breach in breaches:
        print(f"BREACH: {breach}")
    print(f"chaos: {len(breaches)} breaches with CHAOS_SEED={seed}")
    sys.exit(1 if breaches else 0)


async def _until_a_signal(run: Run) -> None:
    """A signal ends the run early, and what it has begun is put away all the same."""
    running = asyncio.ensure_future(run.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
        return
    run.left.append("everything: the run was ended by a signal")


async def _all(works: Iterator[object]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
