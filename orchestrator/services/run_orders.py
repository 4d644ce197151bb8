"""The order that runs code in a session, or in none, and tells its output while it runs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.model import LOCAL_TENANT, ExecutionResult
from orchestrator.domain.orders import MAX_CHUNK_BYTES, Answer, Field, Progress
from orchestrator.services.orders import Call, Order
from orchestrator.services.tickets import Ticket

_MOST_CODE: Final = 64 * 1024 * 1024  # bytes that are taken in; how much may be run, the session says
_WAITING_SECONDS: Final = 1.0  # between two words about a call that waits for a sandbox


class _Output:
    """What a cell has written, as far as it is heard of: how much, and the last of it."""

    def __init__(self) -> None:
        self.more = asyncio.Event()
        self._total = 0
        self._recent = b""
        self._told = 0

    def hear(self, total: int, recent: str) -> None:
        """So many bytes by now, of which these are the last."""
        self._total, self._recent = total, recent.encode("utf-8", "surrogatepass")
        self.more.set()

    def fresh(self) -> bytes:
        """What nobody has been told yet; a part that went by unheard is named."""
        return self._from(self._total, self._recent)

    def rest(self, answer: ExecutionResult) -> bytes:
        """What is left to tell when the cell has ended."""
        return self._from(answer.output_bytes, answer.output.encode("utf-8", "surrogatepass"))

    def _from(self, total: int, known: bytes) -> bytes:
        missing, self._told = max(0, total - self._told), max(total, self._told)
        if missing <= len(known):
            return known[len(known) - missing :]
        return f"\n[{missing - len(known)} bytes are not shown]\n".encode() + known


async def _run(call: Call) -> AsyncGenerator[Answer, None]:
    code, given = await _code(call.chunks), call.given
    sessions, ticket, output = await call.of_tenant(), Ticket(), _Output()
    ticket.heard = output.hear
    running = asyncio.create_task(
        sessions.execute(code, session_id=given["session"], timeout=given["timeout"], ticket=ticket), name="run code"
    )
    hearing = asyncio.create_task(output.more.wait(), name="hear output")
    try:
        while not running.done():
            await asyncio.wait((running, hearing), timeout=_WAITING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ticket.place is not None:
                yield Progress("waiting for a sandbox", ticket.place, None, "in line")
            if hearing.done():
                output.more.clear()
                hearing = asyncio.create_task(output.more.wait(), name="hear output")
                for part in _parts(output.fresh()):
                    yield part
    finally:
        running.cancel()
        hearing.cancel()
        await asyncio.wait((running, hearing))
    answer = running.result()
    for part in _parts(output.rest(answer)):
        yield part
    yield _line(answer)


async def _code(chunks: AsyncIterator[bytes]) -> str:
    code = bytearray()
    async for chunk in chunks:
        code += chunk
        if len(code) > _MOST_CODE:
            raise InvalidRequestError(f"The code has more than {_MOST_CODE} bytes.")
    try:
        return code.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"The code is not UTF-8: {error.reason} at byte {error.start}.") from error


def _parts(text: bytes) -> list[bytes]:
    return [text[start : start + MAX_CHUNK_BYTES] for start in range(0, len(text), MAX_CHUNK_BYTES)]


def _line(answer: ExecutionResult) -> dict[str, Any]:
    error, stands = answer.error, answer.resumed_from
    return {
        "session": answer.session_id,
        "execution": answer.execution,
        "outcome": "ok" if error is None else error.code,
        "value": answer.value,
        "error": None
        if error is None
        else {"type": error.type, "message": error.message, "traceback": error.traceback, "hint": error.hint},
        "output_bytes": answer.output_bytes,
        "displays": [{"mime": display.mime, "bytes": len(display.data)} for display in answer.displays],
        "seconds": answer.duration_ms / 1000,
        "cpu": answer.cpu,
        "memory_peak": answer.memory_peak or None,
        "bound": list(answer.bound),
        "removed": list(answer.removed),
        "saved_through": answer.saved_through,
        "resumed_from": None if stands is None else {"rung": stands.rung, "execution": stands.execution},
        "notes": list(answer.notes),
    }


RUN_ORDERS: Final = (
    Order(
        "session.run",
        "Run code that the client sends as a stream, in a session or (without one) in a sandbox of its own.",
        _run,
        {
            "session": Field("text"),
            "tenant": Field("text", default=LOCAL_TENANT),
            "timeout": Field("number", least=0),
        },
        basis="whole",
        takes_stream=True,
        gives_stream=True,
    ),
)
