"""Single steps of making an image, each one or two requests to the engine through the Docker SDK."""

import io
import json
import re
import secrets
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import LogConfig
from requests.exceptions import RequestException

from orchestrator.adapters.host_packages import Report
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.images import LABEL_BUILD, LABEL_KIND, LEFTOVER, BasePython
from orchestrator.domain.model import PRODUCT

# Builds and pulls may be silent while a layer is written; each read is bounded by the client's time-out.
_PULL_SECONDS = 900.0
_PROBE_SECONDS = 60
_LAST_LINES = 20
_OLD = "24h"  # no build goes on for so long
_TOLD_STEPS = re.compile(r"Step \d+/\d+ : ((?:RUN|COPY) .*)")

_DESCRIBE_PYTHON = """
import json, os, platform, sys
libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else ""
print(json.dumps({"version": platform.python_version(), "machine": os.uname().machine, "libc": libc}))
"""


class ImageBuildError(EngineUnavailableError):
    """The engine could not make the image."""


@contextmanager
def engine_failures(what: str) -> Iterator[None]:
    """Map what the SDK raises to one sentence about what was being done."""
    try:
        yield
    except APIError as failure:
        raise ImageBuildError(f"{what} failed: {failure.explanation or failure}") from failure
    except (DockerException, RequestException, OSError) as failure:
        raise ImageBuildError(f"{what} failed: {failure}") from failure


def find_images(api: docker.APIClient, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Images under names of ours that carry all these labels, newest first; one request.

    `RepoTags` holds only such names: whatever was built on an image of ours has inherited its labels.
    """
    wanted = [f"{name}={value}" for name, value in labels.items()]
    found = []
    for image in api.images(filters={"label": wanted}):
        named = [name for name in image.get("RepoTags") or () if name.startswith(f"{PRODUCT}/")]
        if named:
            found.append({**image, "RepoTags": named})
    return sorted(found, key=lambda image: -int(image["Created"]))


def has_image(api: docker.APIClient, name: str) -> bool:
    """Whether the engine holds this image."""
    try:
        api.inspect_image(name)  # type: ignore[no-untyped-call] # the stubs leave it out
    except ImageNotFound:
        return False
    return True


def pull(api: docker.APIClient, name: str, report: Report) -> bool:
    """Try to pull; False where no registry answers in time or it lacks the image."""
    deadline = time.monotonic() + _PULL_SECONDS
    try:
        for event in api.pull(name, stream=True, decode=True):
            if "error" in event or time.monotonic() > deadline:
                return False
            if event.get("status") in {"Pull complete", "Download complete"}:
                report(f"{event['status'].lower()}: {event.get('id', '')}")
    except (DockerException, RequestException, OSError):
        return False
    return has_image(api, name)


def describe_python(api: docker.APIClient, image: str) -> BasePython:
    """Ask an image for its Python, in a container without a network."""
    with engine_failures(f"Asking {image} for its Python"):
        made = api.create_container(
            image,
            entrypoint=["python3"],
            command=["-c", _DESCRIBE_PYTHON],
            user="65534:65534",
            labels={LABEL_KIND: LEFTOVER},
            network_disabled=True,
            host_config=api.create_host_config(network_mode="none", log_config=LogConfig(type="json-file")),
        )
        try:
            api.start(made["Id"])
            code = api.wait(made["Id"], timeout=_PROBE_SECONDS)["StatusCode"]
            told = api.logs(made["Id"], stdout=True, stderr=True)
        finally:
            api.remove_container(made["Id"], force=True, v=True)
    return _python_of(image, code, told)


def _python_of(image: str, code: int, told: bytes) -> BasePython:
    try:
        stated = json.loads(told) if code == 0 else {}
        libc, _, version = stated.get("libc", "").partition(" ")
        major, minor = (int(part) for part in version.split(".")[:2])
        python = BasePython(stated["version"], stated["machine"], (major, minor))
    except (ValueError, KeyError) as unclear:
        raise ImageBuildError(
            f"The image {image} cannot be a base: it needs python3 on its PATH and glibc.",
            hint="Name an image such as python:3.13-slim with --from.",
        ) from unclear
    if libc != "glibc" or tuple(int(part) for part in python.minor.split(".")) < (3, 11):
        raise ImageBuildError(f"The image {image} has Python {python.version}; 3.11 or newer on glibc is needed.")
    return python


def import_archive(api: docker.APIClient, archive: Path, repository: str, tag: str, labels: Mapping[str, str]) -> None:
    """Make an image of one layer from a root file system."""
    changes = [f"LABEL {name}={value}" for name, value in labels.items()]
    changes += ["ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", 'CMD ["python3"]']
    with engine_failures("Importing the base image"), archive.open("rb") as stream:
        told = api.import_image_from_data(stream, repository=repository, tag=tag, changes=changes)
    if '"error"' in told:
        raise ImageBuildError(f"Importing the base image failed: {told.strip()}")


class BuildContext:
    """A build context as a tar file on disk; times are constant, so that equal files are equal layers."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._archive = tarfile.open(fileobj=stream, mode="w")  # noqa: SIM115 - closed by `build`
        self.stream = stream

    def add(self, name: str, content: bytes) -> None:
        """Add a small file."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        self._archive.addfile(member, io.BytesIO(content))

    def add_folder(self, name: str, folder: Path) -> None:
        """Add the files of a folder."""
        for path in sorted(folder.iterdir()):
            member = tarfile.TarInfo(f"{name}/{path.name}")
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                self._archive.addfile(member, content)

    def close(self) -> None:
        """Finish the archive and go back to its start."""
        self._archive.close()
        self.stream.seek(0)


@contextmanager
def build_context() -> Iterator[BuildContext]:
    """A context in a temporary file."""
    with TemporaryFile(prefix="so-context-") as stream:
        yield BuildContext(stream)


def build(
    api: docker.APIClient,
    context: BuildContext,
    *,
    tag: str,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
    report: Report,
) -> None:
    """Build with the classic builder: no docker CLI, no buildx, and no network for any step."""
    context.close()
    told: list[str] = []
    failed = False
    own = secrets.token_hex(16)
    with engine_failures(f"Building {tag}"), _without_leftovers(api, own):
        events = api.build(
            fileobj=context.stream,
            custom_context=True,
            tag=tag,
            buildargs={**arguments, "BUILD": own},
            labels=dict(labels),
            network_mode="none",
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            line = str(event.get("stream") or event.get("error") or "").rstrip()
            if line:
                told.append(line)
            failed = failed or "error" in event  # the last event, and read to its end the connection is free again
            if step := _TOLD_STEPS.match(line):
                report(step[1])
        if failed:
            raise ImageBuildError(f"Building {tag} failed:\n" + "\n".join(told[-_LAST_LINES:]))


@contextmanager
def _without_leftovers(api: docker.APIClient, own: str) -> Iterator[None]:
    """Afterwards remove what the stages of the build labelled `own` leave, and what killed builds and rebuilds left.

    It is ours by its label, and has no tag. Of the latter only what is a day old: younger ones may be stages of another
    build, since the lock is a user's and the engine is everybody's.

    No environment is lost by this: another one has another tag, so that only a rebuild of the very same takes its tag.
    """
    try:
        yield
    finally:
        mine = {"dangling": True, "label": [f"{LABEL_BUILD}={own}"]}
        for unused in (mine, {"dangling": True, "label": [LABEL_KIND], "until": _OLD}):
            with suppress(DockerException, RequestException):
                api.prune_images(filters=unused)  # type: ignore[no-untyped-call] # the stubs leave it out
