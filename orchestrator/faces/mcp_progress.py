"""Signs of life of a call: on a timer, and when its cell writes something."""

import anyio
from mcp.server.mcpserver import Context

from orchestrator.services.slots import Ticket

_MOST_SHOWN = 200  # characters of what a cell has written last


async def report_progress(ctx: Context, session_id: str | None, ticket: Ticket, seconds: tuple[float, float]) -> None:
    """Tell the client that the call goes on, what it waits for, and what it said last. For a task of its own: a client
    that does not read stalls it and not the call, and is told only the latest then.
    """
    pause, interval = seconds
    said = _Said()
    ticket.heard = said.hear
    began = anyio.current_time()
    where = f"session {session_id!r}" if session_id else "a stateless call"
    while True:
        with anyio.move_on_after(pause):
            await said.wait()
        elapsed = anyio.current_time() - began
        place = ticket.place
        waiting = "" if place is None else f", waiting for a sandbox: number {place} in line"
        await ctx.report_progress(elapsed, None, f"{elapsed:.0f} s in {where}{waiting}{said.shown}")
        pause = interval


class _Said:
    """What a cell has written by now."""

    def __init__(self) -> None:
        self._more = anyio.Event()
        self.shown = ""

    def hear(self, total: int, recent: str) -> None:
        """So many bytes by now, of which these are the last."""
        line = next((line for line in reversed(recent.splitlines()) if line.strip()), "")
        self.shown = f", {total} bytes of output, at last: {line[-_MOST_SHOWN:]}"
        self._more.set()

    async def wait(self) -> None:
        """Until there is more than at the last time."""
        await self._more.wait()
        self._more = anyio.Event()
