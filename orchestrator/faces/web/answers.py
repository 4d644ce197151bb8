"""Short answers that are ours and not the SDK's."""

import json
from collections.abc import Mapping

from starlette.types import Send

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"


async def answer(
    send: Send, status: int, body: bytes, kind: bytes = JSON, headers: Mapping[bytes, bytes] | None = None
) -> None:
    """Send that, whole."""
    fields = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*fields, *(headers or {}).items()]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(send: Send, status: int, error: str, *, close: bool = False, retry_after: float | None = None) -> None:
    """Say no, in one word that programs can read; with `close` the connection ends as well."""
    headers = {b"connection": b"close"} if close else {}
    if retry_after is not None:
        headers[b"retry-after"] = str(max(1, round(retry_after))).encode()
    await answer(send, status, json.dumps({"error": error}).encode(), JSON, headers)
