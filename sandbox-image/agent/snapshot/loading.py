"""Loads one group from its bytes. Used by a restore, and by a rehearsal of one."""

import io
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agent import plain_json, pristine
from agent.snapshot import rebuild

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_CONTAINERS = 4  # rebuild.live_containers
_MAX_WORDS = 300  # characters

# Makes the live containers the first entries of the memo, where the pickler has assumed them to be. (Unpickler.memo
# can't be set from a dict in 3.11.) PROTO, then for each: GLOBAL, BININT1, TUPLE1, REDUCE, MEMOIZE, POP.
PREFIX = b"\x80\x05" + b"".join(
    b"cagent.snapshot.rebuild\nlive_container\nK" + bytes([index]) + b"\x85R\x940" for index in range(_CONTAINERS)
)

ReadBeside = Callable[[str, int, memoryview], None]  # "arrays" or "buffers", index, where the bytes go


class Loader:
    """A namespace that is being filled, and the functions and classes that came back so far.

    `rehearses`: values are only tried, and their finalizers are not theirs.
    """

    def __init__(self, namespace: dict[str, Any], *, rehearses: bool = False) -> None:
        self.namespace = namespace
        self.rehearses = rehearses
        self.slots: dict[str, Any] = {}
        self._read: ReadBeside = _nothing_beside
        self._at_end: list[Callable[[], None]] = []

    def load(self, stream: Any, buffers: Sequence[int], read: ReadBeside) -> list[Any]:
        """The group's objects; `stream` is bytes, or a file of prefix and bytes. Raises whatever user code raises."""
        self._read = read
        rebuild.current = self
        try:
            return self._load(stream, buffers)
        finally:
            # Nothing of ours may keep the session's values alive.
            self._read, self._at_end = _nothing_beside, []
            rebuild.current = None  # type: ignore[assignment]

    def _load(self, stream: Any, buffers: Sequence[int]) -> list[Any]:
        file = stream if isinstance(stream, io.BytesIO) else io.BytesIO(b"".join((PREFIX, stream)))
        unpickler: Any = pickle.Unpickler(file, buffers=self._buffers(buffers))  # noqa: S301 - inside the sandbox
        unpickler.persistent_load = sys.intern
        loaded: list[Any] = unpickler.load()
        for act in self._at_end:
            act()
        return loaded

    def keep(self, code: Sequence[str], names: Sequence[str], objects: Sequence[Any], bound: dict[str, str]) -> None:
        """Let later groups find what this one brought; `bound` has the names of functions and classes."""
        made = dict(zip(code, objects, strict=False))
        self.slots.update(made)
        self.namespace.update({name: made[slot] for name, slot in bound.items() if slot in made})
        self.namespace.update(zip(names, objects[len(code) :], strict=False))

    def _buffers(self, sizes: Sequence[int]) -> Iterator[Any]:
        for index, size in enumerate(sizes):
            buffer = bytearray(size)
            self._read("buffers", index, memoryview(buffer))
            yield buffer

    # for rebuild

    def read_array(self, index: int, target: memoryview) -> None:
        """Fill it from what is stored beside the group's stream."""
        self._read("arrays", index, target)

    def at_end(self, act: Callable[[], None]) -> None:
        """When the group is loaded."""
        self._at_end.append(act)


def words_for(error: BaseException) -> str:
    """Why a group did not load, in a clause."""
    try:
        text = " ".join(str.__str__(str(error)).split())[:_MAX_WORDS]
    except BaseException:
        text = ""
    if isinstance(error, rebuild.MissingError):
        return text
    return f"loading raised {type(error).__name__}: {text}" if text else f"loading raised {type(error).__name__}"


def line(fields: dict[str, Any]) -> bytes:
    """A line of JSON, as the processes of a rehearsal exchange them."""
    return plain_json.write(fields) + b"\n"


def _nothing_beside(_kind: str, _index: int, _target: memoryview) -> None:
    raise ValueError("nothing is stored beside this group")
