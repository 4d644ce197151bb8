"""Requests that an agent has yet to answer: sent, sent again on a new connection, and matched with what comes."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from orchestrator.adapters.channel import replies
from orchestrator.domain import wire
from orchestrator.domain.errors import BusyError, NamespaceLostError, OrchestratorError, SandboxLostError
from orchestrator.domain.wire import Frame, ProtocolViolationError

MAX_OUTSTANDING: Final = 64
_NUMBERED_BY: Final = {
    "frozen": "save",
    "piece": "save",
    "taken": "restore",
    "output": "execute",
}  # the field, and the request's type


class ForgottenError(OrchestratorError):
    """The agent does not have the result that it was asked for."""


class Exchange(ABC):
    """A request and all that belongs to it until its reply. Its methods run on the loop and do not await."""

    def __init__(self, requests: "Requests", header: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
        """Raises ValueError where no frame holds it."""
        self.requests = requests
        self.kind = str(header["type"])
        self.number = requests.next_number()
        self.encoded = wire.encode({**header, "id": self.number}, parts)

    @abstractmethod
    def answered(self, frame: Frame) -> None:
        """The reply has come. Raises ProtocolViolationError."""

    @abstractmethod
    def failed(self, error: SandboxLostError) -> None:
        """The sandbox is gone."""

    def received(self, frame: Frame) -> None:
        """A frame came that belongs to it. Raises ProtocolViolationError."""
        raise ProtocolViolationError(f"a frame ({frame.type}) that does not belong to a request ({self.kind})")

    def sent(self) -> None:  # noqa: B027 - most have nothing to add
        """The request went out on a connection: the first one, or a new one."""

    def interrupted(self) -> None:  # noqa: B027 - most are sent again, and that is all
        """That connection is gone."""


class Call(Exchange):
    """A request whose reply is all."""

    def __init__(
        self,
        requests: "Requests",
        header: Mapping[str, Any],
        parts: Sequence[bytes],
        *,
        seconds: float,
        execution: int | None,
        heard: Callable[[int, str], None] | None = None,
    ) -> None:
        super().__init__(requests, header, parts)
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Frame] = loop.create_future()
        self.execution = execution
        self._heard = heard
        self._interrupted = False
        # Not around the caller's waiting: a cancelled caller does not end the agent's duty to answer.
        self._deadline = loop.call_later(
            seconds, requests.give_up, f"it did not answer a request ({self.kind}) in time"
        )

    def received(self, frame: Frame) -> None:
        """What the cell has written by now."""
        if self._heard is None:
            super().received(frame)
        else:
            self._heard(*replies.output_by_now(frame))

    def interrupt(self) -> None:
        """Ask for SIGINT, now and after each reconnect."""
        self._interrupted = True
        self.requests.send({"type": "interrupt", "execution": self.execution})

    def sent(self) -> None:
        """Ask again for what was asked for."""
        if self._interrupted:
            self.interrupt()

    def answered(self, frame: Frame) -> None:
        """Hand it on to who waits, if anybody does."""
        self._deadline.cancel()
        if not self.answer.done():
            self.answer.set_result(frame)

    def failed(self, error: SandboxLostError) -> None:
        """The same with the failure."""
        self._deadline.cancel()
        if not self.answer.done():
            self.answer.set_exception(error)


class Requests:
    """All that one agent has been asked. `give_up` ends the sandbox for a reason, and returns what its callers get."""

    def __init__(self, *, write: Callable[[bytes], bool], give_up: Callable[[str], SandboxLostError]) -> None:
        self.give_up = give_up
        self._write = write  # False where there is no connection
        self._last_id = 0
        self._others = 0  # ids up to this one are another host's
        self._waiting: dict[int, Exchange] = {}
        self._sent_again: set[int] = set()  # on this connection; each may be answered twice

    def broken(self, violation: ProtocolViolationError) -> SandboxLostError:
        """End the sandbox that broke the protocol."""
        return self.give_up(f"it broke the protocol ({violation})")

    async def ask(
        self,
        header: Mapping[str, Any],
        parts: Sequence[bytes] = (),
        *,
        seconds: float,
        execution: int | None = None,
        heard: Callable[[int, str], None] | None = None,
    ) -> Frame:
        """The reply to that request. Raises BusyError, NamespaceLostError, ForgottenError and SandboxLostError."""
        call = Call(self, header, parts, seconds=seconds, execution=execution, heard=heard)
        self.begin(call)
        frame = await call.answer
        try:
            refused = replies.refusal(frame)
        except ProtocolViolationError as violation:
            raise self.broken(violation) from violation
        if refused is not None:
            raise self.refused(call.kind, refused)
        return frame

    def go_on_above(self, number: int) -> None:
        """Another host's requests went up to that id; what they are answered with is none of ours."""
        self._last_id = self._others = max(self._last_id, number)

    def refused(self, kind: str, refused: replies.Refusal) -> OrchestratorError:
        """What a refusal means that no request expects."""
        code, message = refused.code, refused.message
        if (kind, code) == ("result", "forgotten"):
            return ForgottenError(f"The sandbox does not have that result: {message}.")
        if code == "lost":
            ended = f"The session's process ended: {message}."
            return NamespaceLostError(ended, cause=message, resumed=refused.resumed)
        if code == "occupied":
            return BusyError("Something is still running in the sandbox.", hint="Wait for it or interrupt it.")
        return self.give_up(f"it refused a request ({kind}: {code}, {message})")

    def next_number(self) -> int:
        """Rising through the sandbox's life."""
        self._last_id += 1
        return self._last_id

    def begin(self, exchange: Exchange) -> None:
        """Send it; without a connection, with the next one."""
        self._waiting[exchange.number] = exchange
        if len(self._waiting) > MAX_OUTSTANDING:
            self.give_up("it left too many requests unanswered")
        elif self._write(exchange.encoded):
            exchange.sent()

    def interrupt(self, execution: int) -> None:
        """Ask for SIGINT to that execution, as long as it is unanswered."""
        for exchange in list(self._waiting.values()):
            if isinstance(exchange, Call) and exchange.execution == execution:
                exchange.interrupt()

    def send(self, header: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
        """Send what nobody answers; without a connection it is dropped."""
        self._write(wire.encode(header, parts))

    def receive(self, frame: Frame) -> None:
        """Take a frame that belongs to a request. Raises ProtocolViolationError."""
        if frame.type == "reply":
            self._reply(frame)
            return
        kind = _NUMBERED_BY.get(frame.type)
        number = frame.header.get(kind) if kind is not None else None
        exchange = self._waiting.get(number) if type(number) is int else None
        if kind == "execute" and type(number) is int and number <= self._others:
            return  # of a cell that another host has ordered
        if exchange is None or exchange.kind != kind:
            raise ProtocolViolationError(f"a frame ({frame.type}) that nobody asked for")
        exchange.received(frame)

    def _reply(self, frame: Frame) -> None:
        number = frame.header.get("id")
        exchange = self._waiting.pop(number, None) if type(number) is int else None
        if exchange is not None:
            try:
                exchange.answered(frame)
            except ProtocolViolationError as violation:
                exchange.failed(self.broken(violation))  # it is not among those that fail with the sandbox any more
        elif type(number) is int and number in self._sent_again:
            # It was done just as we asked again: the answer of itself, and the one to the repetition.
            self._sent_again.discard(number)
        elif type(number) is not int or number > self._others:
            raise ProtocolViolationError("a reply to a request that nobody made")

    def connected(self) -> None:
        """There is a new connection, on which nothing has arrived yet: what is asked again may be answered twice."""
        self._sent_again = set(self._waiting)
        for exchange in list(self._waiting.values()):
            self._write(exchange.encoded)
            exchange.sent()

    def disconnected(self) -> None:
        """The connection is gone, and another one may come."""
        for exchange in list(self._waiting.values()):
            exchange.interrupted()

    def fail(self, error: SandboxLostError) -> None:
        """The sandbox is gone."""
        waiting, self._waiting = self._waiting, {}
        for exchange in waiting.values():
            exchange.failed(error)
