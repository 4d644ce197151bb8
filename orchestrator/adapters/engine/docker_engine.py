"""The `Engine` port over a Docker Engine."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.unix_transport import channel_directory, remove_channel_directory
from orchestrator.adapters.engine.access import EngineAccess
from orchestrator.adapters.engine.channel_probe import ChannelKind, choose_channel
from orchestrator.adapters.engine.endpoint import Probe
from orchestrator.adapters.engine.failures import EngineConflictError
from orchestrator.adapters.engine.image_choice import FindImage, ImageChoice, PutAgent
from orchestrator.adapters.engine.isolation import require
from orchestrator.adapters.engine.lanes import Lane
from orchestrator.adapters.engine.launch import LAUNCH_SECONDS, Launch, Launcher
from orchestrator.adapters.engine.survivor import Survivor
from orchestrator.adapters.engine.throwaways import REMOVE_SECONDS, Throwaways
from orchestrator.adapters.engine.verification import Seen, Verification
from orchestrator.domain.enforcement import answer_key
from orchestrator.domain.errors import EngineUnavailableError, ImageGoneError
from orchestrator.domain.hardening import (
    LABEL_INSTALLATION,
    LABEL_SANDBOX,
    Isolation,
    SandboxProfile,
    container_name,
    resource_limits,
)
from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import Clock, OwnedContainer, SandboxImage
from orchestrator.domain.probing import Wanted

PROBE_HELLO_SECONDS: Final = 5.0
ASK_SECONDS: Final = 15.0
SETTLED_SECONDS: Final = 60.0  # for how long an engine is believed to be the same, which costs a question of some 10 ms
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class _Settled:
    """What is known of an image's sandboxes, for an engine that says that of itself."""

    kind: ChannelKind
    key: str
    until: float  # by the monotonic clock


class DockerEngine:
    """Creates, reaches and removes sandboxes, all under the label of one installation.

    `find` looks for an engine and blocks in a thread, as do `image_of` and `put_agent`, which `ImageChoice` explains.
    `channel_parent` is a short path on this host's tmpfs, private to this installation. `recall` and `remember` keep
    what probes found out, by engine, boot and image.
    """

    def __init__(
        self,
        *,
        installation: str,
        find: Callable[[], Probe],
        image_of: FindImage,
        put_agent: PutAgent,
        profile: SandboxProfile,
        isolation: Isolation,
        channel_parent: Path,
        channel: Literal["auto", "unix", "attach"],
        clock: Clock,
        recall: Callable[[str], Awaitable[str | None]],
        remember: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._installation = installation
        self._channel_parent, self._channel = channel_parent, channel
        self._profile, self.isolation = profile, isolation
        self._recall, self._remember = recall, remember
        self._access = EngineAccess(find)
        # Reserved for removing and listing: no crowd of starts or questions holds these up, be the engine stuck there.
        self._tending, self._asking = Lane("tend", limit=4), Lane("ask", limit=4)
        self._launcher = Launcher(
            self._access,
            self._asking,
            installation=installation,
            profile=profile,
            isolation=isolation,
            channel_parent=channel_parent,
            clock=clock,
        )
        self._launches: dict[str, Launch | Survivor] = {}
        self._images = ImageChoice(self._access, self._asking, find=image_of, put_agent=put_agent, settle=self._settle)
        self._throwaways = Throwaways(self._launch, self._destroy_throwaway)
        self._verification = Verification(
            self._throwaways, self._launcher.look, Wanted(profile, isolation), recall, remember
        )
        self._closing = Lane("close", limit=1)  # at the end nothing that hangs may be in its way
        self._settled: dict[str, _Settled] = {}  # by image; of those that are known to be isolated as they must
        self._settling = asyncio.Lock()

    async def prepare(self, environment: str | None = None) -> SandboxImage:
        """The image for new sandboxes: of that environment while the engine has it, else the default one."""
        return await self._images.of(environment)

    def found_out(self, image: SandboxImage) -> tuple[ChannelKind, Seen]:
        """What was found out before that image was answered: which channel reaches its sandboxes, what is enforced."""
        return self._settled[image.tag].kind, self._verification.seen[image.tag]

    async def launch(self, record: SandboxRecord, image: SandboxImage) -> tuple[str, AgentChannel]:
        """Create, start, and wait for the hello."""
        try:
            return await self._launch(record, image, await self._settle(image), hello_seconds=LAUNCH_SECONDS)
        except ImageGoneError:
            self._images.forget(image)
            raise

    async def adopt(self, record: SandboxRecord) -> tuple[str, AgentChannel]:
        """Reach a container that an earlier owner has left alive."""
        earlier = self._launches.get(record.id)
        if isinstance(earlier, Launch):
            raise EngineConflictError(f"The sandbox {record.id} was launched here.")
        if earlier is not None:
            earlier.end("it is reached anew")
        survivor = self._launches[record.id] = Survivor(self._launcher, record)
        try:
            return await survivor.reach()
        except BaseException:
            if self._launches.get(record.id) is survivor:
                del self._launches[record.id]
            raise

    async def limit(self, sandbox_id: str, profile: SandboxProfile) -> None:
        """Other memory and cpus than the spec has: an update of the container that runs."""
        name, limits = container_name(sandbox_id), resource_limits(profile)
        await self._tending.call(
            lambda: self._access.update(name, limits), seconds=ASK_SECONDS, doing="Limiting a sandbox"
        )

    async def destroy(self, sandbox_id: str) -> None:
        """Remove the container and the channel's directory."""
        launch = self._launches.get(sandbox_id)
        if launch is not None:
            launch.end("its container was removed")
            await launch.create_settled()
        labels = {LABEL_INSTALLATION: self._installation, LABEL_SANDBOX: sandbox_id}
        directory = channel_directory(self._channel_parent, sandbox_id)

        def remove() -> None:
            if not self._access.remove(container_name(sandbox_id), labels):
                return  # another installation's, and so is its channel
            remove_channel_directory(directory)
            if launch is not None:
                launch.remove_directory()

        await self._tending.call(remove, seconds=REMOVE_SECONDS, doing="Removing a sandbox")
        if launch is None or not launch.create_unanswered:
            self._launches.pop(sandbox_id, None)

    async def create_unanswered(self, sandbox_id: str) -> bool:
        """Whether the engine has left a create of it without an answer, asked after `destroy`."""
        launch = self._launches.get(sandbox_id)
        if launch is None or not launch.create_unanswered:
            return False
        await launch.create_bound_passed()
        self._launches.pop(sandbox_id, None)
        return True

    async def containers(self) -> Sequence[OwnedContainer]:
        """All containers with this installation's label, by one request."""
        label = f"{LABEL_INSTALLATION}={self._installation}"
        doing = "Listing the sandboxes"
        rows = await self._tending.call(
            lambda: self._access.ask(doing, lambda api: api.containers(all=True, filters={"label": [label]})),
            seconds=ASK_SECONDS,
            doing=doing,
        )
        return [_owned(row, self._launches) for row in rows]

    async def close(self) -> None:
        """Let go of everything; sandboxes stay. Cancelling cuts short only the waiting for probes of the channel."""
        try:
            await self._images.close()
            await self._throwaways.removed()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        launches, self._launches = self._launches, {}
        channels = [launch.channel for launch in launches.values() if launch.channel is not None]
        for launch in launches.values():
            launch.end("its connection was closed")
        await asyncio.gather(*(channel.close() for channel in channels))
        with contextlib.suppress(EngineUnavailableError):  # stuck calls, which end with the process
            await self._closing.call(self._access.close, seconds=ASK_SECONDS, doing="Closing the engine's client")

    async def _launch(
        self,
        record: SandboxRecord,
        image: SandboxImage,
        kind: ChannelKind,
        *,
        hello_seconds: float,
        profile: SandboxProfile | None = None,
    ) -> tuple[str, AgentChannel]:
        if record.id in self._launches:
            raise EngineConflictError(f"The sandbox {record.id} was launched before.")
        launch = self._launcher.begin(record, kind, profile)
        self._launches[record.id] = launch
        return await launch.run(image, hello_seconds=hello_seconds)

    # what is known of an image before anything runs on it

    async def _settle(self, image: SandboxImage) -> ChannelKind:
        """Which channel reaches its sandboxes, once it is known that the engine isolates these as it must."""
        async with self._settling:  # whoever asks meanwhile need not have it found out twice
            known = self._settled.get(image.tag)
            if known is None or time.monotonic() > known.until:
                known = self._settled[image.tag] = await self._find_out(image, known)
            return known.kind

    async def _find_out(self, image: SandboxImage, known: _Settled | None) -> _Settled:
        """An engine may be another one, or set up anew, under a process that goes on: then all is asked again."""
        info = await self._info("Asking the engine what it can do")
        boot = await self._asking.call(_boot_id, seconds=ASK_SECONDS, doing="Reading the boot's id")
        key = self._answer_key(image, info, boot)
        if known is not None and known.key == key:
            return _Settled(known.kind, key, time.monotonic() + SETTLED_SECONDS)
        self._settled.pop(image.tag, None)
        require(self._profile, self.isolation, info)
        kind = self._channel if self._channel != "auto" else await self._probed_kind(image, info, boot)
        await self._verification.require(image, kind, key)
        return _Settled(kind, key, time.monotonic() + SETTLED_SECONDS)

    def _answer_key(self, image: SandboxImage, info: dict[str, Any], boot: str) -> str:
        profile, isolation = self._profile, self.isolation
        return answer_key(info, boot=boot, image=image, profile=profile, isolation=isolation, swap=_swap())

    async def _info(self, doing: str) -> dict[str, Any]:
        info: dict[str, Any] = await self._asking.call(
            lambda: self._access.ask(doing, lambda api: api.info()), seconds=ASK_SECONDS, doing=doing
        )
        return info

    async def _probed_kind(self, image: SandboxImage, info: dict[str, Any], boot: str) -> ChannelKind:
        async def attempt(kind: ChannelKind) -> None:
            await self._try_channel(kind, image)

        runtime = self.isolation.runtime or ""
        key = f"channel:{info.get('ID', '')}:{boot}:{image.tag}:{self._channel_parent}:{runtime}"
        return await choose_channel(key, attempt=attempt, recall=self._recall, remember=self._remember)

    async def _try_channel(self, kind: ChannelKind, image: SandboxImage) -> None:
        async with self._throwaways.one(image, kind, hello_seconds=PROBE_HELLO_SECONDS):
            pass  # it has connected and proven itself

    async def _destroy_throwaway(self, sandbox_id: str) -> None:
        await self.destroy(sandbox_id)
        if await self.create_unanswered(sandbox_id):
            await self.destroy(sandbox_id)


def _owned(row: dict[str, Any], launches: Container[str]) -> OwnedContainer:
    sandbox_id = str((row.get("Labels") or {}).get(LABEL_SANDBOX, ""))
    return OwnedContainer(
        handle=str(row["Id"]),
        sandbox_id=sandbox_id,
        running=row.get("State") == "running",
        created=datetime.fromtimestamp(int(row["Created"]), UTC),
        launched_here=sandbox_id in launches,
    )


def _swap() -> str:
    """How much swap the host has, as it says: what was found without any need not hold with it."""
    try:
        lines = _MEMORY.read_text("ascii").splitlines()
    except OSError:  # not Linux: the engine runs elsewhere
        return ""
    return next((line for line in lines if line.startswith("SwapTotal:")), "")


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:  # not Linux: such a host reaches its engine's sandboxes by attach, whatever the boot
        return ""
