"""Sandboxes for hostile cells: ours, and ones that lack one protection each. Started when first asked for."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.docker.saved_sandbox import SavedSandbox, sandbox, snapshot_engine
from tests.security.weakened import Weakening, weaken

HERE = Path(__file__).parent
NUMBERS = (HERE / "system_calls.json").read_text("utf-8")
PRELUDE = (HERE / "prelude.py").read_text("utf-8")

Inside = Callable[[Weakening | None], Awaitable[SavedSandbox]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    """The sandbox with that weakening, or (None) as users get it; one of each for all tests of a file."""
    running: dict[Weakening | None, SavedSandbox] = {}
    async with AsyncExitStack() as stack:

        async def running_with(weakening: Weakening | None) -> SavedSandbox:
            if weakening not in running:
                engine = await stack.enter_async_context(snapshot_engine(tmp_path_factory.mktemp("c")))
                if weakening is not None:
                    weaken(engine, weakening)
                started = await stack.enter_async_context(sandbox(engine, {}))
                report = await started.run(f"NUMBERS = {json.loads(NUMBERS)!r}\n{PRELUDE}")
                assert report.outcome == "ok", report.traceback
                running[weakening] = started
            return running[weakening]

        yield running_with
