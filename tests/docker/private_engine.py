"""A Docker Engine of a test's own, to be hurt: nothing of it is shared with the engine that everybody uses."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import docker

from orchestrator.adapters.engine.candidates import Endpoint
from orchestrator.adapters.engine.endpoint import api_client, find_engine, probe
from tests.docker.sandboxed import image_tag

_DISK = "2g"  # the image takes half a GB, and twice that while it is loaded
_UP_SECONDS = 60.0
_DOWN_SECONDS = 60.0


def why_not() -> str | None:
    """What keeps this host from running one; None where nothing does."""
    if os.getuid() != 0:
        return "not run: an engine of its own needs root"
    if shutil.which("dockerd") is None:
        return "not run: there is no dockerd on this host"
    return None


class PrivateEngine:
    """Own socket, data, state and pid file; no bridge and no rules of the host's firewall."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="so-engine-"))  # short: sockets lie in it
        self._daemon: subprocess.Popen[bytes] | None = None
        # A disk of its own, which can be filled, and goes in a moment.
        (self._root / "data").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", self._root / "data"], check=True)

    @property
    def address(self) -> str:
        return f"unix://{self._root}/socket"

    def start(self, *, live_restore: bool) -> None:
        """Start it, or start it again, and wait until it answers."""
        options = {"host": self.address, "data-root": "data", "exec-root": "exec", "pidfile": "pid", "bridge": "none"}
        command = ["dockerd", "--iptables=false", "--ip6tables=false", f"--live-restore={str(live_restore).lower()}"]
        for name, value in options.items():
            command += [f"--{name}", value if name in {"host", "bridge"} else str(self._root / value)]
        (self._root / "pid").unlink(missing_ok=True)  # of one that was killed
        with (self._root / "log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + _UP_SECONDS
        while not probe(Endpoint(self.address, "test")).works:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"dockerd does not start:\n{(self._root / 'log').read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As a crash would; its containers live on until it is started again."""
        if self._daemon is None:
            return
        self._daemon.kill()
        self._daemon.wait(_DOWN_SECONDS)
        self._daemon = None
        # Its containerd ends with it, but not at once, and one that ends is taken for one that runs.
        _end(self._processes("containerd"))
        for name in ("containerd.pid", "containerd.sock"):
            (self._root / "exec" / "containerd" / name).unlink(missing_ok=True)

    def load_image(self) -> None:
        """Give it the sandbox image of the engine that everybody uses."""
        with closing(api_client(find_engine())) as source, closing(self.client()) as target:
            target.load_image(source.get_image(image_tag()))  # type: ignore[no-untyped-call]

    def fill_disk(self) -> None:
        """Leave no room on its disk."""
        block = bytes(1024 * 1024)
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while filler.write(block):
                pass

    def free_disk(self) -> None:
        """Give it its room back. Idempotent."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self._root / "data" / "filler"

    def client(self) -> docker.APIClient:
        return api_client(probe(Endpoint(self.address, "test")))

    def end(self) -> None:
        """Leave nothing of it, whatever became of it."""
        try:
            if self._daemon is not None:
                with closing(self.client()) as api:
                    for row in api.containers(all=True):
                        api.remove_container(row["Id"], force=True)
        finally:
            self.kill()
            shims = self._processes("containerd-shim-runc-v2")
            _end([*(child for shim in shims for child in _children(shim)), *shims])
            for mount in self._mounts():
                subprocess.run(["umount", "--lazy", mount], check=False)
            shutil.rmtree(self._root)

    def _processes(self, program: str) -> list[int]:
        """Those of that program that were started for this engine: its directory is in their arguments."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                    if Path(os.fsdecode(arguments[0])).name == program and f"{self._root}/".encode() in b"".join(
                        arguments
                    ):
                        found.append(int(entry.name))
        return found

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mounts").read_text("utf-8").splitlines()
        below = [line.split()[1] for line in lines if line.split()[1].startswith(f"{self._root}/")]
        return sorted(below, key=len, reverse=True)


def _children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()]
    return []


def _end(processes: list[int]) -> None:
    """Kill them, and wait until they are gone or nobody has taken their end yet."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + _DOWN_SECONDS
    while any(map(_runs, processes)):
        if time.monotonic() > deadline:
            raise AssertionError(f"processes {processes} do not end")
        time.sleep(0.02)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
