"""Orders of operators over HTTP: POST /admin/v1/ORDER with a JSON object, answered in JSON lines."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, Protocol

from starlette.types import Receive, Scope, Send

from orchestrator.domain.access import Caller
from orchestrator.domain.errors import Code, InvalidRequestError, OrchestratorError
from orchestrator.domain.orders import Answer
from orchestrator.faces.admin_wire import encoded, told, told_error
from orchestrator.faces.web.answers import answer, refuse
from orchestrator.faces.web.bodies import Bodies
from orchestrator.faces.web.keys import KeyVerifier
from orchestrator.faces.web.lines import line_now
from orchestrator.faces.web.status import bearer_of

ADMIN_PATH: Final = "/admin/v1/"
Allowed = Literal["off", "read", "all"]
_STATUS: Final[Mapping[Code, int]] = {
    "invalid_request": 400,
    "forbidden": 403,
    "not_found": 404,
    "deleted": 404,
    "quota": 429,
    "busy": 503,
    "engine_unavailable": 503,
    "sandbox_lost": 503,
    "shutting_down": 503,
    "store_full": 503,
    "store_unusable": 503,
}


class Described(Protocol):
    """What is known of an order before it is given; see services/orders.py."""

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""

    @property
    def takes_stream(self) -> bool:
        """Whether a stream follows it."""


class AdminOperations(Protocol):
    """What an owner does for operators; see services/orders.py."""

    def find(self, name: str) -> Described:
        """Raises InvalidRequestError where there is none."""

    def answers(self, name: str, given: Mapping[str, object], *, by: Caller) -> AsyncGenerator[Answer, None]:
        """Carry out one order. Raises OrchestratorError."""


class AdminPages:
    """Everything beneath `/admin/v1/`. A key needs the scope `admin`; what changes something must be `allowed`."""

    def __init__(
        self, operations: AdminOperations, verifier: KeyVerifier, allowed: Allowed, *, body: int, patience: float
    ) -> None:
        self._operations = operations
        self._verifier = verifier
        self._allowed: Allowed = allowed
        self._ordered = Bodies(self._carry_out, most=body, patience=patience)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        token = bearer_of(scope)
        found = None if token is None else await self._verifier.verify_token(token)
        if found is None:
            headers = {b"www-authenticate": b'Bearer error="invalid_token"'}
            await answer(send, 401, json.dumps({"error": "invalid_token"}).encode(), headers=headers)
        elif "admin" not in found.scopes:
            await refuse(send, 403, "insufficient_scope")
        elif (refused := self._refused(scope)) is not None:
            await refuse(send, *refused)
        elif scope["method"] != "POST":
            headers = {b"allow": b"POST"}
            await answer(send, 405, json.dumps({"error": "method_not_allowed"}).encode(), headers=headers)
        else:
            await self._ordered(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        try:
            order = self._operations.find(scope["path"].removeprefix(ADMIN_PATH))
        except InvalidRequestError:
            return 404, "not_found"
        if not order.reads and self._allowed != "all":
            return 403, "only_reading_is_allowed"
        return (400, "takes_a_stream") if order.takes_stream else None

    async def _carry_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = line_now()
        if line is None or line.caller is None:
            raise LookupError("an order came without a key")
        try:
            given = _object((await receive())["body"])
        except InvalidRequestError as error:
            await answer(send, 400, encoded(told_error(error)))
            return
        name = scope["path"].removeprefix(ADMIN_PATH)
        ordered = asyncio.create_task(self._answer(name, given, line.caller, send), name=f"order {name}")
        leaving = asyncio.create_task(_left(receive), name="see an operator leave")
        try:
            await asyncio.wait((ordered, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ordered, leaving):
                task.cancel()
            await asyncio.wait((ordered, leaving))
        if not ordered.cancelled():
            ordered.result()

    async def _answer(self, name: str, given: Mapping[str, object], by: Caller, send: Send) -> None:
        begun = False
        try:
            async with aclosing(self._operations.answers(name, given, by=by)) as answers:
                async for part in answers:
                    if not begun:
                        await _begin(send, 200)
                        begun = True
                    await _say(send, encoded(told(part)))
            last = encoded({"done": True})
        except OrchestratorError as error:
            last = encoded(told_error(error))
            if not begun:
                await answer(send, _STATUS.get(error.code, 500), last)
                return
        if not begun:
            await _begin(send, 200)
        await send({"type": "http.response.body", "body": last, "more_body": False})


async def _begin(send: Send, status: int) -> None:
    headers = [(b"content-type", b"application/jsonl"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _say(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise InvalidRequestError("The body must be one JSON object: the fields of the order.")
    return given
