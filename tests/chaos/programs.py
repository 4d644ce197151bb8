"""What sessions run: steps with known answers, each of which leaves its number in three places."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MARK: Final = "STATE "
SLOTS: Final = 8

# A list, an array, a file, and a function of the session's own. What is printed is what was there once the step's own
# number was in all three. Where a wake has left out one of the two, and told so by its name, both begin anew.
_STEP = f"""\
if not {{'log', 'array'}} <= globals().keys():
    import numpy
    log, array = [], numpy.zeros({SLOTS}, dtype=int)
if 'step' not in globals():
    def step(number):
        import json, pathlib
        log.append(number)
        array[number %% {SLOTS}] += 1
        with open('log.txt', 'a') as file:
            file.write(f'{{number}}\\n')
        files = pathlib.Path('log.txt').read_text().split()
        print({MARK!r} + json.dumps([log, array.tolist(), files]))
step(%d)
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step: what it does after it has left its number, and how it ends when nothing hurts it."""

    weight: int
    then: str
    ends: str = "ok"  # or an error's code
    time_limit: float = 30.0
    cancelled: bool = False  # by its client, in the middle
    stateless: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "plain": Kind(12, "None"),
    "raises": Kind(2, "raise ValueError('on purpose')", "exception"),
    "spins": Kind(1, "sum(range(10**13))", "timeout", time_limit=1.0),
    "segfaults": Kind(1, "import ctypes; ctypes.string_at(0)", "crashed"),
    "exits": Kind(1, "import os; os._exit(3)", "crashed"),
    "fills": Kind(1, "[b'x' * 2**24 for _ in iter(int, 1)]", "oom"),
    "prints": Kind(1, "print('x' * 300_000)"),
    "sleeps": Kind(2, "import time; time.sleep(0.5)"),
    "cancelled": Kind(2, "import time; time.sleep(60)", "timeout", cancelled=True),
    "stateless": Kind(1, "6 * 7", stateless=True),
}


def choose(chance: random.Random) -> str:
    """The kind of the next step."""
    return chance.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]


def code_of(kind: Kind, number: int) -> str:
    """What is sent."""
    return kind.then if kind.stateless else _STEP % number + kind.then
