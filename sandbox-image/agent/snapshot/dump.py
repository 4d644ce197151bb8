"""One pickle: of one variable to find out what it shares, or of a whole group to store it.

The pickler is the C one. It hands every object that it meets to `visited.append` as if asking for a persistent id, and
gets None: the cheapest way there is to learn what a value reaches (30 to 40 ns an object).
"""

import pickle
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from agent import pristine
from agent.snapshot import rebuild
from agent.snapshot.catalog import Catalog, Slot, is_session_code
from agent.snapshot.handlers import handler_for

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

PROTOCOL = 5
_DEEP_STACK = 512 * 1024 * 1024  # bytes of address space; what is not used costs nothing
_DEEP_LIMIT = 400_000  # levels that fit into it, by trial, with a margin of two
_USUAL_LIMIT = 1_000
_OUT_OF_BAND = 32 * 1024  # bytes from which a buffer is stored beside the pickle


class TooLargeError(Exception):
    """The pickle has passed its limit and was given up at once."""


@dataclass
class Dump:
    """What one run of the pickler found out and made."""

    catalog: Catalog
    members: frozenset[int] = frozenset()  # ids of functions and classes that this pickle holds whole
    limit: int = sys.maxsize  # bytes of the pickle itself
    beat: Callable[[], None] = lambda: None  # called now and then while bytes come out
    parts: list[Any] = field(default_factory=list)  # the pickle
    size: int = 0  # of it
    arrays: list[memoryview] = field(default_factory=list)  # memory beside it, found by index
    buffers: list[memoryview] = field(default_factory=list)  # out-of-band buffers, found by their order
    needs: dict[Slot, None] = field(default_factory=dict)  # slots of other groups
    visited: list[Any] = field(default_factory=list)
    private: dict[int, Any] = field(default_factory=dict)  # arrays that share memory with nothing, by decision
    views: list[tuple[Any, Any]] = field(default_factory=list)  # (array, view of it)
    foreign: list[tuple[int, int, Any, Any]] = field(default_factory=list)  # (from, to, array, the library's object)
    remarks: dict[str, None] = field(default_factory=dict)
    byte_code: bool = False  # it holds code, which belongs to one minor version of Python
    plain: bool = True  # nothing in it can fail to load: no type that we don't know
    _methods: dict[int, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes in the pickle and beside it."""
        return self.size + sum(part.nbytes for part in (*self.arrays, *self.buffers))

    def run(self, root: Any) -> None:
        """Pickle `root`. Raises whatever user code raises, and TooLargeError."""
        try:
            sys.setrecursionlimit(_USUAL_LIMIT)
            self._pickle(root)
        except RecursionError:
            # In a thread with room for deep nests: loading is iterative, so they come back anywhere.
            self._begin_anew()
            _in_deep_thread(lambda: self._pickle(root))

    def _begin_anew(self) -> None:
        for made in (self.parts, self.arrays, self.buffers, self.visited, self.views, self.foreign):
            made.clear()
        self.size = 0

    def _pickle(self, root: Any) -> None:
        pickler: Any = _Pickler(self, PROTOCOL, buffer_callback=self._take_buffer)
        pickler.persistent_id = self._canonical if self.members else self.visited.append
        pickler.reducer_override = self._override  # on the instance: one Python call less for each object
        # Known before it begins: each of these is written as a reference, which the prefix of a load resolves.
        rebuild.current = NamespaceOnly(self.catalog.namespace)  # type: ignore[assignment]
        containers = rebuild.live_containers()
        pickler.memo = {id(one): (index, one) for index, one in enumerate(containers)}
        pickler.dump(root)

    def _canonical(self, of: Any) -> Any:
        """Where code is written, names are: interned here, and again by `persistent_load`.

        Otherwise bytes would depend on which equal texts happen to be one object, which a restore changes.
        """
        self.visited.append(of)
        return sys.intern(of) if type(of) is str else None

    def write(self, data: Any) -> int:
        """What the pickler calls; big parts come as the objects that hold them, and are not copied."""
        size = memoryview(data).nbytes
        self.size += size
        if self.size > self.limit:
            raise TooLargeError
        self.parts.append(data)
        self.beat()
        return size

    def _take_buffer(self, buffer: Any) -> bool:
        raw = memoryview(buffer)
        if raw.nbytes < _OUT_OF_BAND or not raw.c_contiguous:
            return True
        self.buffers.append(raw.cast("B"))
        return False

    def _override(self, of: Any) -> Any:
        handler = self.catalog.handlers.get(type(of))
        if handler is None:
            handler = self.catalog.handlers[type(of)] = handler_for(type(of), self.catalog)
        return handler(self, of)

    # for handlers

    def inlines(self, code: Any) -> bool:
        """Whether this function or class is written here, and not by reference."""
        return id(code) in self.members or id(code) in self._methods

    def inline_method(self, function: Any) -> None:
        """A function that stands in a class which is written here."""
        if is_session_code(function, self.catalog):
            self._methods[id(function)] = function

    def refer(self, code: Any) -> tuple[Any, ...]:
        """By its slot."""
        name = self.catalog.slot_of(code)
        self.needs[name] = None
        return rebuild.slot, (name,)

    def add_array(self, memory: memoryview) -> int:
        """Store this memory beside the pickle; its index."""
        self.arrays.append(memory)
        return len(self.arrays) - 1

    def remark(self, text: str) -> None:
        """Something that the user should know of, though the value is saved."""
        self.remarks[text] = None

    def methods(self) -> Iterable[int]:
        """Ids of the functions that came with classes."""
        return self._methods.keys()


class _Pickler(pickle.Pickler):
    """A subclass, so that its instances take attributes."""


class NamespaceOnly:
    """As much of a load as naming the live containers takes."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace


def _in_deep_thread(act: Callable[[], None]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    before = threading.stack_size(_DEEP_STACK)
    sys.setrecursionlimit(_DEEP_LIMIT)
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(_USUAL_LIMIT)
        threading.stack_size(before)
    if raised:
        raise raised[0]
