"""Sandboxes for hostile cells: ours, and ones that lack one protection each. Started when first asked for.

No test here ends before the orchestrator, a bystander, the host's memory and disk, and what is left were looked at.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.docker.saved_sandbox import Fresh, Pieces, SavedSandbox, sandbox, snapshot_engine
from tests.security.arena import PRELUDE, Arena, opened_arena
from tests.security.figures import FIGURES, lines_of
from tests.security.weakened import Weakening, weaken

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
                report = await started.run(PRELUDE)
                assert report.outcome == "ok", report.traceback
                running[weakening] = started
            return running[weakening]

        yield running_with


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path: Path) -> AsyncIterator[Fresh]:
    """Sandboxes without an orchestrator that know each other's pieces, as through a store."""
    pieces: Pieces = {}
    async with snapshot_engine(tmp_path / "c") as made:
        yield lambda: sandbox(made, pieces)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    """An orchestrator with an attacker and a bystander, for all tests of a file."""
    async with opened_arena(tmp_path_factory.mktemp("arena")) as opened:
        yield opened


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def unharmed(
    request: pytest.FixtureRequest, arena: Arena, record_property: Callable[[str, object], None]
) -> AsyncIterator[None]:
    """What must hold after each test; its latencies go into the table."""
    async with arena.under_attack():
        yield
    parameters = getattr(request.node, "callspec", None)
    kind = parameters.params.get("kind") if parameters is not None else None
    record_property(
        FIGURES, (kind or request.module.KIND, arena.latencies.beside, arena.latencies.after, arena.latencies.owner)
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of latencies; where tests ran in several processes, of all of them."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    figures = [
        value
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == FIGURES
    ]
    for line in lines_of(figures):
        terminalreporter.write_line(line)
