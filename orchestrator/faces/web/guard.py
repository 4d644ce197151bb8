"""What stands before every request: who is listened to, how long a client may take, and what became of it."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.domain.attempts import Attempts
from orchestrator.domain.errors import OrchestratorError
from orchestrator.faces.web.answers import refuse
from orchestrator.faces.web.connections import ABORT
from orchestrator.faces.web.lines import IN_SCOPE, UNAUTHORIZED, Line, Lines
from orchestrator.faces.web.shares import network_of

logger = logging.getLogger(__name__)


class Guard:
    """Wraps the whole site. Outermost, so that nothing is spent on whom nobody listens to."""

    def __init__(self, app: ASGIApp, lines: Lines, attempts: Attempts, *, patience: float) -> None:
        self._app = app
        self._lines = lines
        self._attempts = attempts
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the site."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        line = Line(address_of(scope), scope["path"], scope["method"], asyncio.current_task())
        scope[IN_SCOPE] = line
        said = _Said(send, self._patience, line, scope.get(ABORT))
        with self._lines.opened(line):
            try:
                await self._serve(scope, line, receive, said)
            except asyncio.CancelledError:
                if not line.cut or line.task is None or line.task.uncancel():
                    raise
                await said.ended()
            except ConnectionError:
                await said.ended()
            except OrchestratorError as failure:
                logger.warning("%s %s is not served: %s", line.method, line.path, failure)
                await said.ended()
        logger.debug("%s %s from %s: %s", line.method, line.path, line.address, said.status)

    async def _serve(self, scope: Scope, line: Line, receive: Receive, said: "_Said") -> None:
        loop = asyncio.get_running_loop()
        # The parser leaves white space around values, which is no part of them.
        scope["headers"] = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        key = key_of(scope)
        blocked = self._attempts.blocked_for(line.address, loop.time())
        if blocked and (key is None or not self._attempts.known(key)):
            await refuse(said.send, 429, "too_many_requests", retry_after=blocked)
            return
        await self._app(scope, _Heard(receive, line).receive, said.send)
        if key is None:
            return
        if said.status == UNAUTHORIZED:
            self._attempts.failed(line.address, loop.time())
        elif line.caller is not None:
            self._attempts.succeeded(key)


class _Heard:
    """What comes from the client. Its leaving may be held back from the SDK, which would end the call at once."""

    def __init__(self, receive: Receive, line: Line) -> None:
        self._receive = receive
        self._line = line

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._line.gone.set()
            if self._line.held:
                await asyncio.sleep(self._line.held)
        return message


class _Said:
    """What goes to the client, each part within bounds: who does not read is cut off."""

    def __init__(self, send: Send, patience: float, line: Line, abort: Callable[[], None] | None) -> None:
        self._send = send
        self._patience = patience
        self._line = line
        self._abort = abort
        self._complete = False
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if self._complete:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body", False):
            self._complete = True
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            self._line.gone.set()
            self._complete = True
            if self._abort is not None:
                self._abort()
            raise ConnectionAbortedError("the client does not read") from None

    async def ended(self) -> None:
        """Nothing more follows: what has begun is closed in order, and what has not is told why."""
        if self._complete:
            return
        with suppress(ConnectionError):
            if self.status is None:
                status = self._line.cut or 503
                await refuse(
                    self.send, status, "invalid_token" if status == UNAUTHORIZED else "unavailable", close=True
                )
            else:
                await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def address_of(scope: Scope) -> str:
    """Whom failed attempts are counted for."""
    return network_of((scope.get("client") or ("", 0))[0])


def key_of(scope: Scope) -> bytes | None:
    """The digest of what the request bears as its key; None where it bears none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return hashlib.sha256(value).digest()
    return None
