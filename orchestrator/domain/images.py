"""Which inputs make which image: digests, tags and labels. Pure: no files, no engine.

Four images stand on one another: base, environment, agent libraries, sandbox. Each is known by a digest of what it was
made from, so that the next build finds it by label and makes only what changed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.domain.model import PRODUCT

Kind = Literal["base", "environment", "agent-libraries", "sandbox"]

LABEL_KIND = f"{PRODUCT}.image.kind"
LABEL_INPUTS = f"{PRODUCT}.image.inputs"  # digest of the files and choices that ask for this image
LABEL_ENVIRONMENT = f"{PRODUCT}.image.environment"  # digest of the environment in it
LABEL_AGENT = f"{PRODUCT}.image.agent"  # digest of the agent in it
LABEL_PYTHON = f"{PRODUCT}.image.python"  # such as 3.11.2
LABEL_BASE = f"{PRODUCT}.image.base"  # what the environment stands on, for people
LABEL_BUILD = f"{PRODUCT}.image.build"  # which build made it, so that each removes its own stages and no other's

# Build stages carry this kind until the builder has removed them.
LEFTOVER = "leftover"

_DIGEST_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The sources of the images, by path below `sandbox-image/`; `requirements` is the lock or the operator's file."""

    environment: Mapping[str, bytes]
    agent_libraries: Mapping[str, bytes]
    agent: Mapping[str, bytes]
    requirements: bytes
    agent_requirements: bytes
    pip_requirements: bytes


@dataclass(frozen=True, slots=True)
class BasePython:
    """What a base image says of itself."""

    version: str  # such as 3.11.2
    machine: str  # such as x86_64
    glibc: tuple[int, int]

    @property
    def minor(self) -> str:
        """Such as 3.11."""
        return minor_of(self.version)

    def platforms(self) -> list[str]:
        """The wheel platforms that run here, newest first; pip does not derive the older ones from the newest."""
        major, newest = self.glibc
        tags = [f"manylinux_{major}_{minor}_{self.machine}" for minor in range(newest, 16, -1)]
        older = ["manylinux2014"] if self.machine != "x86_64" else ["manylinux2014", "manylinux2010", "manylinux1"]
        return [*tags, *(f"{name}_{self.machine}" for name in older)]


def minor_of(version: str) -> str:
    """Such as 3.11, of 3.11.2: what byte code and wheels are made for."""
    return ".".join(version.split(".")[:2])


def digest(parts: Mapping[str, bytes | str]) -> str:
    """A short digest of named parts, whatever their order; no two different mappings run into each other."""
    total = hashlib.sha256()
    for name in sorted(parts):
        part = parts[name]
        raw = part.encode() if isinstance(part, str) else part
        for piece in (name.encode(), raw):
            total.update(len(piece).to_bytes(8, "big") + piece)
    return total.hexdigest()[:_DIGEST_CHARACTERS]


def tag(kind: Kind, identity: str) -> str:
    """The name of an image in the engine."""
    return f"{PRODUCT}/{kind}:{identity}"


def environment_inputs(files: ImageFiles, chosen_base: str | None) -> str:
    """What asks for an environment. Leaves out what only a network could tell, so that finding it needs none."""
    return digest(
        {
            **files.environment,
            "requirements": files.requirements,
            "pip": files.pip_requirements,
            "base": chosen_base or "",
        }
    )


def environment_digest(inputs: str, python: BasePython, base: str, wheels: Mapping[str, str]) -> str:
    """What an environment really is: its inputs, its Python, and every wheel with its SHA-256."""
    found = "\n".join(f"{name} {wheels[name]}" for name in sorted(wheels))
    return digest({"inputs": inputs, "python": f"{python.version} {python.machine}", "base": base, "wheels": found})


def libraries_inputs(files: ImageFiles, environment: str) -> str:
    """What asks for the agent's libraries on one environment."""
    return digest({**files.agent_libraries, "requirements": files.agent_requirements, "environment": environment})


def agent_digest(files: ImageFiles) -> str:
    """What the agent is: its code and its libraries."""
    return digest({**files.agent, **files.agent_libraries, "requirements": files.agent_requirements})
