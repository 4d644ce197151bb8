"""A Docker Engine of a run's own, to be hurt: dockerd and containerd with all that is theirs below one directory."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tests.chaos.processes import kill_and_wait, pids_naming, runs

Part = Literal["dockerd", "containerd"]

START_SECONDS = 60.0
END_SECONDS = 30.0
_POLL_SECONDS = 0.05
_PROGRAMS = ("dockerd", "containerd", "runc")
_CGROUPS = Path("/sys/fs/cgroup")
_SHIMS = Path("/run/containerd/s")
_TASK = re.compile(r"/moby/([0-9a-f]{64})")


def why_impossible() -> str | None:
    """Why this process cannot have an engine of its own; None where it can."""
    if os.geteuid() != 0:
        return "not run as root"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(missing)} not found" if missing else None


class EngineError(Exception):
    """The engine does not come up."""


class PrivateEngine:
    """Everything is found again by the directory, so that another process may hurt and start what this one started.

    `root` has a short path: sockets lie in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pidfiles: dict[Part, Path] = {"dockerd": root / "d.pid", "containerd": root / "c.pid"}

    @property
    def address(self) -> str:
        """For ORCHESTRATOR_DOCKER_HOST."""
        return f"unix://{self.root}/d.sock"

    def prepare(self) -> None:
        """Write what the two daemons read."""
        (self.root / "d.json").write_text("{}")  # and nothing of the machine's own configuration
        (self.root / "c.toml").write_text(
            f"version = 2\n"
            f"root = {json.dumps(str(self.root / 'c'))}\n"
            f"state = {json.dumps(str(self.root / 's'))}\n"
            f"temp = {json.dumps(str(self.root / 't'))}\n"
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f"[grpc]\n  address = {json.dumps(str(self.root / 'c.sock'))}\n"
            f'[plugins."io.containerd.internal.v1.opt"]\n  path = {json.dumps(str(self.root / "o"))}\n'
        )

    def up(self) -> None:
        """Start what does not run, and wait until the engine answers. Raises EngineError."""
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            self._start_missing()
            if time.monotonic() > deadline:
                raise EngineError(f"the private engine does not answer: {self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def answers(self) -> bool:
        """Whether both daemons live and dockerd serves; its socket is bound when all else is done."""
        if any(self._pid(part) is None for part in self._pidfiles):
            return False
        # Imported here: the SDK is dear, and who only kills does without it.
        from orchestrator.adapters.engine.endpoint import survey  # noqa: PLC0415

        return survey(self.address, timeout_seconds=2.0)[-1].works

    def signal(self, part: Part, number: signal.Signals, *, patience: float = 20.0) -> bool:
        """Send it, and wait until that daemon is gone; whether there was one. SIGKILL follows where it stays."""
        pid = self._pid(part)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while runs(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        kill_and_wait([pid])
        return True

    def put_away(self) -> list[str]:
        """End everything and remove it, whatever state it is in: a phrase for each thing that stays."""
        deadline = time.monotonic() + END_SECONDS
        while (left := self._processes()) and time.monotonic() < deadline:
            kill_and_wait(left)
        for path in sorted(self._cgroups(), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()
        for mount in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False, stderr=subprocess.DEVNULL)
        for socket in self._shim_sockets():
            socket.unlink(missing_ok=True)
        stays = [
            *(f"process {pid} of the private engine" for pid in self._processes()),
            *(f"cgroup {path}" for path in self._cgroups()),
            *(f"mount {mount}" for mount in self._mounts()),
        ]
        if not stays:
            shutil.rmtree(self.root)
        return stays

    # daemons

    def _start_missing(self) -> None:
        if self._pid("containerd") is None:
            self._start("containerd", ["containerd", "--config", str(self.root / "c.toml")])
            deadline = time.monotonic() + START_SECONDS
            while not (self.root / "c.sock").exists() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        if self._pid("dockerd") is None:
            self._pidfiles["dockerd"].unlink(missing_ok=True)  # of one that was killed: another may have its pid
            self._start(
                "dockerd",
                [
                    "dockerd",
                    *("--config-file", str(self.root / "d.json")),
                    *("--host", self.address),
                    *("--data-root", str(self.root / "d")),
                    *("--exec-root", str(self.root / "e")),
                    *("--pidfile", str(self.root / "dockerd.pid")),
                    *("--containerd", str(self.root / "c.sock")),
                    *("--cgroup-parent", f"/{self.root.name}"),
                    *("--exec-opt", "native.cgroupdriver=cgroupfs"),
                    "--bridge=none",
                    "--iptables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                ],
            )

    def _start(self, part: Part, command: Sequence[str]) -> None:
        (self.root / "dockerd.pid").unlink(missing_ok=True)
        with (self.root / f"{part}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        self._pidfiles[part].write_text(str(process.pid))

    def _pid(self, part: Part) -> int | None:
        """Of the daemon, while it lives."""
        try:
            pid = int(self._pidfiles[part].read_text())
        except (OSError, ValueError):
            return None
        return pid if runs(pid) and pid in pids_naming(self.root) else None

    def _last_words(self) -> str:
        logs = [self.root / f"{part}.log" for part in self._pidfiles]
        return " | ".join(log.read_text(errors="replace")[-1000:] for log in logs if log.exists())

    # what is left of it

    def _processes(self) -> list[int]:
        """Daemons and shims, by their command lines, and what runs in containers, by its cgroup."""
        found = {pid for pid in pids_naming(self.root) if _is_engine(pid)}
        for path in self._cgroups():
            with contextlib.suppress(OSError):
                (path / "freezer.state").write_text("THAWED")  # what is frozen does not die
            with contextlib.suppress(OSError):
                (path / "cgroup.freeze").write_text("0")
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (path / "cgroup.procs").read_text().split())
        return sorted(found - {os.getpid(), 0})

    def _cgroups(self) -> list[Path]:
        tops = [*_CGROUPS.glob(f"*/{self.root.name}"), _CGROUPS / self.root.name]
        return [Path(folder) for top in tops for folder, _, _ in os.walk(top)]  # which vanish while they are looked at

    def _mounts(self) -> list[str]:
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [path for path in mounted if path.startswith(f"{self.root}/")]

    def _shim_sockets(self) -> Iterator[Path]:
        """They lie beside those of every other containerd, called by the digest of whose they are; one that is killed
        amid a removal forgets them. Its log has had a line for each.
        """
        with contextlib.suppress(OSError):
            for container in set(_TASK.findall((self.root / "containerd.log").read_text(errors="replace"))):
                yield _SHIMS / hashlib.sha256(f"{self.root}/c.sock/moby/{container}".encode()).hexdigest()


def _is_engine(pid: int) -> bool:
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return name.startswith(("dockerd", "containerd", "runc", "docker-init"))
    return False
