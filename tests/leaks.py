"""What a finished test must not leave behind; `tests/docker/test_leaks.py` plants some of each kind."""

import asyncio
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import docker

from orchestrator.domain.hardening import LABEL_INSTALLATION


def containers(api: docker.APIClient, installation: str) -> list[str]:
    """Containers of an installation, in whatever state."""
    found = api.containers(all=True, filters={"label": [f"{LABEL_INSTALLATION}={installation}"]})
    return [f"container {row['Names']} ({row['State']})" for row in found]


def tasks() -> list[str]:
    """Tasks of the running loop beside the one that asks."""
    return [f"task {task.get_name()}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def files(directory: Path, *, expected: Iterable[str] = ()) -> list[str]:
    """What lies below a directory that should hold nothing but `expected`."""
    if not directory.exists():
        return []
    found = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    return [f"file {name}" for name in sorted(found - set(expected))]


def descriptors() -> set[str]:
    """Sockets, pipes and files that this process holds open, as the kernel names them."""
    held = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - entries vanish while they are looked at
        try:
            held.add(os.readlink(f"/proc/self/fd/{entry}"))  # noqa: PTH115
        except OSError:
            continue
    return {name for name in held if name.startswith(("socket:", "pipe:")) or name.endswith(".sqlite3")}


def transaction_open(path: Path) -> bool:
    """Whether somebody holds a write transaction on that SQLite file."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        probe.execute("ROLLBACK")
        return False
