"""What the quick loop and the slow one would do, together: shown, or done at once."""

from dataclasses import dataclass

from orchestrator.domain.upkeep import Due
from orchestrator.services.reaper import Reaper
from orchestrator.services.sweeper import Sweeper


@dataclass(frozen=True, slots=True)
class Reaping:
    """The two of them."""

    reaper: Reaper
    sweeper: Sweeper

    async def due(self) -> Due:
        """What would be done now, and what is withheld and why; changes nothing."""
        due = await self.sweeper.due()
        return Due((*self.reaper.due(), *due.actions), due.withheld)

    async def reap(self) -> None:
        """Do it now: sessions in use are begun with, the rest is done when this returns."""
        self.reaper.look()
        await self.sweeper.round()
