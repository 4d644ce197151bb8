"""Runs inside the sandbox image: times of saves and restores, beside memcpy and bare pickling."""

import pickle
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, "/opt/agent")

from agent.snapshot import process_state, restoring, saving  # type: ignore[import-not-found]
from agent.snapshot.nodes import Limits  # type: ignore[import-not-found]
from agent.snapshot.pieces import unpack  # type: ignore[import-not-found]

ROOMY = Limits(variable=1 << 40, session=1 << 40)
ROUNDS = 5
MB = 1_000_000

Pieces = dict[str, bytes]


def median_ms(act: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The usual time of a call."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def fresh_main() -> dict[str, Any]:
    """The namespace of a new module `__main__`."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    return module.__dict__


def drop(_digest: bytes, _size: int, _encoding: str, data: Any) -> None:
    """Where pieces would leave: touches no byte."""
    len(data)


def save(namespace: dict[str, Any], known: Pieces | None = None, *, compress: bool = False) -> Any:
    """Nothing leaves the process: what the store and the channel cost is measured elsewhere."""
    digests = frozenset(bytes.fromhex(digest) for digest in known or ())
    return saving.save(namespace, saving.Order(seed=3, limits=ROOMY, known=digests, compress=compress), drop)


def collect(namespace: dict[str, Any]) -> tuple[Any, Pieces]:
    """A save whose pieces are kept."""
    pieces: Pieces = {}

    def emit(digest: bytes, size: int, encoding: str, data: Any) -> None:
        raw = bytearray(size)
        unpack(encoding, bytes(data), size, memoryview(raw))
        pieces[digest.hex()] = bytes(raw)

    return saving.save(namespace, saving.Order(seed=3, limits=ROOMY), emit), pieces


def restore(body: bytes, pieces: Pieces) -> None:
    """In this process, from memory."""

    def fetch(digest: str, _size: int, target: memoryview) -> None:
        target[:] = pieces[digest]

    report = restoring.restore(fresh_main(), body, fetch, 3)
    assert not report.lost, report.lost


def arrays(size: int) -> None:
    """One array, from first save to restore."""
    namespace = fresh_main()
    array = namespace["a"] = np.random.default_rng(0).random(size // 8)
    copy = np.empty_like(array)
    memcpy = median_ms(lambda: np.copyto(copy, array))
    first = median_ms(lambda: save(namespace))
    saved, pieces = collect(namespace)
    same = median_ms(lambda: save(namespace, pieces))
    array[size // 16] += 1
    one = median_ms(lambda: save(namespace, pieces))
    packed = median_ms(lambda: save(namespace, compress=True), 2)
    fresh = median_ms(lambda: np.copyto(np.empty_like(array), array))
    back = median_ms(lambda: restore(saved.body, pieces))
    print(
        f"array of {size // MB:5} MB: memcpy {memcpy:7.1f} ms = 1; save {first / memcpy:5.2f}, unchanged"
        f" {same / memcpy:5.2f}, one element changed {one / memcpy:5.2f}, asked to pack {packed / memcpy:5.2f},"
        f" restore {back / memcpy:5.2f} (into fresh memory, memcpy takes {fresh / memcpy:5.2f})"
    )


def variables(count: int) -> None:
    """Many small ones."""
    namespace = fresh_main()
    namespace.update({f"v{index}": [index, str(index), {"k": index}] for index in range(count)})
    bare = median_ms(lambda: pickle.dumps(namespace["v0"])) * count
    values = [namespace[name] for name in namespace if name.startswith("v")]
    whole = median_ms(lambda: pickle.dumps(values, 5))
    first = median_ms(lambda: save(namespace))
    saved, pieces = collect(namespace)
    back = median_ms(lambda: restore(saved.body, pieces))
    print(
        f"{count:6} variables: one pickle of all {whole:7.2f} ms = 1; a pickle each {bare / whole:5.1f},"
        f" save {first / whole:6.1f} ({first / count * 1e3:5.1f} us each), restore {back / whole:6.1f}"
    )


def graph(count: int) -> None:
    """One variable of many objects."""
    namespace = fresh_main()
    namespace["g"] = [{"id": index, "tags": [str(index)]} for index in range(count)]
    bare = median_ms(lambda: pickle.dumps(namespace["g"], 5))
    first = median_ms(lambda: save(namespace))
    saved, pieces = collect(namespace)
    load = pickle.dumps(namespace["g"], 5)
    loads = median_ms(lambda: pickle.loads(load))
    back = median_ms(lambda: restore(saved.body, pieces))
    print(
        f"graph of {count:8} dicts: pickle {bare:7.1f} ms = 1; save {first / bare:5.2f};"
        f" unpickling {loads:7.1f} ms = 1; restore {back / loads:5.2f}"
    )


if __name__ == "__main__":
    process_state.mark()
    for megabytes in (1, 10, 100, 1_000):
        arrays(megabytes * MB)
    for number in (10, 100, 1_000, 10_000):
        variables(number)
    for number in (1_000, 100_000):
        graph(number)
