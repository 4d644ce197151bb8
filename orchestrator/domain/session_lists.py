"""Sessions of all tenants as an operator lists them. The port's docstrings are its contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.model import Session


@dataclass(frozen=True, slots=True)
class Listed:
    """A session, and where it stands in the list: what the next page begins after."""

    place: int
    session: Session


class SessionLists(Protocol):
    """Rules as for `Records`."""

    async def page(
        self, *, tenant: str | None = None, state: str | None = None, after: int = 0, limit: int = 500
    ) -> Sequence[Listed]:
        """The sessions after that place, in the order in which they were made, in whatever state; of one tenant, or in
        one state. What it costs does not grow with the pages before it. Places stay but for a VACUUM, across which a
        list may lack sessions or tell them twice.
        """

    async def states(self) -> Mapping[str, int]:
        """How many sessions there are in each state; those with none are not named."""
