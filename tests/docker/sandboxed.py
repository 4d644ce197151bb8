"""Python in the sandbox image, with this checkout's agent in it, for tests that need no orchestrator."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import docker

from orchestrator.provisioning import find_image

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "sandbox-image" / "agent"
PYTHON = "/opt/environment/bin/python"
# What the supervisor gives a zygote; one thread, since a forked copy of a process that used more hangs.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "HOME": "/workspace",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/workspace/.matplotlib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def image_tag() -> str:
    """The image that sandboxes start from; `make test` has built it."""
    image = find_image()
    assert image is not None, "the sandbox image is not built: `make image`"
    return image.tag


def run_python(engine: docker.APIClient, folder: Path, command: Sequence[str], *, bound_s: int) -> str:
    """Run a script of `folder`, which appears as /cases; what it wrote. Fails with that where the script failed."""
    host = engine.create_host_config(network_mode="none", tmpfs={"/workspace": "exec,uid=65534,gid=65534,mode=755"})
    container = engine.create_container(
        image_tag(),
        command=["-s", "-P", "-B", *command],
        entrypoint=[PYTHON],
        environment=ENVIRONMENT,
        working_dir="/workspace",
        host_config=host,
        network_disabled=True,
    )["Id"]
    try:
        engine.put_archive(container, "/opt/agent", _archive(AGENT, "agent"))
        engine.put_archive(container, "/", _archive(folder, "cases"))
        engine.start(container)
        status = engine.wait(container, timeout=bound_s)["StatusCode"]
        output = engine.logs(container).decode()
    finally:
        engine.remove_container(container, force=True)
    assert status == 0, output
    return output


def _archive(folder: Path, name: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(folder, arcname=name, filter=lambda entry: None if "__pycache__" in entry.name else entry)
    return data.getvalue()
