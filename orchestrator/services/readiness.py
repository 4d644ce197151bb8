"""Whether a call that came now could be served: each part that it needs, looked at."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.ports import Engine, Records

logger = logging.getLogger(__name__)

_SECONDS = 5.0  # that a part has for its answer


class Readiness:
    """Asks; what is found wrong goes to the log, since whoever asks may be a stranger."""

    def __init__(self, engine: Engine, records: Records) -> None:
        self._engine = engine
        self._records = records

    async def look(self) -> Mapping[str, bool]:
        """Each part by name, and whether it is there."""
        parts: dict[str, Awaitable[object]] = {
            "engine": self._engine.containers(),
            "store": self._records.sessions(LOCAL_TENANT),
            "image": self._engine.prepare(),
        }
        found = await asyncio.gather(*(_answers(name, part) for name, part in parts.items()))
        return dict(zip(parts, found, strict=True))


async def _answers(name: str, part: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            await part
    except TimeoutError:
        logger.warning("not ready: %s does not answer", name)
        return False
    except OrchestratorError as failure:
        logger.warning("not ready: %s: %s", name, failure)
        return False
    return True
