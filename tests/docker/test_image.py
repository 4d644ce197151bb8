"""The image that sandboxes start from: what it can do, what it must not hold, and what a change costs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError
from docker.types import LogConfig

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.image.build_lock import build_lock
from orchestrator.adapters.image.builder import ImageBuilder, find_sandbox_image
from orchestrator.adapters.image.sources import image_folder, read_image_files
from orchestrator.domain.errors import BusyError
from orchestrator.domain.ports import SandboxImage

IMPORTS = """
import os, shutil
os.environ["MPLCONFIGDIR"] = shutil.copytree("/opt/environment/share/matplotlib", "/tmp/matplotlib")
import bz2, ctypes, curses, lzma, multiprocessing, readline, sqlite3, ssl, zoneinfo
import matplotlib.pyplot as plot, numpy.testing, pandas.testing, PIL.Image, scipy.stats, sklearn.ensemble
zoneinfo.ZoneInfo("Europe/Berlin")
figure, axes = plot.subplots(1, 2)
axes[0].plot([1, 2])
figure.savefig("/tmp/figure.png")
"""

FORKS = """
import os, signal
import numpy as np
square = np.random.default_rng(0).random((400, 400))
for _ in range(10):
    square @ square
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        np.linalg.inv(square) @ square
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

AGENT_LIBRARIES = """
import sys
sys.path.insert(0, "/opt/agent/lib")
import cloudpickle, xxhash, zstandard
"""

UNCOMPILED = """
import importlib.util, pathlib
roots = ["/opt/agent/agent", "/opt/agent/lib/xxhash", importlib.util.find_spec("pandas").submodule_search_locations[0]]
for root in roots:
    for source in pathlib.Path(root).rglob("*.py"):
        if not pathlib.Path(importlib.util.cache_from_source(str(source))).exists():
            print(source)
"""


@dataclass(frozen=True)
class Ran:
    code: int
    output: str


pytestmark = pytest.mark.usefixtures("alone_among_images")


@pytest.fixture(scope="module")
def api() -> Iterator[docker.APIClient]:
    with closing(api_client(find_engine(), timeout_seconds=600)) as client:
        yield client


@pytest.fixture(scope="module")
def image(api: docker.APIClient) -> SandboxImage:
    return ImageBuilder(api, read_image_files(), lambda _line: None).build()


def run(api: docker.APIClient, image: SandboxImage, *command: str) -> Ran:
    """Run a command as a sandbox would: no network, nothing writable but /tmp, a uid that nobody knows."""
    made = api.create_container(
        image.tag,
        entrypoint=[command[0]],
        command=list(command[1:]),
        user="23456:23456",
        network_disabled=True,
        environment={"HOME": "/tmp", "OPENBLAS_NUM_THREADS": "1"},  # noqa: S108 - in the container
        host_config=api.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "size=64m"},  # noqa: S108 - in the container
            log_config=LogConfig(type="json-file"),
        ),
    )
    try:
        api.start(made["Id"])
        code = api.wait(made["Id"], timeout=120)["StatusCode"]
        return Ran(code, api.logs(made["Id"]).decode())
    finally:
        api.remove_container(made["Id"], force=True)


def layers(api: docker.APIClient, tag: str) -> list[str]:
    told: dict[str, Any] = api.inspect_image(tag)  # type: ignore[no-untyped-call] # the stubs leave it out
    found: list[str] = told["RootFS"]["Layers"]
    return found


@pytest.mark.parametrize("code", [IMPORTS, FORKS, AGENT_LIBRARIES], ids=["stack", "forks", "agent"])
def test_a_stranger_without_network_on_a_read_only_root_can_use(
    api: docker.APIClient, image: SandboxImage, code: str
) -> None:
    ran = run(api, image, "/opt/environment/bin/python", "-W", "error", "-c", code)
    assert (ran.code, ran.output) == (0, "")


def test_nothing_in_it_is_setuid_or_setgid(api: docker.APIClient, image: SandboxImage) -> None:
    ran = run(api, image, "find", "/", "-xdev", "-perm", "/6000", "-not", "-path", "/proc/*")
    assert [line for line in ran.output.splitlines() if "Permission denied" not in line] == []


@pytest.mark.parametrize("name", ["cc", "gcc", "g++", "clang", "ld", "as", "make", "pip", "pip3", "uv", "apt-get"])
def test_it_has_no_tool_that_builds_or_fetches(api: docker.APIClient, image: SandboxImage, name: str) -> None:
    assert run(api, image, "sh", "-c", f"command -v {name}; ls /opt/environment/bin/{name}* 2>/dev/null").output == ""


@pytest.mark.parametrize("module", ["pip", "ensurepip", "setuptools"])
def test_it_has_no_installer(api: docker.APIClient, image: SandboxImage, module: str) -> None:
    found = f"import importlib.util; print(importlib.util.find_spec({module!r}))"
    assert run(api, image, "/opt/environment/bin/python", "-c", found).output == "None\n"


def test_all_that_is_imported_is_compiled_already(api: docker.APIClient, image: SandboxImage) -> None:
    ran = run(api, image, "/opt/environment/bin/python", "-c", UNCOMPILED)
    assert (ran.code, ran.output) == (0, "")


def test_it_tells_its_python(api: docker.APIClient, image: SandboxImage) -> None:
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert run(api, image, "/opt/environment/bin/python", "-c", version).output.strip() == image.python


def test_a_second_build_asks_the_engine_to_build_and_pull_nothing(
    api: docker.APIClient, image: SandboxImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("build", "pull", "create_container", "import_image_from_data"):
        monkeypatch.setattr(api, name, lambda *_args, name=name, **_options: asked.append(name))
    assert ImageBuilder(api, read_image_files(), lambda _line: None).build() == image
    assert asked == []


def test_an_image_that_is_not_built_is_not_found(api: docker.APIClient) -> None:
    assert find_sandbox_image(api, read_image_files(), chosen_base="never-built") is None


def test_a_changed_line_of_the_agent_costs_only_the_last_layer(
    api: docker.APIClient, image: SandboxImage, tmp_path: Path
) -> None:
    changed = tmp_path / "sandbox-image"
    shutil.copytree(image_folder(), changed, ignore=shutil.ignore_patterns("__pycache__"))
    (changed / "agent" / "changed.py").write_text(f'"""Changed in a test, by {os.getpid()}."""\n')
    other = ImageBuilder(api, read_image_files(folder=changed), lambda _line: None).build()
    try:
        assert other.environment == image.environment
        assert layers(api, other.tag)[:-1] == layers(api, image.tag)[:-1]
        assert layers(api, other.tag)[-1] != layers(api, image.tag)[-1]
    finally:
        with suppress(APIError):
            api.remove_image(other.tag)


def test_two_builds_take_turns(tmp_path: Path) -> None:
    told: list[str] = []
    with build_lock(tmp_path / "lock", told.append):  # noqa: SIM117 - the order is the point
        with pytest.raises(BusyError), build_lock(tmp_path / "lock", told.append, wait_seconds=0):
            pass
    assert told == ["waiting for another build to end"]
