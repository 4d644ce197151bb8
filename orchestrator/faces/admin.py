"""What an operator asks of an owner over its socket: one request a line, one answer a line, both JSON."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from orchestrator.domain.errors import InvalidRequestError, OrchestratorError, OwnedError
from orchestrator.faces.owner import Conversation

ADMIN: Final = ("admin", 1)  # what a greeting names
_ANSWER_SECONDS: Final = 60.0
Line = Mapping[str, Any]


class Operations(Protocol):
    """What an owner does for operators; see services/operations.py."""

    def answers(self, order: str, given: Line) -> AsyncIterator[Line]:
        """Carry out one order; the answer is one object or several. Raises OrchestratorError."""


def admin_conversation(operations: Operations) -> Conversation:
    """How an owner answers: who can connect to its socket is its user, or root."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                asked = json.loads(line)
                async for answer in operations.answers(asked["order"], asked["given"]):
                    await _tell(writer, {"answer": answer})
                await _tell(writer, {"done": True})
            except OrchestratorError as error:
                await _tell(writer, {"error": error.message, "hint": error.hint})
            except (ValueError, KeyError, TypeError):
                await _tell(writer, {"error": "The request cannot be read.", "hint": None})

    return converse


async def _tell(writer: asyncio.StreamWriter, line: Line) -> None:
    writer.write(json.dumps(line).encode() + b"\n")
    await writer.drain()


def ask_owner(socket_path: Path, order: str, given: Line) -> Iterator[Line]:
    """Have the owner that listens there carry out an order. Raises OwnedError where it does not listen, or does not
    speak with operators; InvalidRequestError with what it refuses.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as link:
        link.settimeout(_ANSWER_SECONDS)
        try:
            link.connect(str(socket_path))
            lines = link.makefile("rwb")
            _send(lines, {"protocol": ADMIN[0], "version": ADMIN[1]})
            greeting = json.loads(lines.readline() or b"{}")
            if not greeting.get("ok"):
                raise OwnedError(
                    f"The owner of the data directory refuses: {greeting.get('error', 'it says nothing')}",
                    hint="End it, or upgrade it, and run the command again.",
                )
            _send(lines, {"order": order, "given": dict(given)})
            yield from _received(lines)
        except OSError as failure:
            raise OwnedError(
                f"The owner of the data directory cannot be asked: {failure.strerror or failure}.",
                hint="Where a program uses the directory as a library, wait for its end; else end the owner.",
            ) from failure


def _received(lines: Any) -> Iterator[Line]:  # noqa: ANN401 - a socket's file, which typeshed has no short name for
    while line := lines.readline():
        told = json.loads(line)
        if "error" in told:
            raise InvalidRequestError(told["error"], hint=told["hint"])
        if "done" in told:
            return
        yield told["answer"]
    raise OwnedError("The owner of the data directory has ended meanwhile.", hint="Run the command again.")


def _send(lines: Any, line: Line) -> None:  # noqa: ANN401 - likewise
    lines.write(json.dumps(line).encode() + b"\n")
    lines.flush()
