"""The whole site as one ASGI application: sessions under /mcp, and what a service manager asks."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.domain.access import Credentials
from orchestrator.domain.attempts import Attempts
from orchestrator.faces.mcp_server import ToolServer
from orchestrator.faces.web.admin_pages import ADMIN_PATH, AdminOperations, AdminPages, Allowed
from orchestrator.faces.web.bodies import Bodies
from orchestrator.faces.web.guard import Guard
from orchestrator.faces.web.keys import KeyVerifier
from orchestrator.faces.web.lines import Lines
from orchestrator.faces.web.protected_resource import ProtectedResource
from orchestrator.faces.web.protocol_sessions import ProtocolSessions
from orchestrator.faces.web.shares import TenantShares
from orchestrator.faces.web.status import Figures, Readiness, Status

MCP_PATH: Final = "/mcp"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_SESSION_IDLE: Final = 15 * 60.0  # seconds; a client whose protocol session is gone begins another, ours are not bound
_MOST_SESSIONS: Final = 4_000  # of the protocol
_ENDING: Final = 503
_CUT_SECONDS: Final = 2.0  # for what was cut off to end


@dataclass(frozen=True, slots=True)
class SiteBounds:
    """What requests may cost. Times in seconds."""

    names: Sequence[str] = ()  # under which the site is reached, beside those of loopback
    body: int = 8 * 1024 * 1024  # bytes
    patience: float = 20.0
    failed_attempts: int = 20  # a minute and address
    admin: Allowed = "read"
    open_requests: int = 1_000  # of a tenant


class Site:
    """Routes requests. The outermost application is `guarded`; `lines` knows what is under way."""

    def __init__(
        self,
        server: ToolServer,
        credentials: Credentials,
        *,
        readiness: Readiness,
        figures: Figures,
        open_figures: bool,
        bounds: SiteBounds,
        operations: AdminOperations | None = None,
        resource: ProtectedResource | None = None,
    ) -> None:
        verifier = KeyVerifier(credentials)
        self.lines = Lines()
        self.status = Status(readiness, figures, verifier)
        self._credentials = credentials
        self._manager = StreamableHTTPSessionManager(
            server.protocol,
            security_settings=_known_hosts(bounds.names),
            session_idle_timeout=_SESSION_IDLE,
            max_sessions=_MOST_SESSIONS,
            max_request_body_size=bounds.body,
        )
        self._pages: Mapping[str, ASGIApp] = {
            MCP_PATH: _with_keys(ProtocolSessions(self._manager.handle_request), verifier, bounds, resource),
            "/healthz": self.status.healthz,
            "/readyz": self.status.readyz,
            **({} if resource is None else {resource.path: resource.told}),
            **({} if open_figures else {"/metrics": self.status.metrics}),
        }
        self._admin: ASGIApp = self.status.nothing
        if operations is not None and bounds.admin != "off":
            patience, body = bounds.patience, bounds.body
            self._admin = AdminPages(operations, verifier, bounds.admin, body=body, patience=patience)
        self.guarded = Guard(self._route, self.lines, Attempts(bounds.failed_attempts), patience=bounds.patience)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The protocol's sessions live within this block."""
        async with self._manager.run():
            yield

    async def watch(self) -> None:
        """See to it, for as long as this runs, that who has lost the key has lost the connection."""
        await self.lines.watch(self._credentials)

    async def drain(self, seconds: float, hurried: asyncio.Event) -> None:
        """No further calls; those under way have so long, or until somebody is in a hurry, and are ended then."""
        self.status.ending = True
        self.lines.cut_off(_ENDING, lambda line: line.method == "GET")  # streams that end by themselves never
        await self.lines.drained(seconds, hurried)
        self.lines.cut_off(_ENDING)
        await self.lines.drained(_CUT_SECONDS, asyncio.Event())

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        otherwise = self._admin if scope["path"].startswith(ADMIN_PATH) else self.status.nothing
        await self._pages.get(scope["path"], otherwise)(scope, receive, send)


def _with_keys(app: ASGIApp, verifier: KeyVerifier, bounds: SiteBounds, resource: ProtectedResource | None) -> ASGIApp:
    inner: ASGIApp = Bodies(app, most=bounds.body, patience=bounds.patience)
    inner = TenantShares(inner, bounds.open_requests)
    inner = RequireAuthMiddleware(inner, ["read"], None if resource is None else resource.url)
    inner = AuthContextMiddleware(inner)
    return AuthenticationMiddleware(inner, backend=BearerAuthBackend(verifier))


def _known_hosts(names: Sequence[str]) -> TransportSecuritySettings:
    hosts = [*_LOOPBACK, *names]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[*hosts, *(f"{host}:*" for host in hosts)],
        allowed_origins=[
            f"{scheme}://{host}{port}" for scheme in ("http", "https") for host in hosts for port in ("", ":*")
        ],
    )


def figures_only(figures: Figures) -> ASGIApp:
    """An application with nothing but `/metrics`, for a bind of its own."""
    status = Status(_nothing_to_ask, figures, None)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await (status.metrics if scope["path"] == "/metrics" else status.nothing)(scope, receive, send)

    return route


async def _nothing_to_ask() -> Mapping[str, bool]:
    return {}
