"""What the scripts share: a session in this process, its pieces in a dict, a fresh process to restore in."""

import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

sys.path.insert(0, "/opt/agent")

from agent.snapshot import process_state, restoring, saving  # type: ignore[import-not-found]
from agent.snapshot.pieces import unpack  # type: ignore[import-not-found]

SEED = 77

Pieces = dict[str, bytes]


def fresh_main() -> dict[str, Any]:
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    process_state.mark()
    return module.__dict__


def collector(pieces: Pieces) -> Callable[[bytes, int, str, Any], None]:
    def emit(digest: bytes, size: int, encoding: str, data: Any) -> None:
        raw = bytearray(size)
        unpack(encoding, bytes(data), size, memoryview(raw))
        pieces[digest.hex()] = bytes(raw)

    return emit


def save(namespace: dict[str, Any], pieces: Pieces, **order: Any) -> Any:
    """In this process; what is in `pieces` already is known and not emitted."""
    known = frozenset(bytes.fromhex(digest) for digest in pieces)
    return saving.save(namespace, saving.Order(seed=SEED, known=known, **order), collector(pieces))


def restore(namespace: dict[str, Any], body: bytes, pieces: Pieces) -> Any:
    def fetch(digest: str, _size: int, target: memoryview) -> None:
        target[:] = pieces[digest]

    return restoring.restore(namespace, body, fetch, SEED)


def in_fork(act: Callable[[], None]) -> bool:
    """Whether it raised nothing, in a fork of this process."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0
