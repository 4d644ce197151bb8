"""What sandboxes take of the processor between their sessions' cells: threads and processes that cells leave behind."""

from collections.abc import Awaitable, Callable

from orchestrator.domain.model import Session

Hear = Callable[[Session, float], Awaitable[None]]


class Spent:
    """Told when a session goes to sleep; whoever counts for tenants listens."""

    def __init__(self) -> None:
        self._hear: Hear | None = None

    def heard_by(self, hear: Hear) -> None:
        """From now on."""
        self._hear = hear

    async def between(self, session: Session, cpu: float) -> None:
        """So many seconds that no answer has told."""
        if self._hear is not None:
            await self._hear(session, cpu)
