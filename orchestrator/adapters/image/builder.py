"""Makes the sandbox image: base, environment, agent libraries, agent; each only where its inputs changed."""

import tempfile
from dataclasses import replace
from pathlib import Path

import docker

from orchestrator.adapters.host_packages import Report
from orchestrator.adapters.image import debian_base
from orchestrator.adapters.image.agent_layer import Environment, add_agent, described
from orchestrator.adapters.image.build_lock import build_lock, lock_path
from orchestrator.adapters.image.build_steps import (
    ImageBuildError,
    build,
    build_context,
    describe_python,
    engine_failures,
    find_images,
    has_image,
    import_archive,
    pull,
)
from orchestrator.adapters.image.wheels import download_wheels
from orchestrator.domain.images import (
    LABEL_AGENT,
    LABEL_BASE,
    LABEL_ENVIRONMENT,
    LABEL_INPUTS,
    LABEL_KIND,
    LABEL_PYTHON,
    BasePython,
    ImageFiles,
    agent_digest,
    environment_digest,
    environment_inputs,
    libraries_inputs,
    tag,
)
from orchestrator.domain.ports import SandboxImage

REGISTRY_BASE = "python:3.13-slim"


def find_sandbox_image(
    api: docker.APIClient, files: ImageFiles, *, chosen_base: str | None = None
) -> SandboxImage | None:
    """The image that these sources ask for, or None where it is not built. One request."""
    inputs, agent = environment_inputs(files, chosen_base), agent_digest(files)
    found = find_images(api, {LABEL_INPUTS: inputs})
    # Of several environments that were made for the same inputs the newest counts: the agent may have been put on an
    # older one since, for a session that keeps it.
    newest = [image["Labels"][LABEL_ENVIRONMENT] for image in found if image["Labels"][LABEL_KIND] == "environment"]
    wanted = {LABEL_KIND: "sandbox", LABEL_AGENT: agent} | ({LABEL_ENVIRONMENT: newest[0]} if newest else {})
    ready = (image for image in found if wanted.items() <= image["Labels"].items())
    return next((described(image["RepoTags"][0], image["Labels"]) for image in ready), None)


def sandbox_image_of(api: docker.APIClient, name: str) -> SandboxImage | None:
    """The sandbox image of that name, such as one of a custom environment; None where it is absent or not ours."""
    found = api.images(name=name, filters={"label": [f"{LABEL_KIND}=sandbox"]})
    return described(name, found[0]["Labels"]) if found else None


class ImageBuilder:
    """Builds what is missing. `rebuild` makes the environment anew, for fresh packages of the distribution."""

    def __init__(self, api: docker.APIClient, files: ImageFiles, report: Report, *, rebuild: bool = False) -> None:
        self._api = api
        self._files = files
        self._report = report
        self._rebuild = rebuild

    def build(self, chosen_base: str | None = None) -> SandboxImage:
        """Return the sandbox image of these sources, made where it is absent; raises where it cannot be made."""
        if ready := self._ready(chosen_base):
            return ready
        with build_lock(lock_path(), self._report):
            # Whoever held the lock may have built just this.
            if ready := self._ready(chosen_base):
                return ready
            environment = self._environment(chosen_base)
            libraries = replace(environment, base=self._libraries(environment))
            return add_agent(self._api, self._files, libraries, self._report)

    def _ready(self, chosen_base: str | None) -> SandboxImage | None:
        if self._rebuild:
            return None
        with engine_failures("Looking for images"):
            ready = find_sandbox_image(self._api, self._files, chosen_base=chosen_base)
        if ready is not None:
            self._report(f"{ready.tag} is up to date")
        return ready

    def _environment(self, chosen_base: str | None) -> Environment:
        inputs = environment_inputs(self._files, chosen_base)
        found = find_images(self._api, {LABEL_KIND: "environment", LABEL_INPUTS: inputs})
        if found and not self._rebuild:
            labels = found[0]["Labels"]
            self._report(f"using the environment {found[0]['RepoTags'][0]}")
            return Environment(found[0]["RepoTags"][0], inputs, labels[LABEL_ENVIRONMENT], labels[LABEL_PYTHON])
        base, name = self._base(chosen_base)
        python = describe_python(self._api, base)
        self._report(f"base {name} has Python {python.version} for {python.machine}")
        return self._make_environment(inputs, base, name, python)

    def _make_environment(self, inputs: str, base: str, name: str, python: BasePython) -> Environment:
        with tempfile.TemporaryDirectory(prefix="so-environment-") as folder, build_context() as context:
            self._report("fetching the packages of the environment")
            wheels = download_wheels(self._files.requirements, python, Path(folder) / "wheels", self._report)
            download_wheels(self._files.pip_requirements, python, Path(folder) / "pip", self._report)
            identity = environment_digest(inputs, python, name, wheels)
            context.add("Dockerfile", self._files.environment["environment.Dockerfile"])
            for path, content in self._files.environment.items():
                if path.startswith("build/"):
                    context.add(f"context/{path.removeprefix('build/')}", content)
            context.add("context/requirements.txt", self._files.requirements)
            context.add_folder("context/wheels", Path(folder) / "wheels")
            context.add_folder("context/pip", Path(folder) / "pip")
            labels = {
                LABEL_KIND: "environment",
                LABEL_INPUTS: inputs,
                LABEL_ENVIRONMENT: identity,
                LABEL_PYTHON: python.version,
                LABEL_BASE: name,
            }
            self._report("installing them without a network (a minute or two)")
            made = tag("environment", identity)
            build(self._api, context, tag=made, arguments={"BASE": base}, labels=labels, report=self._report)
        return Environment(made, inputs, identity, python.version)

    def _base(self, chosen: str | None) -> tuple[str, str]:
        """The image to build on and its name in digests."""
        name = chosen or REGISTRY_BASE
        if has_image(self._api, name) and not self._rebuild:
            return name, name
        self._report(f"asking a registry for {name}")
        # An older copy that is here will do where no registry answers.
        if pull(self._api, name, self._report) or has_image(self._api, name):
            return name, name
        if chosen is not None:
            raise ImageBuildError(
                f"The image {chosen} is not here and no registry gave it.", hint="Load it with `docker load` first."
            )
        return self._debian_base()

    def _debian_base(self) -> tuple[str, str]:
        self._report("no registry gave it: making a base from this host's own package sources instead")
        sources = debian_base.base_sources()
        identity = debian_base.base_identity(sources)
        made = tag("base", identity)
        if not has_image(self._api, made) or self._rebuild:
            with tempfile.TemporaryDirectory(prefix="so-base-") as folder:
                archive = Path(folder) / "base.tar"
                debian_base.make_base(sources, archive, self._report)
                self._report(f"importing it ({archive.stat().st_size // 1_000_000} MB)")
                repository, _, version = made.rpartition(":")
                import_archive(self._api, archive, repository, version, {LABEL_KIND: "base"})
        return made, f"debian-{debian_base.codename()}"

    def _libraries(self, environment: Environment) -> str:
        inputs = libraries_inputs(self._files, environment.digest)
        made = tag("agent-libraries", inputs)
        if has_image(self._api, made) and not self._rebuild:
            return made
        python = describe_python(self._api, environment.base)
        with tempfile.TemporaryDirectory(prefix="so-libraries-") as folder, build_context() as context:
            self._report("fetching the agent's libraries")
            download_wheels(self._files.agent_requirements, python, Path(folder), self._report)
            context.add("Dockerfile", self._files.agent_libraries["agent-libraries.Dockerfile"])
            context.add("context/install_libraries.py", self._files.agent_libraries["build/install_libraries.py"])
            context.add_folder("context/wheels", Path(folder))
            labels = {LABEL_KIND: "agent-libraries", LABEL_INPUTS: inputs}
            arguments = {"BASE": environment.base}
            build(self._api, context, tag=made, arguments=arguments, labels=labels, report=self._report)
        return made
