"""How long files of no session are kept that were set aside: by time that counts, like sessions. Pure."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

KEPT: Final = 30 * 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class DropAside:
    """Delete what was set aside."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Asides:
    """At which count each of them was first seen."""

    since: Mapping[str, float]

    def next(self, counted: float, paths: Collection[str]) -> "Asides":
        """One look on: what is gone is forgotten. None has been seen later than now: records may come from a backup."""
        return Asides({path: min(self.since.get(path, counted), counted) for path in paths})

    def due(self, counted: float) -> list[DropAside]:
        """What has lain there for long enough."""
        return [
            DropAside(path, f"set aside for {(counted - since) / 86_400:.0f} days")
            for path, since in self.since.items()
            if counted - since >= KEPT
        ]

    @property
    def text(self) -> str:
        """As the records remember it."""
        return json.dumps(self.since, sort_keys=True)

    @staticmethod
    def of(text: str | None) -> "Asides":
        """What they remembered; nothing at first."""
        return Asides(json.loads(text) if text else {})
