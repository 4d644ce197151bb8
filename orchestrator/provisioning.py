"""The composition root of what a server stands on: the engine and the sandbox image."""

import functools
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NoReturn, Protocol

import docker

from orchestrator import places
from orchestrator.adapters.engine import endpoint, install
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import Probe, api_client, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.image.agent_layer import find_sandbox_image_on, put_agent
from orchestrator.adapters.image.build_steps import engine_failures
from orchestrator.adapters.image.builder import ImageBuilder, find_sandbox_image, sandbox_image_of
from orchestrator.adapters.image.inventory import HeldImage as HeldImage  # noqa: PLC0414 - for commands
from orchestrator.adapters.image.inventory import held_images, remove_image, superfluous
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.domain.errors import EngineUnavailableError, InvalidRequestError
from orchestrator.domain.ports import Clock, SandboxImage
from orchestrator.settings import Settings

logger = logging.getLogger(__name__)

CHANNELS_NAME = "channels"
# A step of a build may be silent for minutes, while wheels are compiled to byte code or a layer is written.
_BUILD_READ_SECONDS = 900


def keep_private(runtime_dir: Path) -> None:
    """See to it that the runtime directory is there, and this user's alone. Raises InvalidRequestError."""
    try:
        places.private_directory(str(runtime_dir))
    except places.PlaceError as failure:
        raise InvalidRequestError(failure.message, hint=failure.hint) from failure


def survey() -> list[Probe]:
    """What each place answers where an engine may be, up to the first that works."""
    return endpoint.survey(_docker_host())


def ensure_engine(report: Callable[[str], None]) -> Probe:
    """See `install.ensure_engine`."""
    return install.ensure_engine(report, _docker_host())


def engine_for_a_command() -> tuple[list[str], dict[str, str]]:
    """The prefix with which a command reaches the engine, and what its environment must say for docker's own tools.

    The prefix is sudo's where the engine's socket lets only root in, else empty.
    """
    docker_host = _docker_host()
    found, prefix = install.within_reach(docker_host)
    told = {"DOCKER_HOST": found.endpoint.base_url} if prefix or docker_host else {}
    if docker_host:
        told |= {"DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}  # the setting knows none
    return prefix, told


def build_image(
    report: Callable[[str], None],
    *,
    chosen_base: str | None = None,
    requirements: Path | None = None,
    rebuild: bool = False,
) -> SandboxImage:
    """Build the sandbox image where its inputs changed, with the engine that answers."""
    files = read_image_files(requirements)
    with closing(api_client(find_engine(_docker_host()), timeout_seconds=_BUILD_READ_SECONDS)) as api:
        return ImageBuilder(api, files, report, rebuild=rebuild).build(chosen_base)


def find_image(*, chosen_base: str | None = None, requirements: Path | None = None) -> SandboxImage | None:
    """The sandbox image that the sources ask for, or None where it is not built."""
    files = read_image_files(requirements)
    with closing(api_client(find_engine(_docker_host()))) as api, engine_failures("Looking for images"):
        return find_sandbox_image(api, files, chosen_base=chosen_base)


def list_images() -> list[HeldImage]:
    """All images of the product on the engine that answers, newest first."""
    with closing(api_client(find_engine(_docker_host()))) as api, engine_failures("Looking for images"):
        return held_images(api)


def prune_images(chosen: Callable[[list[HeldImage]], bool]) -> list[tuple[HeldImage, bool]]:
    """Remove sandbox images that nothing needs, where `chosen` agrees to those: each, and whether it is gone."""
    with closing(api_client(find_engine(_docker_host()))) as api, engine_failures("Removing images"):
        default = find_sandbox_image(api, read_image_files())
        images = superfluous(held_images(api), None if default is None else default.tag)
        if not chosen(images):
            return []
        return [(image, remove_image(api, image.tag)) for image in images]


def _docker_host() -> str | None:
    # Imported here: not every command asks for an engine, and settings are dear.
    from orchestrator.settings import Settings  # noqa: PLC0415

    return Settings.load().docker_host


class Memory(Protocol):
    """Whose sandboxes these are, and what was found out about engines; the records are one."""

    @property
    def installation(self) -> str:
        """What its containers are labelled with."""

    async def remembered(self, key: str) -> str | None:
        """What was kept under that key."""

    async def remember(self, key: str, value: str) -> None:
        """Keep it."""


def build_engine(settings: Settings, records: Memory, clock: Clock) -> DockerEngine:
    """The engine adapter as the settings describe it; nothing is asked of the engine yet."""
    return DockerEngine(
        installation=records.installation,
        find=functools.partial(find_engine, settings.docker_host),
        image_of=_image_finder(settings.image),
        put_agent=_agent_putter(settings.image),
        profile=settings.profile,
        isolation=read_isolation(
            own_profile=settings.sandbox_seccomp,
            runtime=settings.sandbox_runtime,
            user_namespace=settings.sandbox_user_namespace == "required",
            allowed=settings.allowed,
        ),
        channel_parent=settings.runtime_dir / CHANNELS_NAME,
        channel=settings.channel,
        clock=clock,
        recall=records.remembered,
        remember=records.remember,
    )


def _image_finder(chosen: str | None) -> Callable[[docker.APIClient, str | None], SandboxImage | None]:
    """Finds the image of an environment, or the default one; a chosen image is the answer to every question."""

    def find(api: docker.APIClient, environment: str | None) -> SandboxImage | None:
        if chosen is not None:
            return sandbox_image_of(api, chosen) or _refuse(chosen)
        if environment is not None:
            return find_sandbox_image_on(api, read_image_files(), environment)
        return find_sandbox_image(api, read_image_files())

    return find


def _refuse(chosen: str) -> NoReturn:
    raise EngineUnavailableError(
        f"ORCHESTRATOR_IMAGE: the Docker Engine has no sandbox image called {chosen}.",
        hint="Run `orchestrator image build`, which says its name, or unset ORCHESTRATOR_IMAGE for the default one.",
    )


def _agent_putter(chosen: str | None) -> Callable[[docker.APIClient, str], SandboxImage | None]:
    """Puts the current agent on an environment; not where an image was chosen, whose agent is the operator's choice."""

    def put(api: docker.APIClient, environment: str) -> SandboxImage | None:
        return put_agent(api, read_image_files(), environment, logger.info) if chosen is None else None

    return put
