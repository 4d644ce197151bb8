"""What `orchestrator doctor` looks at beside the engine, owning nothing: disk, records, clock, ports, leftovers."""

import importlib.metadata
import platform
import shutil
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator import places
from orchestrator.adapters.data_directory import holder, is_owned
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.failures import engine_failures
from orchestrator.adapters.store.health import look_at_records
from orchestrator.adapters.store.pieces import aside, file, store
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain import checkup
from orchestrator.domain.checkup import Check, RecordsHealth
from orchestrator.domain.errors import OrchestratorError, StoreUnusableError
from orchestrator.domain.hardening import LABEL_INSTALLATION, LABEL_PRODUCT, LABEL_SANDBOX
from orchestrator.settings import Settings

_ASK_SECONDS: Final = 15
_DEPENDENCIES: Final = (
    *(
        "aiosqlite",
        "docker",
        "httptools",
        "mcp",
        "prometheus-client",
        "prompt-toolkit",
        "pydantic",
        "pydantic-settings",
        "pyjwt",
    ),
    *("rich", "starlette", "tenacity", "typer", "uvicorn", "uvloop"),
)


def versions() -> Mapping[str, str]:
    """Of Python, SQLite and each library that we stand on."""
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for name in _DEPENDENCIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@dataclass(frozen=True, slots=True)
class EngineSide:
    """What the engine says of the product's things on it."""

    checks: tuple[Check, ...] = ()
    containers: Mapping[str, str] | None = None  # sandbox ids, each with its installation; None: not known


def engine_checks(address: str | None) -> EngineSide:
    """Its disk, where it is this machine's, and whose containers it has. Nothing where it cannot be asked, which other
    lines tell of.
    """
    try:
        probe = find_engine(address)
        with closing(api_client(probe, timeout_seconds=_ASK_SECONDS)) as api, engine_failures("Asking the engine"):
            root = str(api.info().get("DockerRootDir") or "")
            listed = api.containers(all=True, filters={"label": LABEL_PRODUCT})
    except OrchestratorError:
        return EngineSide()
    labels = [container.get("Labels") or {} for container in listed]
    containers = {str(one.get(LABEL_SANDBOX, "")): str(one.get(LABEL_INSTALLATION, "")) for one in labels}
    local = probe.endpoint.base_url.startswith(("unix:", "http+docker:")) and Path(root).is_dir()
    checks = (checkup.engine_disk(root, shutil.disk_usage(root).free),) if local else ()
    return EngineSide(checks, containers)


def checks_of(settings: Settings, containers: Mapping[str, str] | None) -> tuple[Check, ...]:
    """Everything, in the order in which it is told. `containers` are the product's on the engine: sandbox ids, each
    with its installation; None where the engine could not be asked.
    """
    return tuple(_checks(settings, containers))


def _checks(settings: Settings, containers: Mapping[str, str] | None) -> Iterator[Check]:
    data, now = settings.data_dir, SystemClock().now()
    if not data.exists():
        yield Check("data directory", "fine", f"{data} is not there yet; the first owner makes it")
        yield _room(settings, next(parent for parent in data.parents if parent.exists()))
        yield from _ports(settings, server=False)
        return
    owner = holder(data) if is_owned(data) else None
    yield _directory(
        data, f"process {owner.pid} owns it ({owner.kind}, {owner.version})" if owner else "nobody owns it"
    )
    yield _room(settings, data)
    if (data / RECORDS_NAME).exists():
        folder = data / store.DIRECTORY_NAME
        files = file.keys_in(folder) if folder.exists() else frozenset()  # first: a row is there before its file
        try:
            found = look_at_records(data / RECORDS_NAME)
        except StoreUnusableError as error:
            yield Check("records", "wrong", error.message, error.hint)
        else:
            yield from checkup.records(str(data / RECORDS_NAME), found)
            yield checkup.clock(found.newest, now)
            yield from checkup.keys(found.keys, now)
            yield from _leftovers(folder, files, found, containers)
    else:
        yield Check("records", "fine", "none yet")
    yield _socket(settings, owned=owner is not None and owner.socket is not None)
    yield from _ports(settings, server=owner is not None and owner.kind == "server")


def _directory(data: Path, owned: str) -> Check:
    try:
        places.ensure_data_directory(str(data))
    except places.PlaceError as failure:
        return Check("data directory", "wrong", failure.message, failure.hint)
    return Check("data directory", "fine", f"{data}, private; {owned}")


def _room(settings: Settings, path: Path) -> Check:
    return checkup.disk("disk", str(path), shutil.disk_usage(path).free, settings.disk_floor)


def _leftovers(
    folder: Path, files: frozenset[str], found: RecordsHealth, containers: Mapping[str, str] | None
) -> Iterator[Check]:
    strays = [key for key in sorted(files - found.sessions) if file.path_of(folder, key).exists()]
    yield checkup.leftovers("files", strays, "The owner sets them aside by itself, and removes them 30 days later.")
    aside_now = aside.listed(folder) if folder.exists() else ()
    if aside_now:
        remedy = f"They lie in {folder / aside.DIRECTORY_NAME} and go 30 days after they were found."
        yield Check("files set aside", "look", f"{len(aside_now)} of no session", remedy)
    if containers is not None:
        own = {sandbox for sandbox, installation in containers.items() if installation == found.installation}
        remedy = "The owner removes them by itself; one that is started does it first."
        yield checkup.leftovers("containers", sorted(own - found.sandboxes), remedy)
        others = {installation for installation in containers.values() if installation != found.installation}
        if others:
            seen = f"{sum(one in others for one in containers.values())} of {len(others)} other installations"
            yield Check("containers of others", "fine", seen)


def _socket(settings: Settings, *, owned: bool) -> Check:
    path = settings.owner_socket
    if not owned:
        stale = " (a stale file lies there, which the next owner replaces)" if path.exists() else ""
        return Check("socket", "fine", f"nobody listens at {path}{stale}")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        try:
            link.connect(str(path))
        except OSError as failure:
            remedy = "Look into the owner's log; end the owner, and the next client starts another one."
            return Check("socket", "wrong", f"the owner does not answer at {path}: {failure.strerror}", remedy)
    return Check("socket", "fine", f"the owner listens at {path}")


def _ports(settings: Settings, *, server: bool) -> Iterator[Check]:
    binds = [("port", settings.http_host, settings.http_port)]
    if settings.metrics_bind is not None:
        host, _, number = settings.metrics_bind.rpartition(":")
        binds.append(("metrics port", host.strip("[]"), int(number)))
    for name, host, port in binds:
        if port:
            yield _port(name, host, port, server=server)


def _port(name: str, host: str, port: int, *, server: bool) -> Check:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as failure:
            if server:
                return Check(name, "fine", f"{port} at {host} is taken, while a server of ours runs")
            seen = f"{port} at {host} cannot be had: {failure.strerror}"
            return Check(name, "look", seen, "`orchestrator serve` needs it: end who listens there, or choose another.")
    return Check(name, "fine", f"{port} at {host} is free for `orchestrator serve`")
