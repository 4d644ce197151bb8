"""What the supervisor remembers from one save to the next. Not the worker: that may be an older copy of itself."""

from collections.abc import Sequence
from typing import Any

_DIGEST_SIZE = 16
_MAX_REHEARSED = 100_000 * _DIGEST_SIZE  # bytes
_TIMES_LEFT_OUT = 4  # saves in which a value that hung or crashed is not tried again, while it stands unbound

NAMESPACE, WORKSPACE = "namespace", "workspace"


class SaveMemory:
    """Raw digests that the host has, by snapshot; digests of groups that load; values that are better not tried."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], dict[str, bytearray | bytes]] = {}  # by snapshot and seed
        self.rehearsed = b""
        self._refused: dict[str, tuple[list[Any], int]] = {}

    def known(self, head: int | None, seed: int) -> bytes:
        """The digests of that snapshot, side by side; all others but the head's are forgotten."""
        found = {key: value for key, value in self._known.items() if key == (head, seed)}
        self._known = found
        return b"".join(b"".join(sections.values()) for sections in found.values())

    def came(self, snapshot: int, seed: int, section: str, digest: bytes) -> None:
        """A piece of that snapshot has come from the host."""
        sections = self._known.setdefault((snapshot, seed), {})
        gathered = sections.setdefault(section, bytearray())
        if isinstance(gathered, bytearray):
            gathered += digest

    def restoring(self, snapshot: int, seed: int, section: str) -> None:
        """What comes of that section from here on is all of it."""
        self._known.setdefault((snapshot, seed), {})[section] = bytearray()

    def saved(self, snapshot: int, seed: int, head: int | None, namespace: bytes, workspace: bytes | None) -> None:
        """A snapshot was made; where it has no files, those of the head stand."""
        before = self._known.get((head, seed), {}) if head is not None else {}
        files = before.get(WORKSPACE, b"") if workspace is None else workspace
        self._known[snapshot, seed] = {NAMESPACE: namespace, WORKSPACE: files}

    def note_rehearsed(self, digests: bytes) -> None:
        """Groups that need no rehearsal next time."""
        self.rehearsed = digests if len(digests) <= _MAX_REHEARSED else b""

    def refused(self) -> list[list[Any]]:
        """Rows of values that hung or ended a process, for the next save."""
        return [row for row, _ in self._refused.values()]

    def note_refused(self, rows: Sequence[Sequence[Any]], *, tried: bool = True) -> None:
        """What the save that has just ended left out; each is tried again after some saves that came to an end."""
        before = self._refused
        self._refused = {}
        for label, why, identity, kind in rows:
            row = [label, why, identity, kind]
            last, times = before.get(label, (None, 0))
            if last != row:
                times = 0
            if times < _TIMES_LEFT_OUT or not tried:
                self._refused[label] = row, times + int(tried)
