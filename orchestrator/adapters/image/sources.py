"""Reads the sources of the sandbox image: beside the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.images import ImageFiles

_PACKAGE = Path(__file__).resolve().parents[2]


def image_folder() -> Path:
    """The folder `sandbox-image` of this very package."""
    packed = _PACKAGE / "_sandbox_image"
    return packed if packed.is_dir() else _PACKAGE.parent / "sandbox-image"


def read_image_files(requirements: Path | None = None, folder: Path | None = None) -> ImageFiles:
    """Read every source that an image is made from; `requirements` replaces the default environment's lock."""
    home = folder or image_folder()
    if requirements is not None and not requirements.is_file():
        raise InvalidRequestError(f"The requirements file {requirements} does not exist.")
    return ImageFiles(
        environment=_read(home, "environment.Dockerfile", "build/install_environment.py", "build/strip_root.py"),
        agent_libraries=_read(home, "agent-libraries.Dockerfile", "build/install_libraries.py"),
        agent={**_read(home, "agent.Dockerfile", "agent-again.Dockerfile"), **_read_tree(home, "agent")},
        requirements=(requirements or home / "requirements.lock").read_bytes(),
        agent_requirements=(home / "agent-requirements.lock").read_bytes(),
        pip_requirements=(home / "build-requirements.lock").read_bytes(),
    )


def _read(home: Path, *names: str) -> dict[str, bytes]:
    return {name: (home / name).read_bytes() for name in names}


def _read_tree(home: Path, name: str) -> dict[str, bytes]:
    files = sorted(path for path in (home / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files if not path.name.startswith(".")}
