"""The composition root of what comes before a server: the engine and the sandbox image."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from orchestrator.adapters.engine.endpoint import Probe, api_client, find_engine, survey
from orchestrator.adapters.engine.install import ensure_engine, sudo_needed
from orchestrator.adapters.image.build_steps import engine_failures
from orchestrator.adapters.image.builder import ImageBuilder, find_sandbox_image
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.domain.ports import SandboxImage

__all__ = ["Probe", "build_image", "ensure_engine", "find_engine", "find_image", "sudo_needed", "survey"]

# A step of a build may be silent for minutes, while wheels are compiled to byte code or a layer is written.
_BUILD_READ_SECONDS = 900


def build_image(
    report: Callable[[str], None],
    *,
    chosen_base: str | None = None,
    requirements: Path | None = None,
    rebuild: bool = False,
) -> SandboxImage:
    """Build the sandbox image where its inputs changed, with the engine that answers."""
    files = read_image_files(requirements)
    with closing(api_client(find_engine(), timeout_seconds=_BUILD_READ_SECONDS)) as api:
        return ImageBuilder(api, files, report, rebuild=rebuild).build(chosen_base)


def find_image(*, chosen_base: str | None = None, requirements: Path | None = None) -> SandboxImage | None:
    """The sandbox image that the sources ask for, or None where it is not built."""
    files = read_image_files(requirements)
    with closing(api_client(find_engine())) as api, engine_failures("Looking for images"):
        return find_sandbox_image(api, files, chosen_base=chosen_base)
