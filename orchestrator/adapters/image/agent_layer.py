"""The agent as the last layer of an image: always the current one, also on environments of earlier builds."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import docker

from orchestrator.adapters.host_packages import Report
from orchestrator.adapters.image.build_lock import build_lock, lock_path
from orchestrator.adapters.image.build_steps import ImageBuildError, build, build_context, engine_failures, find_images
from orchestrator.domain.images import (
    LABEL_AGENT,
    LABEL_ENVIRONMENT,
    LABEL_INPUTS,
    LABEL_KIND,
    LABEL_PYTHON,
    ImageFiles,
    agent_digest,
    digest,
    libraries_inputs,
    minor_of,
    tag,
)
from orchestrator.domain.ports import SandboxImage

logger = logging.getLogger(__name__)

LOCK_SECONDS: Final = 60.0  # that a wake waits for another build
_KINDS: Final = ("environment", "agent-libraries", "sandbox")  # on which of them a layer is put first


@dataclass(frozen=True, slots=True)
class Environment:
    """What is known of an environment; `base` is the image of it to build on."""

    base: str
    inputs: str
    digest: str
    python: str


def described(name: str, labels: dict[str, str]) -> SandboxImage:
    """A sandbox image as its labels say."""
    return SandboxImage(name, labels[LABEL_ENVIRONMENT], labels[LABEL_AGENT], minor_of(labels[LABEL_PYTHON]))


def find_sandbox_image_on(api: docker.APIClient, files: ImageFiles, environment: str) -> SandboxImage | None:
    """The image with exactly that environment and the agent of these sources, or None. One request."""
    wanted = {LABEL_KIND: "sandbox", LABEL_ENVIRONMENT: environment, LABEL_AGENT: agent_digest(files)}
    found = find_images(api, wanted)
    return described(found[0]["RepoTags"][0], found[0]["Labels"]) if found else None


def put_agent(
    api: docker.APIClient, files: ImageFiles, environment: str, report: Report, *, wait_seconds: float = LOCK_SECONDS
) -> SandboxImage | None:
    """Put the agent of these sources on that environment: a second or two, without a network.

    None where the engine has that environment no more, or no image to take the agent's libraries for its Python from.
    Raises ImageBuildError, and BusyError where another build holds the lock for longer than `wait_seconds`.
    """
    with engine_failures("Looking for images"):
        if not find_images(api, {LABEL_ENVIRONMENT: environment}):
            return None
    with build_lock(lock_path(), report, wait_seconds=wait_seconds):
        with engine_failures("Looking for images"):
            # Whoever held the lock may have built just this.
            if ready := find_sandbox_image_on(api, files, environment):
                return ready
        try:
            return _put(api, files, environment, report)
        except ImageBuildError as failure:
            logger.warning("environment %s: %s", environment, failure)
            raise ImageBuildError(
                f"The current agent could not be put on the environment {environment}: {_last_line(failure.message)}",
                hint="Try again. To give that environment up, remove its images: "
                f"`docker images -q --filter label={LABEL_ENVIRONMENT}={environment}` lists them.",
            ) from failure


def _put(api: docker.APIClient, files: ImageFiles, environment: str, report: Report) -> SandboxImage | None:
    with engine_failures("Looking for images"):
        held = find_images(api, {LABEL_ENVIRONMENT: environment})
        donors = find_images(api, {LABEL_KIND: "sandbox", LABEL_AGENT: agent_digest(files)})
    libraries = {LABEL_KIND: "agent-libraries", LABEL_INPUTS: libraries_inputs(files, environment)}
    for image in held:
        if libraries.items() <= image["Labels"].items():
            return add_agent(api, files, _environment_of(image, held), report)
    if not held:
        return None
    # The oldest of a kind: layers do not pile up with every agent that was put on the one before.
    base = _environment_of(min(held, key=_preference), held)
    for donor in donors:
        if minor_of(donor["Labels"][LABEL_PYTHON]) == minor_of(base.python):
            return _copy_agent(api, files, base, str(donor["Id"]), report)
    logger.warning(
        "No image has the current agent's libraries for Python %s: what keeps the environment %s starts on the default "
        "one. `orchestrator image build` with a base of that Python makes them.",
        minor_of(base.python),
        environment,
    )
    return None


def add_agent(api: docker.APIClient, files: ImageFiles, environment: Environment, report: Report) -> SandboxImage:
    """Put the agent on an environment whose base has its libraries."""
    with build_context() as context:
        report("adding the agent as the last layer")
        context.add("Dockerfile", files.agent["agent.Dockerfile"])
        context.add("agent/DIGEST", agent_digest(files).encode())
        for path, content in files.agent.items():
            if path.startswith("agent/"):
                context.add(path, content)
        made, labels = _name_and_labels(files, environment)
        build(api, context, tag=made, arguments={"BASE": environment.base}, labels=labels, report=report)
    return described(made, labels)


def _copy_agent(
    api: docker.APIClient, files: ImageFiles, environment: Environment, donor: str, report: Report
) -> SandboxImage:
    with build_context() as context:
        report("copying the agent and its libraries as the last layer")
        context.add("Dockerfile", files.agent["agent-again.Dockerfile"])
        made, labels = _name_and_labels(files, environment)
        arguments = {"BASE": environment.base, "DONOR": donor}
        build(api, context, tag=made, arguments=arguments, labels=labels, report=report)
    return described(made, labels)


def _name_and_labels(files: ImageFiles, environment: Environment) -> tuple[str, dict[str, str]]:
    agent = agent_digest(files)
    labels = {
        LABEL_KIND: "sandbox",
        LABEL_INPUTS: environment.inputs,
        LABEL_ENVIRONMENT: environment.digest,
        LABEL_AGENT: agent,
        LABEL_PYTHON: environment.python,
    }
    return tag("sandbox", digest({"environment": environment.digest, "agent": agent})), labels


def _environment_of(base: dict[str, Any], held: Iterable[dict[str, Any]]) -> Environment:
    """What the labels say. The base by its id: the engine would look for a tag that has just gone in a registry."""
    # On libraries the label names what asked for those; "" belongs to no sources, so it is nobody's default.
    inputs = [i["Labels"][LABEL_INPUTS] for i in held if i["Labels"][LABEL_KIND] in ("environment", "sandbox")]
    labels = base["Labels"]
    return Environment(str(base["Id"]), (inputs or [""])[0], labels[LABEL_ENVIRONMENT], labels[LABEL_PYTHON])


def _preference(image: dict[str, Any]) -> tuple[int, int]:
    return _KINDS.index(image["Labels"][LABEL_KIND]), int(image["Created"])


def _last_line(message: str) -> str:
    return message.strip().rsplit("\n", 1)[-1]
