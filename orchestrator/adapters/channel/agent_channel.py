"""The host's side of sandbox-image/PROTOCOL.md: requests and replies over connections that come and go."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Self

from orchestrator.adapters.channel import replies
from orchestrator.adapters.channel.connect import connected
from orchestrator.adapters.channel.exchanges import ForgottenError, Requests
from orchestrator.adapters.channel.link import AgentLink
from orchestrator.adapters.channel.restores import RestoreStream
from orchestrator.adapters.channel.saves import SaveStream
from orchestrator.adapters.channel.transport import Connection, ContainerEndedError, Transport, TransportError
from orchestrator.domain.errors import InvalidRequestError, SandboxGoneError, SandboxLostError
from orchestrator.domain.model import CellOrder, CellReport, Namespace
from orchestrator.domain.ports import AgentHello
from orchestrator.domain.snapshots import DamagedPiece, Piece, RestoreOrder, RestoreReport, SaveOrder
from orchestrator.domain.wire import Frame, ProtocolViolationError

RECONNECT_SECONDS: Final = 10.0
MAX_CODE: Final = 4 * 1024 * 1024
# What the agent may take beyond a cell's own time: killing, collecting output, sending.
EXECUTE_MARGIN_SECONDS: Final = 10.0
CLAIM_SECONDS: Final = 10.0
LIST_SECONDS: Final = 20.0
CLEAR_SECONDS: Final = 20.0
_MOST_KEPT: Final = 1024 * 1024  # bytes that an order may ask to keep of its output, from each end

logger = logging.getLogger(__name__)


class AgentChannel:
    """The `Agent` port. All decisions are taken on the loop, in code that does not await.

    `is_running` asks the engine whether the container still runs, and may raise ContainerEndedError where the engine
    knows why not; it is asked only while there is no connection. `incarnation` is the one that has claimed the sandbox,
    0 where none has.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        is_running: Callable[[], Awaitable[bool]],
        reconnect_seconds: float = RECONNECT_SECONDS,
        incarnation: int = 0,
    ) -> None:
        self._transport = transport
        self._is_running = is_running
        self._reconnect_seconds = reconnect_seconds
        self._hello: AgentHello | None = None
        self._lost: str | None = None
        self._lost_to_memory = False
        self._link: AgentLink | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._requests = Requests(write=self._write, give_up=self._given_up)
        self._incarnation = incarnation
        self.landlock: int | None = None  # the version that locks the worker in; 0: the kernel has none; None: unknown

    @classmethod
    async def open(
        cls,
        transport: Transport,
        *,
        seconds: float,
        is_running: Callable[[], Awaitable[bool]],
        reconnect_seconds: float = RECONNECT_SECONDS,
        incarnation: int = 0,
    ) -> Self:
        """Wait for the first hello. Raises SandboxGoneError; the transport is closed then, as on cancellation."""
        channel = cls(transport, is_running=is_running, reconnect_seconds=reconnect_seconds, incarnation=incarnation)
        try:
            await channel._establish(seconds)
        except TransportError as error:
            channel._give_up_on(error)
            raise SandboxGoneError(f"The sandbox did not come up: {error}.", cause=str(error)) from error
        except BaseException:
            channel.give_up("its channel was closed")
            raise
        return channel

    @property
    def hello(self) -> AgentHello:
        """The first hello."""
        if self._hello is None:
            raise AssertionError("a channel is handed out only after its hello")
        return self._hello

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone; None while it lives."""
        return self._lost

    @property
    def lost_to_memory(self) -> bool:
        """Whether it is gone because its memory did not suffice."""
        return self._lost_to_memory

    async def claim(self, session: str, incarnation: int) -> None:
        """Bind the sandbox to a session."""
        header = {"type": "claim", "session": session, "incarnation": incarnation}
        frame = await self._ask(header, seconds=CLAIM_SECONDS)
        try:
            self.landlock = replies.landlock(frame)
        except ProtocolViolationError as violation:
            raise self._requests.broken(violation) from violation
        self._incarnation = incarnation

    async def execute(self, order: CellOrder) -> CellReport:
        """Run a cell."""
        code = order.code.encode("utf-8", "surrogatepass")
        if len(code) > MAX_CODE:
            raise InvalidRequestError(
                f"The code has {len(code)} bytes; at most {MAX_CODE} are allowed.",
                hint="Write data into a file of the workspace and read it from there.",
            )
        header = {
            "type": "execute",
            "execution": order.execution,
            "limit": order.time_limit,
            "grace": order.grace,
            "head": order.output_head,
            "tail": order.output_tail,
        }
        if order.heard is not None:
            header["told"] = True
        seconds = order.time_limit + order.grace + EXECUTE_MARGIN_SECONDS
        frame = await self._ask(header, [code], seconds=seconds, execution=order.execution, heard=order.heard)
        try:
            return replies.cell_report(frame, order)
        except ProtocolViolationError as violation:
            raise self._requests.broken(violation) from violation

    async def result(self, execution: int, *, seconds: float) -> CellReport | None:
        """The report of a cell that another host has ordered."""
        try:
            frame = await self._ask({"type": "result", "execution": execution}, seconds=seconds, execution=execution)
        except ForgottenError:
            return None
        # Who ordered it is not here to say how much of its output was to be kept.
        order = CellOrder(execution, "", seconds, 0.0, _MOST_KEPT, _MOST_KEPT)
        try:
            return replies.cell_report(frame, order)
        except ProtocolViolationError as violation:
            raise self._requests.broken(violation) from violation

    def interrupt(self, execution: int) -> None:
        """Ask for SIGINT, now and after each reconnect, as long as that execution is unanswered."""
        self._requests.interrupt(execution)

    async def list_variables(self) -> Namespace:
        """Describe the namespace."""
        frame = await self._ask({"type": "list"}, seconds=LIST_SECONDS)
        try:
            return replies.namespace(frame)
        except ProtocolViolationError as violation:
            raise self._requests.broken(violation) from violation

    async def clear(self) -> None:
        """Start from an empty namespace."""
        await self._ask({"type": "clear"}, seconds=CLEAR_SECONDS)

    async def save(self, order: SaveOrder) -> SaveStream:
        """Begin a save and wait for its moment."""
        self._require_alive()
        saving = SaveStream(self._requests, order)
        await saving.frozen()
        return saving

    async def restore(self, order: RestoreOrder, pieces: AsyncIterator[Piece | DamagedPiece]) -> RestoreReport:
        """Bring a section back."""
        self._require_alive()
        return await RestoreStream(self._requests, order).feed(pieces)

    async def close(self) -> None:
        """Let go of the connection."""
        link, reconnecting = self._link, self._reconnecting
        self.give_up("its connection was closed")
        if reconnecting is not None:
            await asyncio.wait({reconnecting}, timeout=1)
        if link is not None:
            await asyncio.wait({link.closed}, timeout=1)

    def give_up(self, reason: str) -> None:
        """The sandbox is gone for that reason: every call fails, and nothing reconnects. The first reason stays."""
        if self._lost is not None:
            return
        self._lost = reason
        self._transport.close()
        link, self._link = self._link, None
        if link is not None:
            link.drop()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        self._requests.fail(self._gone())

    def _give_up_on(self, error: TransportError) -> None:
        if self._lost is None:
            self._lost_to_memory = isinstance(error, ContainerEndedError) and error.for_memory
        self.give_up(str(error))

    # requests

    async def _ask(
        self,
        header: Mapping[str, Any],
        parts: Sequence[bytes] = (),
        *,
        seconds: float,
        execution: int | None = None,
        heard: Callable[[int, str], None] | None = None,
    ) -> Frame:
        self._require_alive()
        return await self._requests.ask(header, parts, seconds=seconds, execution=execution, heard=heard)

    def _require_alive(self) -> None:
        if self._lost is not None:
            raise self._gone()

    def _write(self, encoded: bytes) -> bool:
        link = self._link
        if link is not None:
            link.send(encoded)
        return link is not None

    def _gone(self) -> SandboxLostError:
        return SandboxLostError(f"The sandbox is gone: {self._lost}.", hint="Call again: a new sandbox will be made.")

    def _given_up(self, reason: str) -> SandboxLostError:
        self.give_up(reason)
        return self._gone()

    # connections

    def _received(self, link: AgentLink, frame: Frame) -> None:
        if link is self._link:  # else late, of an older connection
            self._requests.receive(frame)

    def _link_ended(self, link: AgentLink, violation: str | None) -> None:
        if link is not self._link:
            return
        self._link = None
        if violation is not None:
            self.give_up(f"it broke the protocol ({violation})")
        elif self._lost is None:
            self._requests.disconnected()
            self._reconnecting = asyncio.create_task(self._reconnect(), name="agent-reconnect")
            self._reconnecting.add_done_callback(self._reconnect_ended)

    async def _reconnect(self) -> None:
        try:
            await self._establish(self._reconnect_seconds)
        except TransportError as error:
            self._give_up_on(error)

    def _reconnect_ended(self, task: asyncio.Task[None]) -> None:
        if task is self._reconnecting:
            self._reconnecting = None
        if not task.cancelled() and (bug := task.exception()) is not None:
            logger.error("an agent's channel could not be kept up", exc_info=bug)
            self.give_up("its connection could not be kept up")

    async def _establish(self, seconds: float) -> None:
        connection = await connected(self._transport, seconds=seconds, is_running=self._is_running)
        try:
            await self._adopt(connection)
        except BaseException:
            connection.close()
            raise

    async def _adopt(self, connection: Connection) -> None:
        """Make it the connection; an older one is dropped, and so is what still arrives on it."""
        if self._incarnation and connection.hello.incarnation != self._incarnation:
            raise TransportError(f"its agent says that it serves incarnation {connection.hello.incarnation}")
        if self._hello is None:
            self._requests.go_on_above(connection.hello.last_request)
        link = AgentLink(
            heartbeat=connection.heartbeat,
            on_begin=self._link_began,
            on_frame=self._received,
            on_end=self._link_ended,
        )
        older, self._link = self._link, link
        if older is not None:
            older.drop()
            self._requests.disconnected()
        self._hello = self._hello or connection.hello
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=connection.sock)

    def _link_began(self, link: AgentLink) -> None:
        if link is self._link:
            self._requests.connected()
