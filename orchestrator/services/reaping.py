"""What the quick loop and the slow one would do, together: shown, or done at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.ports import Engine, OwnedContainer
from orchestrator.domain.upkeep import Due
from orchestrator.services.reaper import Reaper
from orchestrator.services.sweeper import Sweeper


@dataclass(frozen=True, slots=True)
class Reaping:
    """The two of them."""

    reaper: Reaper
    sweeper: Sweeper
    engine: Engine

    async def due(self) -> Due:
        """What would be done now, and what is withheld and why; changes nothing."""
        due = await self.sweeper.due()
        return Due((*self.reaper.due(), *due.actions), due.withheld)

    async def reap(self) -> None:
        """Do it now: sessions in use are begun with, the rest is done when this returns."""
        self.reaper.look()
        await self.sweeper.round()

    async def containers(self) -> Sequence[OwnedContainer]:
        """All of this installation, as the engine has them. Raises EngineUnavailableError."""
        return await self.engine.containers()

    async def remove(self, sandbox_id: str) -> None:
        """End a sandbox from outside: its session finds it lost. Raises EngineUnavailableError."""
        await self.engine.destroy(sandbox_id)
