"""The process of `orchestrator serve`: an owner that also serves tenants over HTTP."""

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol

import uvloop
from mcp.server.mcpserver import Context

from orchestrator import __version__
from orchestrator.domain.access import LOCAL_CALLER, Caller, Credentials
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.orders import Answer
from orchestrator.faces.admin import ADMIN, Operations, admin_conversation
from orchestrator.faces.mcp_server import PROTOCOL, Sessions, build_server
from orchestrator.faces.owner import serve_connections
from orchestrator.faces.web.admin_pages import AdminOperations
from orchestrator.faces.web.keys import caller_of, line_of
from orchestrator.faces.web.pages import MCP_PATH, Site, SiteBounds, figures_only
from orchestrator.faces.web.protected_resource import ProtectedResource
from orchestrator.faces.web.server import Reception, bound, listening
from orchestrator.logs import log_to_standard_error
from orchestrator.owner_process import Reloads, Stop, known_failure, private_places
from orchestrator.settings import Settings

logger = logging.getLogger(__name__)

_SPARE_DESCRIPTORS = 1_024  # beside connections: sandboxes, files, the store
_FIGURES_CONNECTIONS = 20


class AllOperations(Operations, AdminOperations, Protocol):
    """Over both ways."""

    def answers(
        self,
        name: str,
        given: Mapping[str, object],
        *,
        by: Caller = LOCAL_CALLER,
        chunks: AsyncIterator[bytes] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Carry out one order."""


class Served(Protocol):
    """An opened orchestrator, as far as serving needs it."""

    @property
    def credentials(self) -> Credentials:
        """Says whose keys are valid."""

    @property
    def operations(self) -> AllOperations:
        """What operators may order."""

    def on_behalf(self, caller: Caller) -> Sessions:
        """The sessions of that caller's tenant."""

    async def ready(self) -> Mapping[str, bool]:
        """What a call needs, and whether it is there."""

    async def figures(self) -> bytes:
        """The figures, in Prometheus' words."""

    @property
    def reloading(self) -> Reloads:
        """Lets a changed configuration count."""

    def hurry(self) -> None:
        """Let the end wait for nothing any more."""


Opened = Callable[[Settings], AbstractAsyncContextManager[Served]]


def run_server(load: Callable[[], Settings], opened: Opened, *, started: Callable[[str], None]) -> None:
    """Serve until a signal; `started` is told the address then. Raises OrchestratorError where it cannot serve."""
    settings = load()
    log_to_standard_error(settings.log_format)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it tells of each client that speaks no HTTP
    private_places(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, load, opened, started))
    except asyncio.CancelledError:
        logger.info("ended by a signal before it could serve")
    except BaseException as failure:
        reason = known_failure(failure)
        if reason is None:
            raise
        raise reason from (None if reason is failure else failure)
    logger.info("ended")


async def _serve(
    settings: Settings, load: Callable[[], Settings], opened: Opened, started: Callable[[str], None]
) -> None:
    tls = _tls(settings)
    stop = Stop()
    stop.target = asyncio.current_task()
    with stop.at_signals(), _bound(settings.http_host, settings.http_port) as sock:
        _raise_descriptors(settings.http_connections + _SPARE_DESCRIPTORS)
        async with opened(settings) as orchestrator:
            hurried = asyncio.Event()

            def hurry() -> None:
                orchestrator.hurry()
                hurried.set()

            def reload() -> None:
                _renew(tls, orchestrator.reloading.reload(load))

            stop.hurry, stop.reload = hurry, reload
            told = stop.target = asyncio.create_task(_for_ever(), name="serve")
            async with _serving(settings, orchestrator, sock, tls, hurried) as address:
                logger.info("version %s serves %s at %s", __version__, settings.data_dir, address)
                started(address)
                await asyncio.wait([told])
                stop.target = None
                logger.info("ending: calls under way have %.0f s", settings.serve_drain)


async def _for_ever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def _serving(
    settings: Settings, orchestrator: Served, sock: socket.socket, tls: ssl.SSLContext | None, hurried: asyncio.Event
) -> AsyncIterator[str]:
    """Everything that is served, until the block ends; what is under way then has its time."""
    site = _site(settings, orchestrator)
    local = orchestrator.on_behalf(LOCAL_CALLER)
    relays = {
        PROTOCOL: build_server(lambda _context: local).conversation(),
        ADMIN: admin_conversation(orchestrator.operations),
    }
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        await stack.enter_async_context(site.running())
        if settings.metrics_bind is not None:
            host, _, port = settings.metrics_bind.rpartition(":")
            own = stack.enter_context(_bound(host, int(port)))
            few = Reception(_FIGURES_CONNECTIONS, settings.http_idle, settings.http_patience)
            await stack.enter_async_context(listening(figures_only(orchestrator.figures), own, few))
        reception = Reception(
            settings.http_connections,
            settings.http_idle,
            settings.http_patience,
            tls,
            settings.http_trusted_proxies,
            settings.http_each,
        )
        ending = partial(site.drain, settings.serve_drain, hurried)
        await stack.enter_async_context(listening(site.guarded, sock, reception, drain=ending))
        tasks = [
            group.create_task(serve_connections(relays, settings.owner_socket, linger=None), name="serve relays"),
            group.create_task(site.watch(), name="watch keys"),
        ]
        try:
            yield _address(settings, sock)
        finally:
            for task in tasks:
                task.cancel()


def _site(settings: Settings, orchestrator: Served) -> Site:
    async def left_by(context: Context, returns: bool) -> None:  # noqa: FBT001 - a callback
        await line_of(context).left(settings.client_grace, returns=returns)

    server = build_server(lambda context: orchestrator.on_behalf(caller_of(context)), left_by=left_by)
    bounds = SiteBounds(
        settings.names,
        int(settings.http_body_limit),
        settings.http_patience,
        settings.http_failed_attempts,
        settings.http_admin,
        settings.http_each,
    )
    return Site(
        server,
        orchestrator.credentials,
        readiness=orchestrator.ready,
        figures=orchestrator.figures,
        open_figures=settings.metrics_bind is not None,
        bounds=bounds,
        operations=orchestrator.operations,
        resource=_resource(settings),
    )


def _resource(settings: Settings) -> ProtectedResource | None:
    resource = ProtectedResource.of(settings.jwt_audience, settings.jwt_issuer)
    if resource is None and settings.jwt_issuer is not None:
        logger.warning("clients are not told where to get tokens: issuer and audience are not both URLs")
    return resource


def _address(settings: Settings, sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    scheme = "http" if settings.http_certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{MCP_PATH}"


def _bound(host: str, port: int) -> socket.socket:
    try:
        return bound(host, port)
    except OSError as failure:
        raise InvalidRequestError(
            f"Port {port} at {host} cannot be had: {failure.strerror}.",
            hint="Choose another with ORCHESTRATOR_HTTP_PORT, or end what listens there.",
        ) from failure


def _tls(settings: Settings) -> ssl.SSLContext | None:
    try:
        return settings.tls()
    except (OSError, ssl.SSLError) as failure:
        raise InvalidRequestError(
            f"The certificate {settings.http_certificate} cannot be used: {failure.strerror or failure}.",
            hint="ORCHESTRATOR_HTTP_CERTIFICATE and _KEY name files in PEM that belong to each other.",
        ) from failure


def _renew(tls: ssl.SSLContext | None, settings: Settings) -> None:
    """Take the certificate that lies there now, for connections that come; the old one stays where it is no good."""
    if tls is None or settings.http_certificate is None:
        return
    try:
        settings.tls()  # in a context of its own first, since half of a pair would stay in this one
        tls.load_cert_chain(settings.http_certificate, settings.http_certificate_key)
    except (OSError, ssl.SSLError) as failure:
        logger.warning("the certificate is not taken over: %s", failure.strerror or failure)


def _raise_descriptors(wanted: int) -> None:
    """Have room for as many open files as connections and sandboxes take, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        logger.warning("process %d may open %d files; %d are wanted: raise its limit", os.getpid(), most, wanted)
