"""How many sessions of the protocol a tenant may have open: beyond that its oldest one is ended, and nobody else's.

Only the older revisions have such sessions. Ours are not bound to them: a client whose session is gone begins another.
"""

from collections import OrderedDict
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.faces.web.lines import IN_SCOPE

MOST: Final = 200  # of a tenant
_MOST_TENANTS: Final = 10_000
_HEADER: Final = b"mcp-session-id"
_FIRST_ERROR: Final = 400  # status


class ProtocolSessions:
    """Stands before the SDK's manager, and ends sessions as their client would."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()  # by tenant, oldest first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        begun: list[bytes] = []

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < _FIRST_ERROR:
                begun.extend(value for name, value in message["headers"] if name.lower() == _HEADER)
            await send(message)

        asked = any(name == _HEADER for name, _ in scope["headers"])
        await self._app(scope, receive, send if asked else noting)
        caller = scope[IN_SCOPE].caller
        if begun and caller is not None:
            for session in self._counted(caller.tenant, begun[0]):
                await self._end(scope, session)

    def _counted(self, tenant: str, session: bytes) -> list[bytes]:
        """It is open; which ones are too many now. Those that ended by themselves are among the oldest."""
        sessions = self._open.setdefault(tenant, OrderedDict())
        self._open.move_to_end(tenant)
        sessions[session] = None
        if len(self._open) > _MOST_TENANTS:
            self._open.popitem(last=False)
        return [sessions.popitem(last=False)[0] for _ in range(len(sessions) - MOST)]

    async def _end(self, scope: Scope, session: bytes) -> None:
        headers = [(_HEADER, session), *((name, value) for name, value in scope["headers"] if name == b"host")]
        await self._app({**scope, "method": "DELETE", "headers": headers}, _nothing, _unheard)


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(_message: Message) -> None:
    """The answer, which nobody waits for."""
