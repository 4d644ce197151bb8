"""From a sandbox's record to its agent's hello: create, start, and listen meanwhile."""

import asyncio
import logging
import math
import time
from pathlib import Path
from typing import Any, Final

import docker

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.attach_transport import AttachTransport
from orchestrator.adapters.channel.transport import Transport, TransportError
from orchestrator.adapters.channel.unix_transport import UnixTransport
from orchestrator.adapters.engine.access import EngineAccess
from orchestrator.adapters.engine.channel_probe import ChannelKind
from orchestrator.adapters.engine.endings import SAID_BY, by_times, ended_at, is_doubtful, require_running
from orchestrator.adapters.engine.failures import EngineSilentError
from orchestrator.adapters.engine.lanes import Lane
from orchestrator.domain.errors import EngineUnavailableError, SandboxLostError
from orchestrator.domain.hardening import Isolation, SandboxProfile, container_name, container_spec
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import CREATE_BOUND, Clock, SandboxImage

LAUNCH_SECONDS: Final = 30.0
INSPECT_SECONDS: Final = 15.0
_STARTS_AT_ONCE: Final = 4  # more at once do not start faster
_HELLO_USUALLY_SECONDS: Final = 0.2  # after a start; asking meanwhile whether it runs would only hold up its hello

logger = logging.getLogger(__name__)


class Launcher:
    """What all launches of an installation have in common. `asking` is the lane for looks at containers."""

    def __init__(
        self,
        access: EngineAccess,
        asking: Lane,
        *,
        installation: str,
        profile: SandboxProfile,
        isolation: Isolation,
        channel_parent: Path,
        clock: Clock,
    ) -> None:
        self.access = access
        self.asking = asking
        self.starting = Lane("start", limit=_STARTS_AT_ONCE)
        self.installation = installation
        self._profile = profile
        self._isolation = isolation
        self._channel_parent = channel_parent
        self._clock = clock

    def begin(self, record: SandboxRecord, kind: ChannelKind, profile: SandboxProfile | None = None) -> "Launch":
        """A launch of which nothing is made yet; with these limits, None: the usual ones."""
        return Launch(self, record, self.transport(record, kind), profile or self._profile)

    def spec(
        self, record: SandboxRecord, image: SandboxImage, transport: Transport, profile: SandboxProfile
    ) -> dict[str, Any]:
        """The body of the create request."""
        return container_spec(
            installation=self.installation,
            sandbox_id=record.id,
            uid=record.uid,
            secret=record.secret,
            image=image.tag,
            environment=image.environment,
            created=int(self._clock.now().timestamp()),
            profile=profile,
            isolation=self._isolation,
            channel=transport.channel,
        )

    async def look(self, name: str) -> dict[str, Any] | None:
        """What the engine says of that container; None where there is none."""

        def look() -> dict[str, Any] | None:
            found = self.access.inspect(name)
            if found is None or not is_doubtful(found):
                return found
            return by_times(found, *self.access.ran_out_of_memory(found["Id"], until=ended_at(found) + SAID_BY))

        return await self.asking.call(look, seconds=INSPECT_SECONDS, doing="Looking at a sandbox")

    def transport(self, record: SandboxRecord, kind: ChannelKind, *, parent: Path | None = None) -> Transport:
        """The way to that sandbox's agent; `parent` is where its channel's directory lies, None: where new ones do."""
        if kind == "unix":
            return UnixTransport(parent=parent or self._channel_parent, sandbox_id=record.id, secret=record.secret)
        name = container_name(record.id)
        return AttachTransport(
            attach=lambda deadline: self.access.attach(name, deadline), sandbox_id=record.id, secret=record.secret
        )


class Launch:
    """What this process makes for one sandbox, kept until the sandbox is destroyed."""

    def __init__(
        self, launcher: Launcher, record: SandboxRecord, transport: Transport, profile: SandboxProfile
    ) -> None:
        self.channel: AgentChannel | None = None
        self._launcher = launcher
        self._profile = profile
        self._record = record
        self._transport = transport
        self._began = time.monotonic()
        self._creating: asyncio.Future[str] | None = None
        self._looked_at_from = math.inf
        self._ended: str | None = None

    async def run(self, image: SandboxImage, *, hello_seconds: float) -> tuple[str, AgentChannel]:
        """Handle and agent. Raises EngineUnavailableError; a container may then exist or still appear."""
        try:
            async with asyncio.timeout(LAUNCH_SECONDS):
                handle = await self._create(image)
                self.channel = await self._start(handle, hello_seconds)
        except TimeoutError as error:
            self.end("it did not come up in time")
            raise EngineUnavailableError("A sandbox did not come up in time.") from error
        except (SandboxLostError, TransportError) as error:
            self.end("it did not come up")
            raise EngineUnavailableError(
                f"A sandbox did not come up: {error}", hint="Look at the engine's log, or try again."
            ) from error
        except BaseException:
            self.end("its launch was given up")
            raise
        return handle, self.channel

    def end(self, reason: str) -> None:
        """Let go of the channel; the first reason stays."""
        self._ended = self._ended or reason
        self._transport.close()
        if self.channel is not None:
            self.channel.give_up(reason)

    def remove_directory(self) -> None:
        """Take away the channel's directory, once the container is gone. Blocking."""
        self._transport.remove()

    async def create_settled(self) -> None:
        """Wait until it is known whether the container exists: the engine has answered, or will not any more."""
        if self._creating is not None and not self._creating.done():
            await asyncio.wait({self._creating}, timeout=self._until_create_bound())

    @property
    def create_unanswered(self) -> bool:
        """Whether a container may appear although nobody waits for an answer any more."""
        return self._creating is not None and (
            not self._creating.done()
            or self._creating.cancelled()
            or isinstance(self._creating.exception(), EngineSilentError)
        )

    async def create_bound_passed(self) -> None:
        """Wait until a create that was never answered has come through or never will."""
        await asyncio.sleep(self._until_create_bound())

    def _until_create_bound(self) -> float:
        return max(0.0, self._began + CREATE_BOUND - time.monotonic())

    async def _create(self, image: SandboxImage) -> str:
        spec = self._launcher.spec(self._record, image, self._transport, self._profile)
        name = container_name(self._record.id)

        def create() -> str:
            self._transport.open()
            return self._launcher.access.change("Creating a sandbox", lambda api: _create(api, spec, name))

        def began(call: asyncio.Future[str]) -> None:
            self._creating = call

        starting = self._launcher.starting
        return await starting.call(create, seconds=LAUNCH_SECONDS, doing="Creating a sandbox", began=began)

    async def _start(self, handle: str, hello_seconds: float) -> AgentChannel:
        if self._ended is not None:
            raise TransportError(self._ended)

        async def runs() -> bool:
            if time.monotonic() >= self._looked_at_from:
                require_running(await self._launcher.look(handle))
            return True

        def start() -> int:
            # Asked again as often as it falters: starting what runs already changes nothing.
            self._launcher.access.ask("Starting a sandbox", lambda api: api.start(handle))
            found = self._launcher.access.inspect(handle)
            return int(found["State"]["Pid"]) if found else 0

        # Listens while the engine starts it: the agent's first try to connect is not in vain.
        opening = asyncio.create_task(
            AgentChannel.open(self._transport, seconds=LAUNCH_SECONDS, is_running=runs), name="agent-hello"
        )
        try:
            pid = await self._launcher.starting.call(start, seconds=LAUNCH_SECONDS, doing="Starting a sandbox")
            self._transport.admit(pid)
            self._looked_at_from = time.monotonic() + _HELLO_USUALLY_SECONDS
            async with asyncio.timeout(hello_seconds):
                return await opening
        except BaseException:
            self._transport.close()
            opening.cancel()
            await asyncio.wait({opening}, timeout=1)
            raise


def _create(api: docker.APIClient, spec: dict[str, Any], name: str) -> str:
    made = api.create_container_from_config(spec, name)  # type: ignore[no-untyped-call]
    for warning in made.get("Warnings") or ():
        logger.warning("the engine warns of a new sandbox: %s", warning)
    return str(made["Id"])
