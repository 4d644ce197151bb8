"""A request's body is taken in whole, within bounds of size and time, before anything looks at it."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.faces.web.answers import refuse

_UNREADABLE: Final = -1


class Bodies:
    """Stands behind the check of keys: nothing is read for whom nobody knows."""

    def __init__(self, app: ASGIApp, *, most: int, patience: float) -> None:
        self._app = app
        self._most = most
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (declared := _declared(scope)) == _UNREADABLE:
            await refuse(send, 400, "invalid_length")
            return
        if declared > self._most:
            await refuse(send, 413, "too_large")
            return
        body = bytearray()
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return  # the client has left
                    body += message.get("body", b"")
                    if len(body) > self._most:
                        await refuse(send, 413, "too_large")
                        return
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            await refuse(send, 408, "too_slow", close=True)
            return
        await self._app(scope, _Replay(bytes(body), receive).receive, send)


class _Replay:
    """The body in one piece, and then what follows it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else _UNREADABLE
    return 0
