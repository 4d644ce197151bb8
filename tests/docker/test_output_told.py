"""What a cell writes reaches whoever waits for it while the cell still runs."""

import asyncio

from orchestrator.app import Orchestrator
from orchestrator.services.slots import Ticket

PATIENCE = 30.0


async def test_output_is_heard_before_the_cell_ends(orchestrator: Orchestrator) -> None:
    ticket, heard = Ticket(), asyncio.Event()
    told: list[tuple[int, str]] = []

    def hear(total: int, recent: str) -> None:
        told.append((total, recent))
        heard.set()

    ticket.heard = hear
    code = "import time\nprint('first')\ntime.sleep(600)"
    call = asyncio.create_task(orchestrator.sessions.execute(code, session_id="s", ticket=ticket))
    async with asyncio.timeout(PATIENCE):
        await heard.wait()
    assert told == [(6, "first\n")]
    assert not call.done()
    call.cancel()
    await asyncio.wait([call])


async def test_a_flood_is_told_now_and_then_and_only_its_end(orchestrator: Orchestrator) -> None:
    ticket = Ticket()
    told: list[tuple[int, str]] = []
    ticket.heard = lambda total, recent: told.append((total, recent))
    code = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: print('x' * 100)\nprint('over')"
    result = await orchestrator.sessions.execute(code, session_id="s", ticket=ticket)
    assert result.status == "ok"
    assert 1 <= len(told) <= 8
    assert all(len(recent) <= 1000 for _, recent in told)
    assert [total for total, _ in told] == sorted(total for total, _ in told)


async def test_a_quick_cell_tells_nothing_but_its_answer(orchestrator: Orchestrator) -> None:
    ticket = Ticket()
    told: list[int] = []
    ticket.heard = lambda total, _: told.append(total)
    await orchestrator.sessions.execute("1", session_id="s")
    result = await orchestrator.sessions.execute("print(1)", session_id="s", ticket=ticket)
    assert (result.output, len(told) <= 1) == ("1\n", True), "a slow machine may tell it once"


async def test_a_cell_that_writes_right_after_another_one_did_is_heard_as_soon(orchestrator: Orchestrator) -> None:
    for _ in range(3):
        before = Ticket()
        before.heard = lambda _total, _recent: None
        await orchestrator.sessions.execute("print('before')", session_id="s", ticket=before)
        ticket, heard = Ticket(), asyncio.Event()

        def hear(_total: int, _recent: str, heard: asyncio.Event = heard) -> None:
            heard.set()

        ticket.heard = hear
        code = "import time\nprint('first')\ntime.sleep(600)"
        call = asyncio.create_task(orchestrator.sessions.execute(code, session_id="s", ticket=ticket))
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        await orchestrator.sessions.interrupt("s")
        await call
