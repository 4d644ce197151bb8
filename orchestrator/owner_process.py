"""The process that owns a data directory and serves its relays: what surrounds `app.Orchestrator` there."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import Protocol

from orchestrator import __version__, places
from orchestrator.adapters.host_memory import keep_freed_memory
from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError, OwnedError
from orchestrator.faces.admin import ADMIN, Operations, admin_conversation
from orchestrator.faces.mcp_server import PROTOCOL, Sessions, build_server
from orchestrator.faces.owner import serve_connections
from orchestrator.settings import Settings

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 1024 * 1024  # and one older file of the same size
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Reloads(Protocol):
    """Lets a changed configuration count; see reloading.py."""

    def reload(self, load: Callable[[], Settings]) -> Settings:
        """Read the settings again, and tell in the log what came of it."""


class HasSessions(Protocol):
    """An opened orchestrator, as far as serving needs it."""

    def on_behalf(self, caller: Caller) -> Sessions:
        """The sessions of that caller's tenant."""

    @property
    def operations(self) -> Operations:
        """What operators may order."""

    @property
    def reloading(self) -> Reloads:
        """Lets a changed configuration count."""

    def hurry(self) -> None:
        """Let the end wait for nothing any more."""


Opened = Callable[[Settings], AbstractAsyncContextManager[HasSessions]]


def run_owner(load: Callable[[], Settings], opened: Opened, *, report_descriptor: int | None) -> None:
    """Serve relays until nobody has been connected for `owner_linger` seconds, or until a signal.

    `load` reads the settings; `opened` takes the data directory's lock and gives it back at its end.
    `report_descriptor` is the pipe of the relay that started this process: it is told in one line how the start went,
    and logs go to a file instead of standard error. Raises OrchestratorError where the owner cannot start.
    """
    report = _Report(report_descriptor)
    try:
        settings = load()
        private_places(settings)
        _log_to(settings if report_descriptor is not None else None)
        keep_freed_memory()
        logger.info("owner %s of %s, process %d", __version__, settings.data_dir, os.getpid())
        asyncio.run(_serve(settings, load, opened, report))
    except asyncio.CancelledError:
        logger.info("ended by a signal before it could serve")
    except BaseException as failure:
        known = known_failure(failure)
        report.failed(known)
        if known is None:
            logger.exception("the owner failed", exc_info=failure)
            raise
        logger.info("cannot serve: %s", known)
        raise known from (None if known is failure else failure)
    finally:
        report.close()
    logger.info("ended")


class _Report:
    """One line for the relay that waits for this process: `ready`, `owned`, or `failed` and a sentence."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def ready(self) -> None:
        self._tell("ready")

    def failed(self, failure: OrchestratorError | None) -> None:
        if isinstance(failure, OwnedError):
            self._tell("owned")
        elif failure is not None:
            self._tell(f"failed {' '.join(str(failure).split())}")

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _tell(self, line: str) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # the relay may have given up
                os.write(self._descriptor, line.encode()[:4000] + b"\n")
            self.close()


class Stop:
    """The first signal cancels the opening or the serving, and an ordered end begins; the next makes it a quick one.

    SIGHUP says two things. Where the terminal is gone at which this process was started, it is one of these signals; in
    any other case, and so where a service manager sends it, the configuration is read again.
    """

    def __init__(self) -> None:
        self.asked = False
        self.target: asyncio.Task[None] | None = None
        self.hurry: Callable[[], None] | None = None
        self.reload: Callable[[], object] | None = None
        self._terminal = _has_terminal()

    @contextlib.contextmanager
    def at_signals(self) -> Iterator[None]:
        """Signals are heeded within this block."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for number in (*_SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _hang_up(self) -> None:
        if self._terminal and not _has_terminal():
            self._stop(signal.SIGHUP)
        elif self.reload is not None and not self.asked:
            self.reload()

    def _stop(self, number: int) -> None:
        logger.info("signal %d", number)
        if not self.asked and self.target is not None:
            self.target.cancel()
        elif self.asked and self.hurry is not None:
            self.hurry()
        self.asked = True


def _has_terminal() -> bool:
    """Whether this process has a terminal that controls it; the kernel takes that away before it sends SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _serve(settings: Settings, load: Callable[[], Settings], opened: Opened, report: _Report) -> None:
    stop = Stop()
    stop.target = asyncio.current_task()
    with stop.at_signals():
        async with opened(settings) as orchestrator:
            stop.hurry = orchestrator.hurry
            stop.reload = partial(orchestrator.reloading.reload, load)
            local = orchestrator.on_behalf(LOCAL_CALLER)
            server = build_server(lambda _context: local)
            serving = asyncio.create_task(
                serve_connections(
                    {PROTOCOL: server.conversation(), ADMIN: admin_conversation(orchestrator.operations)},
                    settings.owner_socket,
                    linger=settings.owner_linger,
                    ready=report.ready,
                ),
                name="serve relays",
            )
            stop.target = serving
            try:
                await serving
            except asyncio.CancelledError:
                if not stop.asked:
                    raise
            finally:
                stop.target = None


def private_places(settings: Settings) -> None:
    """See to it that the directories are there, and this user's. Raises InvalidRequestError."""
    try:
        places.private_directory(str(settings.runtime_dir))
        places.ensure_data_directory(str(settings.data_dir))
    except places.PlaceError as failure:
        raise InvalidRequestError(failure.message, hint=failure.hint) from failure


class _OwnerLog(RotatingFileHandler):
    """The log file, which also gets what is printed: whatever file is current is standard output and error."""

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        return stream


def _log_to(settings: Settings | None) -> None:
    """To the data directory's log file, bounded in size; to standard error without settings."""
    handler: logging.Handler = logging.StreamHandler()
    if settings is not None:
        os.umask(0o077)
        handler = _OwnerLog(settings.data_dir / places.LOG_NAME, maxBytes=MAX_LOG_BYTES, backupCount=1)
    logging.basicConfig(level=logging.WARNING, format=_FORMAT, handlers=[handler])
    logging.getLogger("orchestrator").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def known_failure(failure: BaseException) -> OrchestratorError | None:
    """The first failure that we raised on purpose, be it inside of groups."""
    if isinstance(failure, OrchestratorError):
        return failure
    if isinstance(failure, BaseExceptionGroup):
        return next((known for inner in failure.exceptions if (known := known_failure(inner)) is not None), None)
    return None
