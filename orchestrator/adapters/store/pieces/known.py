"""Where pieces lie, by raw digest: packed, since a hostile session may have a hundred thousand small ones."""

import struct
from collections.abc import Callable
from typing import Final

from orchestrator.adapters.store.pieces.manifest_rows import Located, Packed, located

# Row id, sizes raw and stored, encoding, digest of the host: some 200 bytes for each piece, with the dictionary's own.
_PLACE: Final = struct.Struct(">QIIB16s")


class Known:
    """Grows and never shrinks; the first place of a digest stays. Changed by one thread while no other one reads."""

    def __init__(self) -> None:
        self._places: dict[bytes, bytes] = {}

    def get(self, raw_digest: str) -> Located | None:
        """Where that piece lies."""
        raw = bytes.fromhex(raw_digest)
        place = self._places.get(raw)
        if place is None:
            return None
        row, raw_size, stored_size, encoding, host = _PLACE.unpack(place)
        return located((row, raw_size, stored_size, encoding, raw, host))

    def add(self, packed: Packed) -> None:
        """Remember it, unless there is one of that digest."""
        row, raw_size, stored_size, encoding, raw, host = packed
        if raw not in self._places:
            self._places[raw] = _PLACE.pack(row, raw_size, stored_size, encoding, host)


def in_either(first: Known, second: Known) -> Callable[[str], Located | None]:
    """Looks a raw digest up in both, without making one of them."""
    return lambda raw_digest: first.get(raw_digest) or second.get(raw_digest)
