"""The end of a run: the owner ends in order, and then nothing is left that should not be."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.adapters.store.pieces.store import open_pieces
from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.model import SandboxState
from orchestrator.domain.ports import CREATE_BOUND
from orchestrator.leftovers import end_owner, leftovers
from orchestrator.policies import pieces_policy_of
from orchestrator.provisioning import CHANNELS_NAME
from orchestrator.settings import Settings
from tests import leaks
from tests.chaos.processes import pids_naming
from tests.docker.conftest import records_left

_BEYOND = 30.0  # seconds after that for the removal itself
_POLL_SECONDS = 0.5


async def until_removed(settings: Settings) -> None:
    """Wait until the owner has closed the row of every sandbox that no session has; `what_is_left` names the others.

    One that an earlier owner was creating when it was killed may come as long as the engine has for a create.
    """
    deadline = time.monotonic() + CREATE_BOUND + _BEYOND
    while time.monotonic() < deadline:
        async with open_records(settings.data_dir / RECORDS_NAME, SystemClock()) as records:
            if all(row.state is SandboxState.CLAIMED for row in await records.sandboxes()):
                return
        await asyncio.sleep(_POLL_SECONDS)


async def what_is_left(settings: Settings, root: Path) -> list[str]:
    """End the owner, as a user would, and look for everything that it may have left: a phrase each."""
    await end_owner(settings)
    left = await leftovers(settings)
    _, rows = records_left(settings.data_dir / RECORDS_NAME)
    left += [*rows, *leaks.files(settings.runtime_dir / CHANNELS_NAME)]
    left += [f"process {pid}" for pid in pids_naming(root, "-m")]
    left += [phrase async for phrase in _unreferenced(settings)]
    # What is there fits together, and another owner leaves as little.
    async with Orchestrator.open(settings) as orchestrator:
        left += (await orchestrator.check()).problems
    return left + await leftovers(settings)


async def _unreferenced(settings: Settings) -> AsyncIterator[str]:
    async with open_pieces(settings.data_dir, SystemClock(), pieces_policy_of(settings)) as pieces:
        for key in sorted(await pieces.keys()):
            if (dead := (await pieces.sizes(key)).unreferenced) > 0:
                yield f"{dead} bytes of pieces in session {key} that no snapshot refers to"
