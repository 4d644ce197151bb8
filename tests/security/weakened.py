"""Specs that lack one protection, so that a hostile cell can be shown to succeed where it is gone."""

import json
from collections.abc import Callable
from typing import Any, Literal

from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.isolation import read_isolation

Spec = dict[str, Any]
Weakening = Literal[
    "no filter",  # of system calls
    "docker's filter",  # the engine's default profile
    "no landlock",  # our profile, without the calls that Landlock takes
    "engine's masks",  # the paths that the engine masks by itself
    "engine's ulimits",
    "exec everywhere",
    "many inodes",
    "files of the network",
    "host's network",
    "writable root",
    "root",
    "capabilities",
    "new privileges",
    "twice the memory",
    "twice the processes",
    "twice the processor",
    "a log",
    "swap",
    "the host's queues",
    "twice the files",
    "the kernel's buffers",
    "much locked memory",
]


def _host(spec: Spec, **changed: object) -> None:
    spec["HostConfig"] |= changed


def _hosts_network(spec: Spec) -> None:
    spec["NetworkDisabled"] = False
    _host(spec, NetworkMode="host")
    del spec["HostConfig"]["Sysctls"]  # they are the host's then


def _options(spec: Spec, *options: str) -> None:
    spec["HostConfig"]["SecurityOpt"] = ["no-new-privileges", *options]


def profile_without_landlock() -> str:
    """As on a kernel that has none."""
    profile = json.loads(read_isolation().seccomp)
    profile["syscalls"] = [rule for rule in profile["syscalls"] if "landlock_add_rule" not in rule["names"]]
    return json.dumps(profile)


def _without(*names: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        for name in names:
            del spec["HostConfig"][name]

    return change


def _much_locked_memory(spec: Spec) -> None:
    limits = [limit for limit in spec["HostConfig"]["Ulimits"] if limit["Name"] != "memlock"]
    _host(spec, Ulimits=[*limits, {"Name": "memlock", "Soft": 4 << 20, "Hard": 4 << 20}])


def _tmpfs(old: str, new: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        mounts = spec["HostConfig"]["Tmpfs"]
        assert any(old in options for options in mounts.values())
        spec["HostConfig"]["Tmpfs"] = {path: options.replace(old, new) for path, options in mounts.items()}

    return change


CHANGES: dict[Weakening, Callable[[Spec], None]] = {
    "no filter": lambda spec: _options(spec, "seccomp=unconfined"),
    "docker's filter": _options,
    "no landlock": lambda spec: _options(spec, f"seccomp={profile_without_landlock()}"),
    "engine's masks": _without("MaskedPaths", "ReadonlyPaths"),
    "engine's ulimits": _without("Ulimits"),
    "exec everywhere": _tmpfs("noexec", "exec"),
    "many inodes": _tmpfs("nr_inodes=8192", "nr_inodes=100000"),
    "files of the network": lambda spec: spec.update(NetworkDisabled=False),
    "host's network": _hosts_network,
    "writable root": lambda spec: _host(spec, ReadonlyRootfs=False),
    "root": lambda spec: spec.update(User="0:0"),
    "capabilities": lambda spec: _host(spec, CapDrop=[]),
    # With Docker's filter: ours would have runc give up on its own calls, which it makes behind the filter then.
    "new privileges": lambda spec: _host(spec, SecurityOpt=[]),
    "twice the memory": lambda spec: _host(spec, Memory=2 << 30, MemorySwap=2 << 30),
    "twice the processes": lambda spec: _host(spec, PidsLimit=512),
    "twice the processor": lambda spec: _host(spec, NanoCpus=2 * 10**9),
    "swap": lambda spec: _host(spec, MemorySwap=-1),
    "the host's queues": lambda spec: _host(spec, IpcMode="host"),
    "twice the files": _tmpfs("size=268435456", "size=536870912"),
    "the kernel's buffers": _without("Sysctls"),
    "much locked memory": _much_locked_memory,
    "a log": lambda spec: _host(spec, LogConfig={"Type": "json-file", "Config": {}}),
}


def weaken(engine: DockerEngine, weakening: Weakening) -> None:
    """Every sandbox that this engine starts from now on lacks that protection."""
    launcher = engine._launcher
    spec = launcher.spec

    def weakened(*arguments: Any) -> Spec:  # noqa: ANN401 - whatever the launcher is asked with
        made = spec(*arguments)
        CHANGES[weakening](made)
        return made

    launcher.spec = weakened  # type: ignore[method-assign,assignment]
