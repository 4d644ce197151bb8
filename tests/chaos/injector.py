"""The second process: injects faults by a seeded schedule, and logs each as a line of JSON on standard output.

Ends when its time is over, or when its standard input does; the engine is up then, and nothing is stopped or paused.
"""

import json
import random
import select
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.faults import Fault, World, possible
from tests.chaos.private_engine import PrivateEngine

_PAUSES = (0.3, 2.5)  # seconds between one fault and the next


@dataclass(frozen=True, slots=True)
class Orders:
    """What the injector is told, as JSON."""

    seed: int
    seconds: float
    data_dir: str
    installation: str
    docker_host: str | None
    engine: str | None  # the private one's directory

    def world(self) -> World:
        """What these orders allow it to hurt."""
        engine = None if self.engine is None else PrivateEngine(Path(self.engine))
        return World(Path(self.data_dir), self.docker_host, self.installation, engine)

    def as_argument(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Injected:
    """One line of the log. Times of time.monotonic, which processes of one machine share."""

    began: float
    ended: float
    fault: str
    target: str | None  # None: nothing was there to hit


def schedule(chance: random.Random, faults: Sequence[Fault]) -> Iterator[tuple[float, Fault, int]]:
    """Pauses, faults, and a seed for each one's choices: first each once, then by weight. The same for one seed."""
    once = list(faults)
    chance.shuffle(once)
    weights = [fault.weight for fault in faults]
    while True:
        fault = once.pop() if once else chance.choices(faults, weights)[0]
        yield chance.uniform(*_PAUSES), fault, chance.getrandbits(32)


def main() -> None:
    """Until the time is over."""
    orders = Orders(**json.loads(sys.argv[1]))
    world = orders.world()
    deadline = time.monotonic() + orders.seconds
    try:
        for pause, fault, seed in schedule(random.Random(orders.seed), possible(world)):
            # Nothing is ever written to standard input: what can be read there is its end.
            if time.monotonic() + pause > deadline or select.select([sys.stdin], [], [], pause)[0]:
                break
            began = time.monotonic()
            target = fault.inject(world, random.Random(seed))
            _log(Injected(began, time.monotonic(), fault.name, target))
    finally:
        if world.engine is not None:
            world.engine.up()


def _log(injected: Injected) -> None:
    fields: dict[str, Any] = asdict(injected)
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
