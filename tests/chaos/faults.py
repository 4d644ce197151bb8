"""The faults: what is done to whom. Each says what it hit, or None where there was nothing to hit."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker
import requests
from docker.errors import APIError, DockerException

from orchestrator.adapters.data_directory import holder
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from tests.chaos.private_engine import PrivateEngine
from tests.chaos.processes import pids_naming, runs, status_of

_API_SECONDS = 10.0
_WORKER_SCORES = range(200, 1000)  # what the kernel shall kill first, less what saves and rehearses (1000)
_SAVEPOINT_SCORES = range(1, 200)
_PAUSED_SECONDS = (0.3, 3.0)
_STOPPED_SECONDS = 1.0
_DOWN_SECONDS = (0.2, 2.0)

Need = Literal["nothing", "root", "a private engine"]


@dataclass(frozen=True, slots=True)
class World:
    """What can be hurt."""

    data_dir: Path
    docker_host: str | None
    installation: str
    engine: PrivateEngine | None

    @contextmanager
    def api(self) -> Iterator[docker.APIClient]:
        """Of the engine that the product uses. Raises EngineUnavailableError."""
        found = find_engine(self.docker_host, timeout_seconds=_API_SECONDS)
        with closing(api_client(found, timeout_seconds=_API_SECONDS)) as api:
            yield api

    def containers(self, api: docker.APIClient) -> list[str]:
        """The sandboxes that run, by the engine's word, in the order of their names."""
        labels = [f"{LABEL_INSTALLATION}={self.installation}"]
        rows = api.containers(filters={"label": labels, "status": "running"})
        return [row["Names"][0].lstrip("/") for row in sorted(rows, key=lambda row: str(row["Names"]))]

    def owner(self) -> int | None:
        """The owner's process."""
        found = holder(self.data_dir)
        return None if found is None or found.pid not in pids_naming(self.data_dir, "owner") else found.pid

    @property
    def can(self) -> set[Need]:
        """What this run is able to."""
        able: set[Need] = {"nothing"}
        if os.geteuid() == 0:
            able.add("root")
        if self.engine is not None:
            able.add("a private engine")
        return able


Inject = Callable[[World, random.Random], str | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind. `weight` says how often it comes beside the others, once each has come once."""

    name: str
    weight: int
    needs: Need
    inject: Inject


def harmless(inject: Inject) -> Inject:
    """What is hurt may be gone before it is hurt, or the engine away: that is no fault then."""

    def injected(world: World, chance: random.Random) -> str | None:
        try:
            return inject(world, chance)
        except (EngineUnavailableError, DockerException, requests.RequestException, OSError):
            return None

    return injected


# inside sandboxes


def _init_of(world: World, chance: random.Random) -> tuple[str, int] | None:
    """A running sandbox and its PID 1, as the host sees it."""
    with world.api() as api:
        names = world.containers(api)
        if not names:
            return None
        name = chance.choice(names)
        pid = int(api.inspect_container(name)["State"]["Pid"])
    return (name, pid) if pid > 0 else None


def _inside(init: int, scores: range, argument: bytes | None = None) -> int | None:
    """A process of that container beside its PID 1, told by what the kernel should think of killing it."""
    space = Path(f"/proc/{init}/ns/pid").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.name == str(init) or (entry / "ns/pid").readlink() != space:
                continue
            named = argument is None or argument in (entry / "cmdline").read_bytes().split(b"\0")
            if named and int((entry / "oom_score_adj").read_text()) in scores:
                return int(entry.name)
    return None


def _kill_inside(scores: range, argument: bytes | None = None) -> Inject:
    def kill(world: World, chance: random.Random) -> str | None:
        found = _init_of(world, chance)
        pid = None if found is None else _inside(found[1], scores, argument)
        if found is None or pid is None:
            return None
        os.kill(pid, signal.SIGKILL)
        return f"{found[0]}, process {pid}"

    return kill


def _kill_supervisor(world: World, chance: random.Random) -> str | None:
    found = _init_of(world, chance)
    if found is None:
        return None
    os.kill(found[1], signal.SIGKILL)
    return found[0]


# containers


def _remove(world: World, chance: random.Random) -> str | None:
    with world.api() as api:
        names = world.containers(api)
        if not names:
            return None
        name = chance.choice(names)
        api.remove_container(name, force=True)
    return name


def _pause(world: World, chance: random.Random) -> str | None:
    with world.api() as api:
        names = world.containers(api)
        if not names:
            return None
        name = chance.choice(names)
        api.pause(name)
        seconds = chance.uniform(*_PAUSED_SECONDS)
        try:
            time.sleep(seconds)
        finally:
            with contextlib.suppress(APIError):  # the product may have removed it
                api.unpause(name)
    return f"{name}, {seconds:.1f} s"


# the product's processes on the host


def _kill_relay(world: World, chance: random.Random) -> str | None:
    relays = sorted(pids_naming(world.data_dir, "mcp"))
    if not relays:
        return None
    pid = chance.choice(relays)
    os.kill(pid, signal.SIGKILL)
    return f"process {pid}"


def _kill_owner(world: World, _chance: random.Random) -> str | None:
    pid = world.owner()
    if pid is None:
        return None
    os.kill(pid, signal.SIGKILL)
    return f"process {pid}"


def _stop_owner(world: World, _chance: random.Random) -> str | None:
    pid = world.owner()
    if pid is None:
        return None
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(_STOPPED_SECONDS)
    finally:
        if runs(pid) and status_of(pid, "State") == "T":
            os.kill(pid, signal.SIGCONT)
    return f"process {pid}, {_STOPPED_SECONDS:g} s"


# the engine


def _end_engine(part: Literal["dockerd", "containerd"], number: signal.Signals) -> Inject:
    def end(world: World, chance: random.Random) -> str | None:
        if world.engine is None or not world.engine.signal(part, number):
            return None
        seconds = chance.uniform(*_DOWN_SECONDS)
        time.sleep(seconds)
        world.engine.up()
        return f"down for {seconds:.1f} s"

    return end


FAULTS = (
    Fault("worker killed", 4, "root", harmless(_kill_inside(_WORKER_SCORES))),
    Fault("savepoint killed", 2, "root", harmless(_kill_inside(_SAVEPOINT_SCORES))),
    Fault("zygote killed", 1, "root", harmless(_kill_inside(range(1), b"zygote"))),
    Fault("supervisor killed", 3, "root", harmless(_kill_supervisor)),
    Fault("container removed", 3, "nothing", harmless(_remove)),
    Fault("container paused", 2, "nothing", harmless(_pause)),
    Fault("relay killed", 3, "nothing", harmless(_kill_relay)),
    Fault("owner killed", 3, "nothing", harmless(_kill_owner)),
    Fault("owner stopped", 1, "nothing", harmless(_stop_owner)),
    Fault("dockerd killed", 1, "a private engine", _end_engine("dockerd", signal.SIGKILL)),
    Fault("dockerd told to end", 1, "a private engine", _end_engine("dockerd", signal.SIGTERM)),
    Fault("containerd killed", 1, "a private engine", _end_engine("containerd", signal.SIGKILL)),
)


def possible(world: World) -> list[Fault]:
    """Those that this run is able to."""
    return [fault for fault in FAULTS if fault.needs in world.can]
