"""From a container that an earlier owner has left alive to its agent's hello: looked at, then listened for."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.transport import ContainerEndedError, Transport, UnreachableError
from orchestrator.adapters.channel.unix_transport import channel_directory
from orchestrator.adapters.engine.endings import require_running
from orchestrator.adapters.engine.launch import Launcher
from orchestrator.domain.errors import EngineUnavailableError, SandboxGoneError
from orchestrator.domain.hardening import (
    CHANNEL_MOUNT,
    LABEL_ENVIRONMENT,
    LABEL_INSTALLATION,
    LABEL_SANDBOX,
    container_name,
)
from orchestrator.domain.model import SandboxRecord

HELLO_SECONDS: Final = 20.0  # an agent without a connection tries four times a second
_REACH_SECONDS: Final = 40.0  # with the engine's answer before it


class Survivor:
    """What this process has of a sandbox that it did not make; kept until the sandbox is destroyed."""

    def __init__(self, launcher: Launcher, record: SandboxRecord) -> None:
        self.channel: AgentChannel | None = None
        self._launcher = launcher
        self._record = record
        self._transport: Transport | None = None

    async def reach(self) -> tuple[str, AgentChannel]:
        """Its environment, and its agent. Raises SandboxGoneError where it does not live or cannot be reached, and
        EngineUnavailableError where the engine does not say.
        """
        name = container_name(self._record.id)

        async def runs() -> bool:
            require_running(await self._launcher.look(name))
            return True

        try:
            async with asyncio.timeout(_REACH_SECONDS):
                found = await self._launcher.look(name)
                require_running(found)
                transport, environment = self._way_to(found or {})
                self._require_going(name, found or {})
                self._transport = transport
                self.channel = await AgentChannel.open(
                    transport, seconds=HELLO_SECONDS, is_running=runs, incarnation=self._record.incarnation
                )
        except ContainerEndedError as error:
            raise SandboxGoneError(f"The sandbox is gone: {error}.", cause=str(error)) from error
        except SandboxGoneError as error:
            self.end("it was not reached")
            if isinstance(error.__cause__, UnreachableError):
                raise EngineUnavailableError(
                    f"A sandbox could not be reached: {error.cause}.", hint="Try again."
                ) from error
            raise
        except TimeoutError as error:
            self.end("it was not reached in time")
            raise EngineUnavailableError("A sandbox was not reached in time.", hint="Try again.") from error
        except BaseException:
            self.end("it was not reached")
            raise
        return environment, self.channel

    def end(self, reason: str) -> None:
        """Let go of the channel; the first reason stays."""
        if self._transport is not None:
            self._transport.close()
        if self.channel is not None:
            self.channel.give_up(reason)

    def remove_directory(self) -> None:
        """Take away the channel's directory, once the container is gone. Blocking."""
        if self._transport is not None:
            self._transport.remove()

    async def create_settled(self) -> None:
        """Nobody is creating it any more."""

    @property
    def create_unanswered(self) -> bool:
        """It was made long ago."""
        return False

    async def create_bound_passed(self) -> None:
        """Nor need anybody wait for that."""

    def _require_going(self, name: str, found: Mapping[str, Any]) -> None:
        if found["State"].get("Paused"):
            raise EngineUnavailableError(
                f"The session's container is paused ({name}).", hint=f"Let it go on: docker unpause {name}"
            )

    def _way_to(self, found: Mapping[str, Any]) -> tuple[Transport, str]:
        """How that container's agent is reached: as its owner had it made, whatever is usual here by now."""
        record, labels = self._record, found["Config"]["Labels"] or {}
        ours = {LABEL_INSTALLATION: self._launcher.installation, LABEL_SANDBOX: record.id}
        is_it = record.handle in (None, found["Id"]) and found["Config"].get("User") == f"{record.uid}:{record.uid}"
        if not ours.items() <= labels.items() or not is_it:
            raise ContainerEndedError("a container of another origin bears its name")
        if found["Config"]["OpenStdin"]:
            transport = self._launcher.transport(record, "attach")
        else:
            parent = _channel_parent(found, record.id)
            transport = self._launcher.transport(record, "unix", parent=parent)
        transport.admit(int(found["State"]["Pid"]))
        return transport, str(labels.get(LABEL_ENVIRONMENT, ""))


def _channel_parent(found: Mapping[str, Any], sandbox_id: str) -> Path:
    """Where the directory of its channel lies, which need not be where new ones are made."""
    for mount in found.get("Mounts") or ():
        directory = Path(mount.get("Source", ""))
        if mount.get("Destination") == CHANNEL_MOUNT and directory == channel_directory(directory.parent, sandbox_id):
            return directory.parent
    raise ContainerEndedError("its channel is not where it should be")
