"""An owner process with sessions that only pretend: everything of the real one but the sandboxes.

Run as a program it is what a relay starts; imported, it lends its sessions to tests in the same process.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator import __version__
from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.errors import BusyError, InvalidRequestError, OrchestratorError, SessionNotFoundError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.kept_results import KeptExecution
from orchestrator.domain.model import (
    CellError,
    Display,
    Ending,
    ExecutionResult,
    Namespace,
    SessionState,
    SessionSummary,
    Variable,
)
from orchestrator.domain.orders import Answer
from orchestrator.owner_process import run_owner
from orchestrator.services.slots import Ticket
from orchestrator.settings import Settings

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x10\x00\x00\x00\x10"
SECRET = "swordfish"  # noqa: S105 - what no client may see


def answered(code: str, session_id: str | None, **fields: object) -> ExecutionResult:
    """A result whose output is the code."""
    base = ExecutionResult(
        status="ok",
        output=code,
        truncated=False,
        output_bytes=len(code.encode("utf-8", "replace")),
        value=None,
        displays=(),
        error=None,
        execution=None if session_id is None else 1,
        duration_ms=1.25,
        session_id=session_id,
        bound=(),
        removed=(),
        saved_through=None,
        resumed_from=None,
        memory_peak=0,
        notes=(),
    )
    return ExecutionResult(**{**{name: getattr(base, name) for name in base.__slots__}, **fields})


@dataclass
class FakeSessions:
    """Sessions without sandboxes. `code` is an order, such as `sleep 5`, `wait 5` (for a sandbox, as number 3 in line),
    `raise`, `figures 3`, `crash`, `busy`, or an echo.

    What happens is appended to `events`, a file, so that a test sees it from another process.
    """

    events: Path
    known: dict[str, int]

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the service's signature
        ticket: Ticket | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Follow the order in `code`."""
        if session_id is not None:
            session_id = session_id_of(session_id)
            self.known[session_id] = self.known.get(session_id, 0) + 1
        if any("\ud800" <= character <= "\udfff" for character in code):
            raise InvalidRequestError("The code has a lone surrogate.", hint="Send valid Unicode.")
        order, _, argument = code.partition(" ")
        if order == "wait" and ticket is not None:
            ticket.waits(lambda: 3, lambda: None)
        if order in {"sleep", "wait"}:
            await self._sleep(float(argument), session_id)
        if order == "arguments":
            value = json.dumps({"session_id": session_id, "timeout": timeout, "key": idempotency_key})
            return answered(code, session_id, value=value)
        return _obeyed(order, argument, code, session_id)

    async def list_variables(self, session_id: str) -> Namespace:
        """Two variables and a module."""
        self._find(session_id)
        return Namespace(
            variables=(Variable("x", "int", 28), Variable("y", "str", None)), imports=(Variable("np", "module", None),)
        )

    async def list_sessions(self) -> Sequence[SessionSummary]:
        """Whatever `execute` has seen."""
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        later = moment + timedelta(days=30)
        return [
            SessionSummary(name, moment, 2, runs, SessionState.READY, moment, runs - 1 or None, expires_at=later)
            for name, runs in self.known.items()
        ]

    async def result(self, session_id: str, execution: int) -> KeptExecution:
        """Of the first execution; the second one runs, and the third was long ago."""
        self._find(session_id)
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        outcome: Ending | None = None if execution == 2 else "ok"
        kept = answered("kept", session_id, execution=1) if execution == 1 else None
        return KeptExecution(session_id, execution, outcome, moment, moment, kept)

    async def clear(self, session_id: str) -> None:
        """Note it."""
        self._find(session_id)
        self.note(f"cleared {session_id}")

    async def delete(self, session_id: str) -> None:
        """Forget it."""
        self._find(session_id)
        del self.known[session_id]

    async def _sleep(self, seconds: float, session_id: str | None) -> None:
        self.note(f"started {session_id}")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.note(f"cancelled {session_id}")
            raise

    def _find(self, session_id: str) -> None:
        if session_id_of(session_id) not in self.known:
            raise SessionNotFoundError(f"There is no session {session_id!r}.", hint="List the sessions.")

    def note(self, event: str) -> None:
        """Write it down."""
        with self.events.open("a") as file:
            file.write(event + "\n")


def _obeyed(order: str, argument: str, code: str, session_id: str | None) -> ExecutionResult:
    if order == "crash":
        raise RuntimeError(SECRET)
    if order == "busy":
        raise BusyError("The queue is full.", hint="Wait a moment.")
    if order == "raise":
        error = CellError("exception", "ValueError", "wrong", "Traceback …\nValueError: wrong", "Mend the code.")
        return answered("", session_id, status="error", error=error)
    if order == "figures":
        return answered(code, session_id, displays=(Display("image/png", PNG),) * int(argument))
    if order == "flood":
        return answered("y" * int(argument), session_id)
    return answered(code, session_id)


@dataclass(frozen=True)
class FakeOrder:
    """What is known of an order before it is given."""

    reads: bool
    takes_stream: bool = False


class FakeOperations:
    """Answers an order with itself."""

    def find(self, name: str) -> FakeOrder:
        """Each is known but one, and those that begin so read."""
        if name == "unknown":
            raise InvalidRequestError("There is no such order.")
        return FakeOrder(name.startswith(("read", "refuse")), name == "reads a stream")

    async def answers(
        self,
        name: str,
        given: Mapping[str, object],
        *,
        by: Caller = LOCAL_CALLER,
        chunks: AsyncIterator[bytes] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """What was asked."""
        del chunks, by
        if name == "refuse":
            raise InvalidRequestError("It is refused.", hint="Ask for something else.")
        yield {"order": name, **given}


class FakeReloading:
    """Reads settings, and writes down that it did."""

    def __init__(self, sessions: FakeSessions) -> None:
        self._note = sessions.note

    def reload(self, load: Callable[[], Settings]) -> Settings:
        """As the real one, but for what counts then."""
        self._note("reloaded")
        return load()


@dataclass
class _Opened:
    sessions: FakeSessions
    operations: FakeOperations
    hurried: asyncio.Event

    @property
    def reloading(self) -> FakeReloading:
        """Of this one."""
        return FakeReloading(self.sessions)

    def on_behalf(self, _caller: Caller) -> FakeSessions:
        """The same for everybody."""
        return self.sessions

    def hurry(self) -> None:
        """As an end with nothing to do."""
        self.hurried.set()


@asynccontextmanager
async def opened(settings: Settings, events: Path) -> AsyncIterator[_Opened]:
    """What `Orchestrator.open` is to the real owner. With a file `slow` beside the events, its end takes a minute."""
    directory = DataDirectory.own(settings.data_dir, kind="owner", version=__version__, socket=settings.owner_socket)
    sessions = FakeSessions(events, {})
    sessions.note("opened")
    orchestrator = _Opened(sessions, FakeOperations(), asyncio.Event())
    try:
        yield orchestrator
    finally:
        if events.with_name("slow").exists():
            sessions.note("closing")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(orchestrator.hurried.wait(), 60)
        sessions.note("closed")
        directory.release()


def main() -> None:
    """Be the owner. `--fail SENTENCE` fails instead, as an engine that is absent would make it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--report-descriptor", type=int)
    parser.add_argument("--fail")
    options = parser.parse_args()

    @asynccontextmanager
    async def open_fake(settings: Settings) -> AsyncIterator[_Opened]:
        if options.fail:
            raise InvalidRequestError(options.fail)
        async with opened(settings, settings.data_dir.parent / "events") as orchestrator:
            yield orchestrator

    try:
        run_owner(
            lambda: Settings.load(data_dir=options.data_dir), open_fake, report_descriptor=options.report_descriptor
        )
    except OrchestratorError as failure:
        raise SystemExit(str(failure)) from failure


if __name__ == "__main__":
    main()
