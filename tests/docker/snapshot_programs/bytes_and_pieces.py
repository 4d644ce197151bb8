"""Equal sessions are equal bytes; a small change is a small snapshot; damaged pieces cost their own group."""

import json
import os
import sys

import numpy as np  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, "/opt/agent")
sys.path.insert(0, "/cases")

from agent.snapshot import restoring  # type: ignore[import-not-found]
from agent.snapshot.nodes import Limits  # type: ignore[import-not-found]
from session import SEED, Pieces, fresh_main, restore, save  # type: ignore[import-not-found]

ROOMY = Limits(variable=10**9, session=10**9)


def equal_sessions_are_equal_bytes() -> None:
    text = "class A:\n    def m(self): return x\nx = [1, {'k': (2.5, None)}]\ny = {'a': x}\n"
    text += "s = {1, 2, 3}\nf = lambda: y\na = A()"
    bodies = set()
    for _ in range(2):
        namespace = fresh_main()
        exec(text, namespace)
        bodies.add(save(namespace, {}).body)
    assert len(bodies) == 1


def a_small_change_is_a_small_snapshot() -> None:
    namespace = fresh_main()
    namespace["big"] = np.random.default_rng(1).random(6_000_000)
    namespace.update({f"v{index}": [index] for index in range(2_000)})
    pieces: Pieces = {}
    first = save(namespace, pieces, limits=ROOMY)
    assert first.new_bytes > 48_000_000
    assert save(namespace, pieces, limits=ROOMY).new_bytes == 0
    namespace["v77"].append(1)
    assert save(namespace, pieces, limits=ROOMY).new_bytes < 20_000
    namespace["big"][3_000_000] = 0
    assert save(namespace, pieces, limits=ROOMY).new_bytes <= 1 << 20
    namespace["new"] = [5]
    del namespace["v500"]
    assert save(namespace, pieces, limits=ROOMY).new_bytes < 40_000


def a_damaged_piece_costs_its_group() -> None:
    namespace = fresh_main()
    namespace["one"] = np.arange(1_000_000.0)
    namespace["two"] = np.ones(500_000)
    namespace["small"] = [1]
    pieces: Pieces = {}
    saved = save(namespace, pieces, limits=ROOMY)
    rows = {row["names"][0]: row for row in json.loads(saved.body)["groups"]}
    digest = saved.pieces[rows["one"]["arrays"][0][1][3]]
    data = bytearray(pieces[digest])
    data[1000] ^= 1
    pieces[digest] = bytes(data)
    restored = fresh_main()
    report = restore(restored, saved.body, pieces)
    assert [name for name, _ in report.lost] == ["one"], report.lost
    assert restored["two"].sum() == 500_000
    assert restored["small"] == [1]


def zeros_are_one_piece() -> None:
    namespace = fresh_main()
    namespace["z"] = np.zeros(20_000_000, "u1")
    namespace["y"] = np.zeros(10_000_000, "u1")
    pieces: Pieces = {}
    saved = save(namespace, pieces, limits=ROOMY, compress=True)
    assert len(saved.pieces) <= 6
    restored = fresh_main()
    assert not restore(restored, saved.body, pieces).lost
    assert restored["z"].size == 20_000_000
    assert not restored["z"].any()


def nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    namespace = fresh_main()
    namespace["x"] = [1]
    save(namespace, {})
    assert len(os.listdir("/proc/self/fd")) == before


def the_agents_libraries_are_nobodys() -> None:
    assert not {"xxhash", "zstandard", "cloudpickle"} & sys.modules.keys()
    assert not [entry for entry in sys.path if entry.startswith("/opt/agent/lib")]
    try:
        exec("import xxhash", fresh_main())
    except ImportError:
        return
    raise AssertionError("a session sees the agent's library")


def another_python_restores_what_is_portable() -> None:
    namespace = fresh_main()
    exec("def f(): return 1\nclass C: pass\nc = C()\nx = [1]\ncode = compile('1', '', 'eval')\ny = {'f': f}", namespace)
    pieces: Pieces = {}
    body = json.loads(save(namespace, pieces).body)
    body["python"] = [3, 99, 0]
    restored = fresh_main()
    report = restore(restored, json.dumps(body).encode(), pieces)
    assert dict(report.lost).keys() == {"f", "code", "y"}, report.lost
    assert all("Python 3.99" in why for _, why in report.lost)
    assert restored["x"] == [1]
    assert type(restored["c"]) is restored["C"]


def a_quarantined_group_is_named() -> None:
    namespace = fresh_main()
    namespace.update(a=[1], b=np.arange(50_000), c=[3])
    pieces: Pieces = {}
    saved = save(namespace, pieces)
    number = next(number for number, names in enumerate(restoring.groups_of(saved.body)) if names == ["b"])
    restored = fresh_main()

    def fetch(digest: str, _size: int, target: memoryview) -> None:
        target[:] = pieces[digest]

    report = restoring.restore(restored, saved.body, fetch, SEED, quarantined={number: "it hung"})
    assert report.lost == [("b", "it hung")]
    assert [restored["a"], restored["c"]] == [[1], [3]]


if __name__ == "__main__":
    equal_sessions_are_equal_bytes()
    a_small_change_is_a_small_snapshot()
    a_damaged_piece_costs_its_group()
    zeros_are_one_piece()
    nothing_is_left_open()
    another_python_restores_what_is_portable()
    a_quarantined_group_is_named()
    the_agents_libraries_are_nobodys()
    print("no fault")
