"""What the engine really enforces: asked of a throw-away sandbox, kept, and held against what is required.

Before an image is answered to anybody, so that no cell runs in a sandbox of which this is not known.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.adapters.engine.channel_probe import ChannelKind
from orchestrator.adapters.engine.launch import LAUNCH_SECONDS
from orchestrator.adapters.engine.throwaways import Throwaways
from orchestrator.domain.enforcement import kept_answer, missing, require_enforced, with_answer
from orchestrator.domain.errors import EngineUnavailableError, OrchestratorError, SandboxLostError
from orchestrator.domain.model import CellOrder, CellReport
from orchestrator.domain.ports import SandboxImage
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Finding, Wanted, cell, judged, probing_profile

logger = logging.getLogger(__name__)

KEPT_AS: Final = "what the engine enforces"  # in the records
_CELL_SECONDS: Final = 30.0
# With cgroup v2 the kernel now and then kills the worker after what it has killed for taking too much: it decides that
# while all that memory comes back (seen on Linux 6.12, at 20 of 256 MiB). Nothing is wrong with such a sandbox.
_TRIES: Final = 3
_MOST_PRINTED: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, and what the engine said of the container, {} where the answer had been kept."""

    findings: tuple[Finding, ...]
    container: Mapping[str, Any]


class Verification:
    """`look` asks the engine for a container."""

    def __init__(
        self,
        throwaways: Throwaways,
        look: Callable[[str], Awaitable[Mapping[str, Any] | None]],
        wanted: Wanted,
        recall: Callable[[str], Awaitable[str | None]],
        remember: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._throwaways = throwaways
        self._look = look
        self._wanted = replace(wanted, profile=probing_profile(wanted.profile))
        self._allowed = wanted.isolation.allowed
        self._recall, self._remember = recall, remember
        self.seen: dict[str, Seen] = {}  # by the image's tag

    async def require(self, image: SandboxImage, kind: ChannelKind, key: str) -> None:
        """Return when all that is required is known to hold, by what was kept under `key` or by asking.

        Raises NotEnforcedError where it does not, which is not kept: whoever mends it need not wait. Warns of what the
        operator does without. Raises EngineUnavailableError where it could not be found out.
        """
        kept = kept_answer(await self._recall(KEPT_AS), key, PROBES)
        if kept is None or any(one.name not in self._allowed for one in missing(kept)):
            kept = None  # asked again where it has to be refused: somebody may have mended it
            self.seen[image.tag] = await self._ask(image, kind)
        else:
            self.seen[image.tag] = Seen(kept, {})
        findings = self.seen[image.tag].findings
        for lacking in require_enforced(findings, self._allowed):
            logger.warning("NOT ENFORCED, and allowed to be so: %s. %s", lacking.sentence, lacking.remedy)
        for lacking in (one for one in findings if not one.required and one.remedy):
            logger.warning("not enforced, and not required: %s. %s", lacking.sentence, lacking.remedy)
        if kept is None:
            await self._keep(key, findings)

    async def _keep(self, key: str, findings: Sequence[Finding]) -> None:
        """Records that cannot be written cost the next start a second, and this one nothing."""
        try:
            await self._remember(KEPT_AS, with_answer(await self._recall(KEPT_AS), key, findings))
        except OrchestratorError as error:
            logger.warning("what the engine enforces is not kept: %s", error)

    async def _ask(self, image: SandboxImage, kind: ChannelKind) -> Seen:
        for _ in range(_TRIES):
            report, container = await self._probe(image, kind)
            if report.outcome != "oom":
                break
        if report.outcome != "ok":
            raise _not_found_out(f"the probes ended as {report.outcome}")
        return Seen(judged(PROBES, self._wanted, printed=report.output_head, inspected=container), container)

    async def _probe(self, image: SandboxImage, kind: ChannelKind) -> tuple[CellReport, Mapping[str, Any]]:
        wanted = self._wanted
        order = CellOrder(1, cell(PROBES, wanted), _CELL_SECONDS, 1.0, _MOST_PRINTED, 0)
        try:
            async with self._throwaways.one(image, kind, hello_seconds=LAUNCH_SECONDS, profile=wanted.profile) as (
                handle,
                agent,
            ):
                await agent.claim("probes", 1)
                return await agent.execute(order), await self._look(handle) or {}
        except SandboxLostError as error:
            raise _not_found_out(error.message) from error


def _not_found_out(why: str) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"What the engine enforces could not be found out: {why.rstrip('.')}.",
        hint="Try again; `orchestrator doctor` tries the same and says more.",
    )
