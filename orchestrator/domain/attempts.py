"""Who has sent wrong keys of late, and is not listened to for a while."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

WINDOW = 60.0  # seconds
_MOST_KNOWN = 2_000  # addresses and keys each, so that nobody fills the memory by having many


class Attempts:
    """A count of failures by address, each of which is forgotten a window after the first.

    Keys are random and long, so that this is no defence against guessing: it keeps the work of looking keys up, and
    the log, within bounds. Whoever shares an address with a wrong key goes on with one that was right lately, which
    `known` names by its digest.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when the window began, and how many since
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def blocked_for(self, address: str, now: float) -> float:
        """Seconds for which that address is not listened to; 0: it is."""
        began, count = self._failures.get(address, (now, 0))
        return max(0.0, began + WINDOW - now) if count >= self._limit else 0.0

    def failed(self, address: str, now: float) -> None:
        """A wrong key came from there. Where there are many, the one quiet for longest is forgotten."""
        began, count = self._failures.get(address, (now, 0))
        if now - began >= WINDOW:
            began, count = now, 0
        self._failures[address] = (began, count + 1)
        _kept(self._failures, address)

    def succeeded(self, key: bytes) -> None:
        """The key with that digest was right."""
        self._right[key] = None
        _kept(self._right, key)

    def known(self, key: bytes) -> bool:
        """Whether the key with that digest was right lately; it is still to be looked up."""
        return key in self._right

    @property
    def addresses(self) -> int:
        """How many addresses are counted."""
        return len(self._failures)


def _kept(table: "OrderedDict[K, V]", key: K) -> None:
    table.move_to_end(key)
    if len(table) > _MOST_KNOWN:
        table.popitem(last=False)
