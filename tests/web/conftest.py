"""A site on loopback with pretended sessions, for each test anew."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mcp.harness import eventually
from tests.web.harness import Place, serving


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Served with the defaults."""
    served: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(tmp_path) as place:
            served.set_result(place)
            await over.wait()

    # The SDK wants to be left by the task that has entered it, and a fixture has two.
    task = asyncio.create_task(serve())
    place = await served
    yield place
    await eventually(lambda: not len(place.site.lines), "no request is left open")
    over.set()
    await task
