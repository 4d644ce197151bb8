"""What cells said and were answered, on its way into the session's file."""

import logging
from collections.abc import Collection, Mapping

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.model import CellText
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.services.about import about

logger = logging.getLogger(__name__)

_MOST = 64  # texts that wait
_MOST_CHARACTERS = 1_000_000  # of them together


class Texts:
    """Kept for a moment and written together: no answer waits for them, and what a crash takes is only text."""

    def __init__(self, key: str, pieces: Pieces) -> None:
        self._key = key
        self._pieces = pieces
        self._waiting: dict[int, CellText] = {}

    @property
    def many(self) -> bool:
        """Whether it is time to write them."""
        size = sum(len(text.code) + len(text.output) + len(text.rest) for text in self._waiting.values())
        return len(self._waiting) >= _MOST or size >= _MOST_CHARACTERS

    def add(self, text: CellText) -> None:
        """Take one more."""
        self._waiting[text.number] = text

    def find(self, number: int) -> CellText | None:
        """That one, where it still waits."""
        return self._waiting.get(number)

    async def write(self) -> None:
        """Write what waits. Where that fails it is tried again with the next ones, until there are too many."""
        waiting = dict(self._waiting)
        if not waiting:
            return
        try:
            await self._pieces.note_cells(self._key, tuple(waiting.values()))
        except OrchestratorError as error:
            logger.warning("the text of %d cells is not stored: %s", len(waiting), error, extra=about(self._key))
            if not self.many:
                return
        for number, text in waiting.items():
            if self._waiting.get(number) is text:
                del self._waiting[number]

    async def codes(self, numbers: Collection[int]) -> Mapping[int, str]:
        """The code of those executions, as far as it is kept."""
        found = {number: self._waiting[number].code for number in numbers if number in self._waiting}
        others = [number for number in numbers if number not in found]
        if others:
            try:
                found.update({text.number: text.code for text in await self._pieces.cells(self._key, others)})
            except OrchestratorError as error:
                logger.warning("the text of cells cannot be read: %s", error, extra=about(self._key))
        # Of one that outlived its owner nobody has the code any more.
        return {number: code for number, code in found.items() if code}
