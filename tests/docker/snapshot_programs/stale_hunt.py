"""Random programs change a session; each state is saved with the pieces before as known, restored, and compared.

Values are compared by a walk over both sessions at once, which also has to meet the same sharing in both.
"""

import os
import random
import sys
import time
from types import FunctionType, ModuleType
from typing import Any

import numpy as np  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, "/opt/agent")
sys.path.insert(0, "/cases")

from session import Pieces, fresh_main, in_fork, restore, save  # type: ignore[import-not-found]

BUDGET_S = 8.0
START = """
import numpy as np
class Node:
    made = []
    def __init__(self, value): self.value = value; self.links = []
class Slotted:
    __slots__ = ("a", "b")
def counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    return up
up = counter()
xs = [[], {}, set(), Node(1), np.zeros(8), np.zeros(40_000), bytearray(5), Slotted()]
xs[7].a = xs
named = {}
"""
# `v` and `w` are random values of the session, `n` a random number, `k` a random name.
STEPS = """
xs.append(n)
xs.append([v])
xs.append({n: v})
xs.append(Node(v))
xs.append((v, w))
named[n] = v
named.pop(n, None)
globals()[k] = v
globals().pop(k, None)
globals()[k] = [v, w]
isinstance(v, list) and v is not xs and v.append(w)
isinstance(v, list) and v and v is not xs and v.pop()
isinstance(v, dict) and v is not globals() and v.__setitem__(n, w)
isinstance(v, set) and v.add(n)
isinstance(v, Node) and v.links.append(w)
isinstance(v, Node) and setattr(v, k, w)
isinstance(v, np.ndarray) and v.size and v.flags.writeable and v.reshape(-1).__setitem__(n % v.size, n)
isinstance(v, np.ndarray) and v.size > 4 and xs.append(v[1:-1])
isinstance(v, np.ndarray) and v.size > 4 and xs.append(v[::-2])
xs.append(np.full(n * 3_000, n))
isinstance(v, bytearray) and v.append(n)
isinstance(v, bytearray) and xs.append(np.frombuffer(bytes(v), 'u1'))
isinstance(v, Slotted) and setattr(v, 'b', w)
Node.made.append(v)
Node.shared = v
up()
xs.append(up)
xs.append(lambda: v)
xs.append((lambda c: lambda: c)(v))
exec('def made(x=v): return ' + str(n), globals())
exec('class Node2(Node): tag = ' + str(n), globals()); xs.append(Node2(v))
xs.reverse()
len(xs) > 12 and xs.pop(n % len(xs))
""".strip().splitlines()


def program(seed: int) -> None:
    chance = random.Random(seed)
    namespace = fresh_main()
    exec(START, namespace)
    pieces: Pieces = {}
    for _ in range(4):
        for _ in range(chance.randint(1, 12)):
            step = chance.choice(STEPS)
            namespace.update(v=pick(chance, namespace), w=pick(chance, namespace), n=chance.randint(0, 9))
            namespace["k"] = "name" + str(chance.randint(0, 4))
            exec(compile(step, f"<step {step}>", "exec"), namespace)
        for name in "vwnk":
            del namespace[name]
        saved = save(namespace, pieces)
        refused = [row for row in saved.names if row[4] == "refused"]
        assert not refused, refused
        check(namespace, saved.body, pieces, seed)


def pick(chance: random.Random, namespace: dict[str, Any]) -> Any:
    names = [name for name in namespace if name.startswith("name")]
    if names and chance.random() < 0.3:
        return namespace[chance.choice(names)]
    return chance.choice(namespace["xs"]) if namespace["xs"] else namespace["xs"]


def check(namespace: dict[str, Any], body: bytes, pieces: Pieces, seed: int) -> None:
    def compare() -> None:
        restored = fresh_main()
        report = restore(restored, body, pieces)
        assert not report.lost, (seed, report.lost)
        names = [name for name in namespace if not name.startswith("__")]
        assert names == [name for name in restored if not name.startswith("__")], seed
        same = Same(namespace, restored)
        for name in names:
            same.check(namespace[name], restored[name], name)

    if not in_fork(compare):
        print("seed", seed)
        sys.exit(1)


class Same:
    """A walk over two sessions at once."""

    def __init__(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        self.pairs: dict[int, int] = {id(one): id(other)}
        self.back: dict[int, int] = {id(other): id(one)}
        self.alive: list[Any] = []

    def check(self, one: Any, other: Any, path: str) -> None:
        pending = [(one, other, path)]
        while pending:
            one, other, path = pending.pop()
            assert type(one).__name__ == type(other).__name__, path
            if isinstance(one, int | float | str | bytes | tuple | None):
                if not isinstance(one, tuple):
                    assert one == other, path
                    continue
            elif id(one) in self.pairs or id(other) in self.back:
                assert self.pairs.get(id(one)) == id(other), (path, "shared otherwise")
                assert self.back.get(id(other)) == id(one), (path, "shared otherwise")
                continue
            else:
                self.pairs[id(one)], self.back[id(other)] = id(other), id(one)
                self.alive += [one, other]
            pending += [(a, b, f"{path}{step}") for step, a, b in children(one, other, path)]


def children(one: Any, other: Any, path: str) -> list[tuple[str, Any, Any]]:  # noqa: PLR0911 - a kind each
    if isinstance(one, list | tuple):
        assert len(one) == len(other), path
        return [(f"[{index}]", a, b) for index, (a, b) in enumerate(zip(one, other, strict=True))]
    if isinstance(one, dict):
        assert list(one) == list(other), path
        return [(f"[{key!r}]", one[key], other[key]) for key in one]
    if isinstance(one, set | bytearray):
        assert one == other, path
        return []
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, path
        assert one.strides == other.strides, path
        assert one.flags.writeable == other.flags.writeable, path
        assert np.array_equal(one, other), path
        return [(".base", one.base, other.base)] if isinstance(one.base, np.ndarray) else []
    if isinstance(one, type):
        kept = {name for name in vars(one) if not name.startswith("__")}
        return [(f".{name}", vars(one)[name], vars(other)[name]) for name in sorted(kept)]
    if isinstance(one, ModuleType):
        assert one is other, path
        return []
    if isinstance(one, FunctionType):
        cells = zip(one.__closure__ or (), other.__closure__ or (), strict=True)
        found = [(".cell", a.cell_contents, b.cell_contents) for a, b in cells]
        return [*found, (".defaults", one.__defaults__, other.__defaults__)]
    fields = dict(getattr(one, "__dict__", {})) | {n: getattr(one, n) for n in ("a", "b") if hasattr(one, n)}
    others = dict(getattr(other, "__dict__", {})) | {n: getattr(other, n) for n in ("a", "b") if hasattr(other, n)}
    assert list(fields) == list(others), path
    kind = [("·class", type(one), type(other))] if hasattr(one, "__dict__") else []
    return kind + [(f".{name}", fields[name], others[name]) for name in fields]


if __name__ == "__main__":
    # With arguments: the first program and how many, the same in every run; without: as many new ones as time allows.
    first = int(sys.argv[1]) if len(sys.argv) > 1 else int.from_bytes(os.urandom(3), "big")
    most = int(sys.argv[2]) if len(sys.argv) > 2 else sys.maxsize
    ends = time.monotonic() + BUDGET_S
    done = 0
    while done < most and time.monotonic() < ends:
        if not in_fork(lambda seed=first + done: program(seed)):
            sys.exit(f"seed {first + done}")
        done += 1
    print(done, "programs")
    print("no fault")
