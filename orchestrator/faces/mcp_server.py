"""The MCP server: five tools over the sessions, for whatever transport carries them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import BeforeValidator, Field, ValidationError

from orchestrator import __version__
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.model import LOCAL_TENANT, PRODUCT, ExecutionResult, Namespace, SessionSummary
from orchestrator.faces import mcp_models as models
from orchestrator.faces import mcp_results as results
from orchestrator.faces.line_transport import Incoming, Outgoing, serve_lines
from orchestrator.faces.owner import Conversation
from orchestrator.services.slots import Ticket

logger = logging.getLogger(__name__)

PROTOCOL = ("mcp", 1)  # what a relay's greeting names
FIRST_PROGRESS_SECONDS = 1.0
PROGRESS_SECONDS = 5.0  # many clients give up after 60 s without a sign of life
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
    """What the tools need of the service."""

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the cell's limit, which the sandbox keeps
        tenant: str = LOCAL_TENANT,
        ticket: Ticket | None = None,
    ) -> ExecutionResult:
        """Run code; cancelling the awaiting task interrupts it. The ticket tells where it stands while it waits."""

    async def list_variables(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> Namespace:
        """What the session's namespace holds."""

    async def list_sessions(self, *, tenant: str = LOCAL_TENANT) -> Sequence[SessionSummary]:
        """The tenant's sessions, oldest first."""

    async def clear(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> None:
        """Empty the session's namespace."""

    async def delete(self, session_id: str, *, tenant: str = LOCAL_TENANT) -> None:
        """Delete the session."""


def _absent_as_empty(value: object) -> object:
    return "" if value is None else value


def _number_or_none(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number of seconds is wanted")  # noqa: TRY004 - pydantic reports ValueErrors only
    return None if isinstance(value, str) and value.strip().lower() in ("", "null", "none") else value


# Annotated exactly `str` beneath: the SDK would parse other strings as JSON first, and take "[1]" and "null" for
# something else than session ids, or code for an object.
OptionalSessionId = Annotated[
    str,
    BeforeValidator(_absent_as_empty),
    Field(
        description="The session to run in, named as you like (1 to 128 characters); made on first use. "
        "Leave it out for a stateless call, which starts from nothing and keeps nothing."
    ),
]
SessionId = Annotated[str, Field(description="The session's name, as given to python_repl.")]
Code = Annotated[
    str,
    Field(description="Python source, one or more statements. The value of a final expression is returned."),
]
Timeout = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | None,
    BeforeValidator(_number_or_none),
    Field(description="Seconds that the code may run, at most 3600. Default: 60."),
]
TenantOf = Callable[[Context], str]
T = TypeVar("T")


def build_server(
    sessions: Sessions,
    *,
    tenant_of: TenantOf = lambda _context: LOCAL_TENANT,
    progress_seconds: tuple[float, float] = (FIRST_PROGRESS_SECONDS, PROGRESS_SECONDS),
) -> "ToolServer":
    """The server with its five tools. `tenant_of` tells who calls; progress is sent after the first of
    `progress_seconds` and then each second of them. Any number of connections may be served at once.
    """
    server = ToolServer(
        PRODUCT, title="Python sessions", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING"
    )
    _add_repl(server, sessions, tenant_of, progress_seconds)
    _add_listings(server, sessions, tenant_of)
    _add_endings(server, sessions, tenant_of)
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

    async def serve(self, incoming: Incoming, outgoing: Outgoing) -> None:
        """Serve one connection until its peer stops sending."""
        server = self._lowlevel_server
        await server.run(incoming, outgoing, server.create_initialization_options())

    def conversation(self) -> Conversation:
        """How this server is spoken to over a byte stream."""

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve_lines(self.serve, reader, writer)

        return converse


def _add_repl(
    server: ToolServer, sessions: Sessions, tenant_of: TenantOf, progress_seconds: tuple[float, float]
) -> None:
    @server.tool(
        title="Run Python",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
        ),
        meta=_RESULT_SIZE_HINT,
    )
    async def python_repl(
        code: Code,
        ctx: Context,
        session_id: OptionalSessionId = "",
        timeout: Timeout = None,  # noqa: ASYNC109
    ) -> Annotated[CallToolResult, models.ReplAnswer]:
        """Run Python code in a locked-down container and return what it printed, its value, figures and errors.

        With a session_id, variables, imports and files stay for later calls with the same id, also when the session
        was idle for long or everything was restarted in between; what cannot be saved (such as open files, threads
        and very large values) or was lost is told in `notes`. A notebook's rules hold: the last expression's value is
        returned, top-level await works. There is no network.
        """
        name, ticket = session_id or None, Ticket()
        async with anyio.create_task_group() as beside:
            beside.start_soon(_report_progress, ctx, name, ticket, progress_seconds)
            try:
                result = await sessions.execute(
                    code, session_id=name, timeout=timeout, tenant=tenant_of(ctx), ticket=ticket
                )
                answer = results.execution_answer(result)
            except OrchestratorError as failure:
                answer = results.code_not_run_answer(results.failure_of(failure), name)
            beside.cancel_scope.cancel()
        return answer


def _add_listings(server: ToolServer, sessions: Sessions, tenant_of: TenantOf) -> None:
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
            return results.variables_answer(
                session_id, await sessions.list_variables(session_id, tenant=tenant_of(ctx))
            )

        return await _typed(answer, session_id)

    @server.tool(title="List sessions", annotations=reading, meta=_RESULT_SIZE_HINT)
    async def python_list_sessions(ctx: Context) -> Annotated[CallToolResult, models.SessionsAnswer]:
        """List all sessions, sleeping ones too, with their age, state, number of variables and of executions."""

        async def answer() -> CallToolResult:
            return results.sessions_answer(await sessions.list_sessions(tenant=tenant_of(ctx)))

        return await _typed(answer, None)


def _add_endings(server: ToolServer, sessions: Sessions, tenant_of: TenantOf) -> None:
    ending = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

    @server.tool(title="Clear a session", annotations=ending)
    async def python_clear_session(
        session_id: SessionId, ctx: Context
    ) -> Annotated[CallToolResult, models.ClearAnswer]:
        """Remove all variables from a session for good, interrupting what runs in it; session and files stay."""

        async def answer() -> CallToolResult:
            await sessions.clear(session_id, tenant=tenant_of(ctx))
            return results.cleared_answer(session_id)

        return await _typed(answer, session_id)

    @server.tool(title="Delete a session", annotations=ending)
    async def python_delete_session(
        session_id: SessionId, ctx: Context
    ) -> Annotated[CallToolResult, models.DeleteAnswer]:
        """Delete a session for good, with its variables, files and snapshots, interrupting what runs in it."""

        async def answer() -> CallToolResult:
            await sessions.delete(session_id, tenant=tenant_of(ctx))
            return results.deleted_answer(session_id)

        return await _typed(answer, session_id)


async def _typed(answer: Callable[[], Awaitable[CallToolResult]], session_id: str | None) -> CallToolResult:
    try:
        return await answer()
    except OrchestratorError as failure:
        return results.failed_answer(results.failure_of(failure), session_id)


async def _report_progress(ctx: Context, session_id: str | None, ticket: Ticket, seconds: tuple[float, float]) -> None:
    """Tell the client that the call goes on, and what it waits for. A client that does not read stalls this task and
    not the call.
    """
    first, interval = seconds
    began = anyio.current_time()
    where = f"session {session_id!r}" if session_id else "a stateless call"
    pause = first
    while True:
        await anyio.sleep(pause)
        elapsed = anyio.current_time() - began
        place = ticket.place
        waiting = "" if place is None else f", waiting for a sandbox: number {place} in line"
        await ctx.report_progress(elapsed, None, f"{elapsed:.0f} s in {where}{waiting}")
        pause = interval


def _faults(failure: ValidationError) -> list[tuple[str, str]]:
    return [
        (".".join(str(part) for part in fault["loc"]), fault["msg"])
        for fault in failure.errors(include_url=False, include_input=False, include_context=False)
    ]
