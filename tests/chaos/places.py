"""Where a run lies, the engine that it uses, and how all of it goes at the end, whatever has happened."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mcp import StdioServerParameters

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.image.builder import find_sandbox_image
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.settings import PREFIX, Settings
from tests.chaos.private_engine import EngineError, PrivateEngine, why_impossible
from tests.chaos.processes import kill_and_wait, pids_naming

PREFIX_OF_ROOTS = "so-chaos-"
RUNNER = "tests.chaos.run"
INJECTOR = "tests.chaos.injector"
_PID_NAME = "runner.pid"
_COPY_SECONDS = 600.0
_CHUNK = 1024 * 1024
# So that a minute shows what otherwise takes hours; fewer sandboxes than sessions.
LIMITS = {
    "snapshot_after": "0.3",
    "snapshot_max_age": "3",
    "hibernate_after": "4",
    "restore_bound": "5",
    "interrupt_grace": "0.5",
    "max_sandboxes": "5",
    "sandbox_memory": "384MiB",
    "sandbox_workspace": "32MiB",
    "owner_linger": "30",
}


@dataclass(frozen=True, slots=True)
class Places:
    """The run's own directory and what lies in it."""

    root: Path
    engine: PrivateEngine | None
    why_none: str | None  # why there is no private engine

    @property
    def settings(self) -> Settings:
        """As this process needs them, to look at what the owner has left."""
        return Settings.load(**self._named)

    @property
    def server(self) -> StdioServerParameters:
        """How a client starts its relay."""
        variables = {f"{PREFIX}{name.upper()}": value for name, value in (LIMITS | self._named).items()}
        command = ["-m", "orchestrator", "mcp", "--data-dir", self._named["data_dir"]]
        return StdioServerParameters(command=sys.executable, args=command, env={**os.environ, **variables}, cwd="/")

    @property
    def _named(self) -> dict[str, str]:
        named = {"data_dir": str(self.root / "data"), "runtime_dir": str(self.root / "run")}
        return named if self.engine is None else named | {"docker_host": self.engine.address}


@contextmanager
def places(left: list[str]) -> Iterator[Places]:
    """A directory and, where that can be, an engine of the run's own; what stays of them is added to `left`."""
    for earlier in Path(tempfile.gettempdir()).glob(f"{PREFIX_OF_ROOTS}*"):
        if not _in_use(earlier):
            left += put_away(earlier)
    root = Path(tempfile.mkdtemp(prefix=PREFIX_OF_ROOTS))
    try:
        (root / _PID_NAME).write_text(str(os.getpid()))
        why_none = why_impossible()
        engine = PrivateEngine(_below(root)) if why_none is None else None
        if engine is not None:
            try:
                engine.root.mkdir()
                engine.prepare()
                engine.up()
                copy_image(engine)
            except EngineError as failure:
                left += engine.put_away()
                engine, why_none = None, str(failure)
        yield Places(root, engine, why_none)
    finally:
        left += put_away(root)


def put_away(root: Path) -> list[str]:
    """End what still runs of a run, and remove its directory: a phrase for each thing that stays."""
    for program in ("orchestrator", INJECTOR):
        kill_and_wait(pids_naming(root, program))
    stays = PrivateEngine(_below(root)).put_away() if _below(root).exists() else []
    if not stays:
        shutil.rmtree(root)
    return stays


def copy_image(engine: PrivateEngine) -> None:
    """The sandbox image from the common engine, streamed through this process."""
    with (
        closing(api_client(find_engine(), timeout_seconds=_COPY_SECONDS)) as common,
        closing(api_client(find_engine(engine.address), timeout_seconds=_COPY_SECONDS)) as private,
    ):
        image = find_sandbox_image(common, read_image_files())
        if image is None:
            raise EngineError("the common engine has no sandbox image: run `make image`")
        private.load_image(common.get_image(image.tag, chunk_size=_CHUNK))  # type: ignore[no-untyped-call]
        if find_sandbox_image(private, read_image_files()) != image:
            raise EngineError("the sandbox image did not arrive in the private engine")


def _below(root: Path) -> Path:
    """The engine's part; its containers' cgroup has the name of this directory."""
    return root / root.name


def _in_use(root: Path) -> bool:
    try:
        pid = int((root / _PID_NAME).read_text())
        return RUNNER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
