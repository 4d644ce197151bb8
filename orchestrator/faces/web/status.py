"""What a service manager asks: is it alive, can it serve, what are its figures."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.types import Receive, Scope, Send

from orchestrator.faces.web.answers import TEXT, answer, refuse
from orchestrator.faces.web.keys import KeyVerifier

KEPT_SECONDS: Final = 1.0  # for which an answer about readiness is given again: nobody makes the engine busy by asking
FIGURES_KIND: Final = b"text/plain; version=0.0.4; charset=utf-8"

Readiness = Callable[[], Awaitable[Mapping[str, bool]]]
Figures = Callable[[], Awaitable[bytes]]


class Status:
    """`/healthz`, `/readyz` and `/metrics`. The first two say nothing that strangers should not know."""

    def __init__(self, readiness: Readiness, figures: Figures, verifier: KeyVerifier | None) -> None:
        self._readiness = readiness
        self._figures = figures
        self._verifier = verifier  # None: whoever can connect may see the figures
        self._asked: tuple[float, asyncio.Task[Mapping[str, bool]]] | None = None
        self.ending = False  # set once no further calls are taken

    async def healthz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Alive: this loop turns."""
        await answer(send, 200, b"alive\n", TEXT)

    async def readyz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Each part that a call needs, and whether it is there; 503 where one is not."""
        parts = {"serving": not self.ending, **await self._ready()}
        lines = "".join(f"{part}: {'ok' if fine else 'failed'}\n" for part, fine in parts.items())
        await answer(send, 200 if all(parts.values()) else 503, lines.encode(), TEXT)

    async def metrics(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """The figures, for Prometheus."""
        if self._verifier is not None and (refused := await self._refused(scope, self._verifier)) is not None:
            status, error = refused
            challenge = f'Bearer error="{error}"'.encode()
            await answer(send, status, json.dumps({"error": error}).encode(), headers={b"www-authenticate": challenge})
            return
        await answer(send, 200, await self._figures(), FIGURES_KIND)

    async def nothing(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """There is nothing under that path."""
        await refuse(send, 404, "not_found")

    async def _ready(self) -> Mapping[str, bool]:
        now = asyncio.get_running_loop().time()
        if self._asked is None or (self._asked[1].done() and now - self._asked[0] > KEPT_SECONDS):
            self._asked = now, asyncio.create_task(self._look(), name="look whether it is ready")
        return await asyncio.shield(self._asked[1])

    async def _look(self) -> Mapping[str, bool]:
        return await self._readiness()

    async def _refused(self, scope: Scope, verifier: KeyVerifier) -> tuple[int, str] | None:
        token = bearer_of(scope)
        found = None if token is None else await verifier.verify_token(token)
        if found is None:
            return 401, "invalid_token"
        return None if "admin" in found.scopes else (403, "insufficient_scope")


def bearer_of(scope: Scope) -> str | None:
    """The token that a request bears."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return str(value[7:], "latin-1")
    return None
