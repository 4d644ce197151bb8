"""Ends an owner from outside, gently or not, and looks for what it may have left: containers, processes, sockets."""

import asyncio
import contextlib
import os
import signal
from contextlib import closing
from pathlib import Path

from orchestrator import __version__
from orchestrator.adapters.data_directory import DataDirectory, holder
from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import RECORDS_NAME
from orchestrator.domain.errors import OwnedError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.settings import Settings

END_SECONDS = 60.0  # an owner removes every sandbox before it ends
_POLL_SECONDS = 0.05


async def end_owner(settings: Settings) -> int | None:
    """Ask the owner of the data directory to end, and wait until it has: its process id, None where there is none.

    Raises OwnedError where it has not ended after a minute, or where a program that uses the library is the owner.
    """
    asked: int | None = None
    clock = SystemClock()
    deadline = clock.monotonic() + END_SECONDS
    while True:
        try:
            DataDirectory.own(settings.data_dir, kind="library", version=__version__).release()
        except OwnedError:
            found = holder(settings.data_dir)
            if (found is not None and found.kind == "library") or clock.monotonic() > deadline:
                raise
            if found is not None and asked is None:
                asked = found.pid
                with contextlib.suppress(ProcessLookupError):
                    os.kill(asked, signal.SIGTERM)
            await asyncio.sleep(_POLL_SECONDS)
        else:
            if asked is None or not _runs(asked, settings.data_dir):
                return asked
            await asyncio.sleep(_POLL_SECONDS)  # the lock is given back a moment before the process is gone


def hurry_owner(settings: Settings) -> None:
    """Ask the owner once more: where it is ending, it leaves what the engine has not removed to the next one."""
    found = holder(settings.data_dir)
    if found is not None and found.kind == "owner" and _runs(found.pid, settings.data_dir):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)


async def kill_owner(settings: Settings) -> int | None:
    """End the owner of the data directory as a power cut would, and wait until it is gone: its process id.

    None where there is none, or where it is a program that uses the library.
    """
    found = holder(settings.data_dir)
    if found is None or found.kind != "owner" or not _runs(found.pid, settings.data_dir):
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGKILL)
    while True:
        if not _runs(found.pid, settings.data_dir):
            return found.pid
        await asyncio.sleep(_POLL_SECONDS)


async def recorded(settings: Settings) -> bool:
    """Whether the records name a sandbox that nobody has seen gone."""
    async with open_records(settings.data_dir / RECORDS_NAME, SystemClock()) as records:
        return bool(await records.sandboxes())


async def leftovers(settings: Settings) -> list[str]:
    """What is left of an installation whose owner has ended: one phrase each. Asks the engine itself, not our records.

    Raises EngineUnavailableError where the engine does not answer.
    """
    return await containers_left(settings) + await asyncio.to_thread(_processes_and_sockets, settings)


async def containers_left(settings: Settings) -> list[str]:
    """The installation's containers, one phrase each, by the engine's word; its owner may be at work.

    Raises EngineUnavailableError where the engine does not answer.
    """
    async with open_records(settings.data_dir / RECORDS_NAME, SystemClock()) as records:
        label = f"{LABEL_INSTALLATION}={records.installation}"
    return await asyncio.to_thread(_containers, settings.docker_host, label)


def _containers(docker_host: str | None, label: str) -> list[str]:
    with closing(api_client(find_engine(docker_host))) as api:
        rows = api.containers(all=True, filters={"label": [label]})
    return [f"container {row['Names'][0].lstrip('/')} ({row['State']})" for row in rows]


def _runs(pid: int, data_dir: Path) -> bool:
    """Whether the process lives and was started for this data directory."""
    try:
        return os.fsencode(data_dir) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # it has ended


def _processes_and_sockets(settings: Settings) -> list[str]:
    processes = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    found = [f"process {pid}" for pid in processes if pid != os.getpid() and _runs(pid, settings.data_dir)]
    with contextlib.suppress(FileNotFoundError):
        found += [f"socket {path}" for path in sorted(settings.runtime_dir.rglob("*")) if not path.is_dir()]
    return found
