"""The MCP server: six tools over the sessions, for whatever transport carries them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import anyio
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from orchestrator import __version__
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.kept_results import KeptExecution
from orchestrator.domain.model import PRODUCT, ExecutionResult, Namespace, SessionSummary
from orchestrator.faces import mcp_models as models
from orchestrator.faces import mcp_results as results
from orchestrator.faces.deliveries import Deliveries, receipt_for
from orchestrator.faces.line_transport import Incoming, Outgoing, serve_lines
from orchestrator.faces.mcp_arguments import Code, Execution, IdempotencyKey, OptionalSessionId, SessionId, Timeout
from orchestrator.faces.mcp_progress import report_progress
from orchestrator.faces.owner import Conversation
from orchestrator.services.slots import Ticket

logger = logging.getLogger(__name__)

PROTOCOL = ("mcp", 1)  # what a relay's greeting names
FIRST_PROGRESS_SECONDS = 1.0
PROGRESS_SECONDS = 5.0  # many clients give up after 60 s without a sign of life
KEY_IN_META = "session-orchestrator/idempotency-key"
REPL = "python_repl"
# One client cuts long results unless a tool says that they are meant.
_RESULT_SIZE_HINT = {"anthropic/maxResultSizeChars": 200_000}

INSTRUCTIONS = """\
Runs Python in locked-down containers. Give python_repl a session_id of your choice, such as 'sales-analysis', to keep
variables, imports and files between calls; the session is made on first use. Without a session_id every call starts
from nothing and leaves nothing.
A cell behaves as in a notebook: prints and the value of the last expression come back, `await` works at top level, and
matplotlib figures come back as images. numpy, pandas, matplotlib, scipy, scikit-learn and pillow are there; there is
no network and no pip. Files belong into the working directory (/workspace).
A session is saved by itself soon after a call. It sleeps when it is idle and wakes at its next call, also after a
restart, with its variables, imports, functions and files in place: do not build up again what is still there. Not
saved are open files, connections, threads, running generators and the like, values over 10 MB or beyond 100 MB in all
(unless set otherwise), and files outside /workspace. Read the notes of an answer: they name what cannot be saved, and
what was lost or did not come back.
A failed call says what happened, whether variables were lost, and what to do next; an exception loses nothing that
was assigned before it. Calls to one session run one after another, sessions run in parallel. Delete a session with
python_delete_session when its work is done."""


class Sessions(Protocol):
    """What the tools need of the service: the sessions of whoever calls."""

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the cell's limit, which the sandbox keeps
        ticket: Ticket | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Run code; cancelling the awaiting task interrupts it. The ticket tells where it stands while it waits."""

    async def list_variables(self, session_id: str) -> Namespace:
        """What the session's namespace holds."""

    async def list_sessions(self) -> Sequence[SessionSummary]:
        """All of them, oldest first."""

    async def result(self, session_id: str, execution: int) -> KeptExecution:
        """What became of an execution."""

    async def clear(self, session_id: str) -> None:
        """Empty the session's namespace."""

    async def delete(self, session_id: str) -> None:
        """Delete the session."""


_NOBODY_LISTENS = models.Failure(code="interrupted", message="The call ended because its client had gone.")


SessionsOf = Callable[[Context], Sessions]
"""Whose sessions a call is about."""
LeftBy = Callable[[Context, bool], Awaitable[None]]
"""Returns when a call's client has been gone for so long that the call is to end; whether it is one that comes back."""
T = TypeVar("T")


async def _stays(_context: Context, _returns: bool) -> None:  # noqa: FBT001 - a callback
    """Of clients whose leaving cancels their calls by itself."""
    await anyio.sleep_forever()


def build_server(
    sessions_of: SessionsOf,
    *,
    left_by: LeftBy = _stays,
    progress_seconds: tuple[float, float] = (FIRST_PROGRESS_SECONDS, PROGRESS_SECONDS),
) -> "ToolServer":
    """The server with its six tools. Progress is sent after the first of `progress_seconds` and then each second of
    them. Any number of connections may be served at once.
    """
    server = ToolServer(
        PRODUCT, title="Python sessions", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING"
    )
    _add_repl(server, sessions_of, left_by, progress_seconds)
    _add_listings(server, sessions_of)
    _add_endings(server, sessions_of)
    return server


class ToolServer(MCPServer[Any]):
    """An MCPServer whose every failed tool call is a typed result."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; what goes wrong in it comes back as a result with `is_error`.

        Raises ToolError for an unknown tool, which is the SDK's to answer.
        """
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError as failure:
            logger.exception("%s failed", name, exc_info=failure.__cause__)
            told = models.Failure(
                code="internal",
                message="The orchestrator failed; its log has the details.",
                hint="Try once more; if it happens again, report it with the log.",
            )
        except ToolError as failure:
            if not isinstance(failure.__cause__, ValidationError):
                raise
            told = results.argument_failure(_faults(failure.__cause__))
        session_id = arguments.get("session_id")
        known = session_id if isinstance(session_id, str) and session_id else None
        return (results.code_not_run_answer if name == REPL else results.failed_answer)(told, known)

    @property
    def protocol(self) -> Server[Any]:
        """The SDK's server beneath, for transports of the SDK."""
        return self._lowlevel_server

    async def serve(self, incoming: Incoming, outgoing: Outgoing) -> None:
        """Serve one connection until its peer stops sending."""
        await self.protocol.run(incoming, outgoing, self.protocol.create_initialization_options())

    def conversation(self) -> Conversation:
        """How this server is spoken to over a byte stream."""

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with Deliveries().of_all_calls() as deliveries:
                await serve_lines(self.serve, reader, writer, deliveries)

        return converse


def _add_repl(
    server: ToolServer, sessions_of: SessionsOf, left_by: LeftBy, progress_seconds: tuple[float, float]
) -> None:
    running = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)

    @server.tool(title="Run Python", annotations=running, meta=_RESULT_SIZE_HINT)
    async def python_repl(
        code: Code,
        ctx: Context,
        session_id: OptionalSessionId = "",
        timeout: Timeout = None,  # noqa: ASYNC109
        idempotency_key: IdempotencyKey = "",
    ) -> Annotated[CallToolResult, models.ReplAnswer]:
        """Run Python code in a locked-down container and return what it printed, its value, figures and errors.

        With a session_id, variables, imports and files stay for later calls with the same id, also when the session
        was idle for long or everything was restarted in between; what cannot be saved (such as open files, threads
        and very large values) or was lost is told in `notes`. A notebook's rules hold: the last expression's value is
        returned, top-level await works. There is no network.
        """
        key = idempotency_key or _key_in_meta(ctx)
        name, ticket = session_id or None, Ticket(receipt_for(ctx.request_id))
        async with anyio.create_task_group() as beside:
            beside.start_soon(report_progress, ctx, name, ticket, progress_seconds)
            with anyio.CancelScope() as call:
                beside.start_soon(_end_with_client, left_by, ctx, key is not None, call)
                try:
                    result = await sessions_of(ctx).execute(
                        code, session_id=name, timeout=timeout, ticket=ticket, idempotency_key=key
                    )
                    answer = results.execution_answer(result)
                except OrchestratorError as failure:
                    answer = results.code_not_run_answer(results.failure_of(failure), name)
            if call.cancelled_caught:
                answer = results.code_not_run_answer(_NOBODY_LISTENS, name)
            beside.cancel_scope.cancel()
        return answer


def _key_in_meta(ctx: Context) -> str | None:
    """The same, from clients that put it beside the arguments."""
    given = (ctx.request_context.meta or {}).get(KEY_IN_META)
    return given if isinstance(given, str) and given else None


async def _end_with_client(left_by: LeftBy, ctx: Context, returns: bool, call: anyio.CancelScope) -> None:  # noqa: FBT001
    """Cancel a call that nobody waits for any more."""
    await left_by(ctx, returns)
    call.cancel()


def _add_listings(server: ToolServer, sessions_of: SessionsOf) -> None:
    reading = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @server.tool(title="List a session's variables", annotations=reading, meta=_RESULT_SIZE_HINT)
    async def python_list_variables(
        session_id: SessionId, ctx: Context
    ) -> Annotated[CallToolResult, models.VariablesAnswer]:
        """List the variables of a session with type and size in bytes, and its imported modules.

        This wakes no sleeping session and waits for no running call: the listing is then the last one known, and the
        notes say so. They also name what of the session cannot be saved, and why.
        """

        async def answer() -> CallToolResult:
            return results.variables_answer(session_id, await sessions_of(ctx).list_variables(session_id))

        return await _typed(answer, session_id)

    @server.tool(title="List sessions", annotations=reading, meta=_RESULT_SIZE_HINT)
    async def python_list_sessions(ctx: Context) -> Annotated[CallToolResult, models.SessionsAnswer]:
        """List all sessions, sleeping ones too, with their age, state, number of variables and of executions."""

        async def answer() -> CallToolResult:
            return results.sessions_answer(await sessions_of(ctx).list_sessions())

        return await _typed(answer, None)

    @server.tool(title="Pick up a result", annotations=reading, meta=_RESULT_SIZE_HINT)
    async def python_result(
        session_id: SessionId, execution: Execution, ctx: Context
    ) -> Annotated[CallToolResult, models.ReplAnswer]:
        """Return the answer of an earlier execution of a session, such as one whose connection broke.

        Nothing is run. An execution that still runs is `busy`; answers are kept for the last executions of a session.
        """
        try:
            return results.kept_answer(await sessions_of(ctx).result(session_id, execution))
        except OrchestratorError as failure:
            return results.code_not_run_answer(results.failure_of(failure), session_id)


def _add_endings(server: ToolServer, sessions_of: SessionsOf) -> None:
    ending = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

    @server.tool(title="Clear a session", annotations=ending)
    async def python_clear_session(
        session_id: SessionId, ctx: Context
    ) -> Annotated[CallToolResult, models.ClearAnswer]:
        """Remove all variables from a session for good, interrupting what runs in it; session and files stay."""

        async def answer() -> CallToolResult:
            await sessions_of(ctx).clear(session_id)
            return results.cleared_answer(session_id)

        return await _typed(answer, session_id)

    @server.tool(title="Delete a session", annotations=ending)
    async def python_delete_session(
        session_id: SessionId, ctx: Context
    ) -> Annotated[CallToolResult, models.DeleteAnswer]:
        """Delete a session for good, with its variables, files and snapshots, interrupting what runs in it."""

        async def answer() -> CallToolResult:
            await sessions_of(ctx).delete(session_id)
            return results.deleted_answer(session_id)

        return await _typed(answer, session_id)


async def _typed(answer: Callable[[], Awaitable[CallToolResult]], session_id: str | None) -> CallToolResult:
    try:
        return await answer()
    except OrchestratorError as failure:
        return results.failed_answer(results.failure_of(failure), session_id)


def _faults(failure: ValidationError) -> list[tuple[str, str]]:
    return [
        (".".join(str(part) for part in fault["loc"]), fault["msg"])
        for fault in failure.errors(include_url=False, include_input=False, include_context=False)
    ]
