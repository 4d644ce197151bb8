"""Which image a sandbox starts from: looked for, made where its agent is an old one, and remembered for a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import docker

from orchestrator.adapters.engine.access import EngineAccess
from orchestrator.adapters.engine.lanes import Lane
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.ports import SandboxImage

PREPARED_SECONDS: Final = 5.0  # for how long an answer is not asked for again
FIND_SECONDS: Final = 15.0
PUT_AGENT_SECONDS: Final = 120.0  # a second or two, and a minute of waiting for another build
CLOSE_SECONDS: Final = 60.0

FindImage = Callable[[docker.APIClient, str | None], SandboxImage | None]
PutAgent = Callable[[docker.APIClient, str], SandboxImage | None]


class ImageChoice:
    """Callers who ask for one environment share one attempt, so that a stuck engine holds each of them up once.

    `find` looks for the image of an environment, or (None) the default one, and answers None where it is not there;
    `put_agent` makes that of an environment, and answers None where the engine has that environment no more. Both
    block and run in threads. `settle` is awaited for each image before it is answered.
    """

    def __init__(
        self,
        access: EngineAccess,
        lane: Lane,
        *,
        find: FindImage,
        put_agent: PutAgent,
        settle: Callable[[SandboxImage], Awaitable[object]],
    ) -> None:
        self._access = access
        self._finding = lane
        self._building = Lane("build", limit=4)  # those that build take turns by the build's own lock
        self._find = find
        self._put_agent = put_agent
        self._settle = settle
        self._choosing: dict[str | None, asyncio.Task[SandboxImage]] = {}
        self._chosen: dict[str | None, tuple[SandboxImage, float]] = {}

    async def of(self, environment: str | None) -> SandboxImage:
        """The image of that environment with the current agent; the default one for None and for what is gone."""
        chosen = self._chosen.get(environment)
        if chosen is not None and time.monotonic() < chosen[1]:
            return chosen[0]
        if environment not in self._choosing:
            choosing = asyncio.create_task(self._choose(environment), name="engine-prepare")
            self._choosing[environment] = choosing
            choosing.add_done_callback(lambda task: self._ended(environment, task))
        return await asyncio.shield(self._choosing[environment])

    def forget(self, image: SandboxImage) -> None:
        """It is not there any more: look anew when asked again."""
        self._chosen = {name: chosen for name, chosen in self._chosen.items() if chosen[0].tag != image.tag}

    async def close(self) -> None:
        """Ask nothing any more. A build that was begun ends by itself."""
        choosing = set(self._choosing.values())
        for task in choosing:
            task.cancel()
        if choosing:
            await asyncio.wait(choosing, timeout=CLOSE_SECONDS)

    async def _choose(self, environment: str | None) -> SandboxImage:
        image = await self._found(environment)
        if image is None and environment is not None:
            image = await self._with_agent(environment) or await self.of(None)
        if image is None:
            raise EngineUnavailableError(
                "The engine does not have the sandbox image.", hint="Run `orchestrator image build`."
            )
        await self._settle(image)
        now = time.monotonic()
        self._chosen = {name: chosen for name, chosen in self._chosen.items() if now < chosen[1]}
        self._chosen[environment] = image, now + PREPARED_SECONDS
        return image

    async def _found(self, environment: str | None) -> SandboxImage | None:
        doing = "Looking for the sandbox image"
        return await self._finding.call(
            lambda: self._access.ask(doing, lambda api: self._find(api, environment)), seconds=FIND_SECONDS, doing=doing
        )

    async def _with_agent(self, environment: str) -> SandboxImage | None:
        doing = "Putting the current agent on an environment"
        return await self._building.call(
            lambda: self._access.ask(doing, lambda api: self._put_agent(api, environment)),
            seconds=PUT_AGENT_SECONDS,
            doing=doing,
        )

    def _ended(self, environment: str | None, task: asyncio.Task[SandboxImage]) -> None:
        self._choosing.pop(environment, None)
        if not task.cancelled():
            task.exception()  # told to who waits; nobody may
