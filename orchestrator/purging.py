"""Takes an installation off a machine: its containers, its data and, where that is wanted, the product's images.

Only what is known by name goes: a file of somebody else's in the data directory stays, and the directory with it.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import docker

from orchestrator import __version__, places
from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.images import LABEL_KIND
from orchestrator.domain.signing import KEY_NAME
from orchestrator.provisioning import build_engine
from orchestrator.settings import Settings

What = Literal["container", "file", "image", "left"]
_KNOWN: Final = (
    *(RECORDS_NAME, f"{RECORDS_NAME}-wal", f"{RECORDS_NAME}-shm", f"{RECORDS_NAME}-journal", DIRECTORY_NAME, KEY_NAME),
    *(places.LOG_NAME, "repl.history", places.START_LOCK_NAME, places.LOCK_NAME),
)
_COPIES: Final = f"{RECORDS_NAME}.schema-*"  # what `db migrate` has left


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that goes, or (`left`) that stays although it lies there. `bytes`: None where nobody has counted."""

    what: What
    name: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """An installation by its id; nothing of it is remembered."""

    installation: str

    async def remembered(self, key: str) -> str | None:
        """Nothing."""
        del key
        return None

    async def remember(self, key: str, value: str) -> None:
        """Nothing."""
        del key, value


async def planned(settings: Settings, *, images: bool) -> list[Thing]:
    """What would go. Raises InvalidRequestError where there is no data directory, EngineUnavailableError."""
    data = settings.data_dir
    if data.is_symlink() or not data.is_dir():
        raise InvalidRequestError(f"There is no data directory {data}.", hint="Name another --data-dir.")
    things = []
    installation = installation_of(data / RECORDS_NAME)
    if installation is not None:
        engine = build_engine(settings, _Known(installation), SystemClock())
        try:
            things += [Thing("container", one.sandbox_id) for one in await engine.containers()]
        finally:
            await engine.close()
    known = {path for path in (*(data / name for name in _KNOWN), *data.glob(_COPIES)) if path.exists()}
    things += [Thing("file", str(path), _size(path)) for path in sorted(known)]
    things += [Thing("left", str(path)) for path in sorted(set(data.iterdir()) - known)]
    return [*things, *(_images(settings) if images else ())]


async def purge(settings: Settings, things: list[Thing]) -> list[Thing]:
    """Remove what was planned: what is left. Nobody may own the directory. Raises OwnedError, EngineUnavailableError,
    and then what has not been removed yet stays.
    """
    held = DataDirectory.own(settings.data_dir, kind="command", version=__version__)
    try:
        await _remove_containers(settings, [thing.name for thing in things if thing.what == "container"])
        for thing in things:
            if thing.what == "file":
                _remove(Path(thing.name))
        _remove(settings.data_dir / places.LOCK_NAME)  # made anew by owning it
    finally:
        held.release()
    left = [thing for thing in things if thing.what == "left"]
    if not left and not any(settings.data_dir.iterdir()):
        settings.data_dir.rmdir()
    return [*left, *_remove_images(settings, [thing for thing in things if thing.what == "image"])]


async def _remove_containers(settings: Settings, sandboxes: list[str]) -> None:
    installation = installation_of(settings.data_dir / RECORDS_NAME)
    if installation is None or not sandboxes:
        return
    engine = build_engine(settings, _Known(installation), SystemClock())
    try:
        for sandbox in sandboxes:
            await engine.destroy(sandbox)
    finally:
        await engine.close()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    paths = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(one.lstat().st_size for one in paths if not one.is_dir())


def _images(settings: Settings) -> Iterator[Thing]:
    with closing(api_client(find_engine(settings.docker_host))) as api:
        for image in api.images(filters={"label": LABEL_KIND}):
            tags = [tag for tag in image.get("RepoTags") or () if not tag.startswith("<none>")]
            yield Thing("image", tags[0] if tags else image["Id"], image["Size"])


def _remove_images(settings: Settings, things: list[Thing]) -> list[Thing]:
    """Those that the engine keeps, since a container uses them."""
    if not things:
        return []
    left = []
    with closing(api_client(find_engine(settings.docker_host))) as api:
        for thing in things:
            try:
                api.remove_image(thing.name)
            except docker.errors.ImageNotFound:
                pass
            except docker.errors.APIError:
                left.append(Thing("left", thing.name, thing.bytes))
    return left


def installation_of(records: Path) -> str | None:
    """By whose label its containers are known; None where there are no records. Raises InvalidRequestError."""
    if not records.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro", uri=True)) as raw:
            return str(raw.execute("SELECT id FROM installation").fetchone()[0])
    except (sqlite3.Error, TypeError) as error:
        raise InvalidRequestError(
            f"Whose containers are this installation's cannot be read from {records}: {error}.",
            hint="Restore a backup, or remove containers with `docker rm` and the directory by hand.",
        ) from error
