"""Which transport reaches a sandbox here: found by trying with a throw-away one, and remembered."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from orchestrator.domain.errors import EngineUnavailableError

logger = logging.getLogger(__name__)

ChannelKind = Literal["unix", "attach"]

_BEST_FIRST: Final[tuple[ChannelKind, ...]] = ("unix", "attach")


async def choose_channel(
    key: str,
    *,
    attempt: Callable[[ChannelKind], Awaitable[None]],
    recall: Callable[[str], Awaitable[str | None]],
    remember: Callable[[str, str], Awaitable[None]],
) -> ChannelKind:
    """The first kind that `attempt` does not fail for, or what was remembered under `key`.

    Raises EngineUnavailableError where no kind works; that is not remembered.
    """
    remembered = await recall(key)
    for kind in _BEST_FIRST:
        if kind == remembered:
            return kind
    reasons = []
    for kind in _BEST_FIRST:
        try:
            await attempt(kind)
        except EngineUnavailableError as failure:
            logger.info("a sandbox can not be reached by %s: %s", kind, failure.message)
            reasons.append(f"{kind}: {failure.message}")
        else:
            await remember(key, kind)
            return kind
    raise EngineUnavailableError(
        f"No way to reach a sandbox works ({' '.join(reasons)})",
        hint="Look at the engine's log; run `orchestrator image build` where the image is old.",
    )
