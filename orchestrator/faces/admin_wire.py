"""The lines that an operator's client and an owner say to each other: JSON, one object a line, both ways.

Asked: `{"order": NAME, "given": {…}}`, and for an order that takes a stream `{"chunk": BASE64}` … `{"end": true}` after
it. Told: `{"answer": {…}}`, `{"progress": {…}}`, `{"chunk": BASE64}` and `{"alive": true}` in any number, then either
`{"done": true}` or `{"error": {"code", "message", "hint", "retryable"}}`.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from orchestrator.domain.errors import Code, InvalidRequestError, OrchestratorError
from orchestrator.domain.orders import MAX_CHUNK_BYTES, Answer, Progress

ADMIN: Final = ("admin", 2)  # what a greeting names
MAX_REQUEST_BYTES: Final = 1024 * 1024  # of a line that a client sends
ALIVE_SECONDS: Final = 10.0  # of silence, at most, while an order is carried out
Line = Mapping[str, Any]


class ToldError(OrchestratorError):
    """An error that an owner has told, with the code that it had there."""

    def __init__(self, code: Code, message: str, *, hint: str | None, retryable: bool) -> None:
        super().__init__(message, hint=hint)
        # Of a class elsewhere; this one stands for all of them.
        self.code = code  # type: ignore[misc]
        self.retryable = retryable  # type: ignore[misc]


def encoded(line: Line) -> bytes:
    """One line with its end."""
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def told(answer: Answer) -> Line:
    """A part of an answer as a line."""
    if isinstance(answer, Progress):
        return {"progress": asdict(answer)}
    if isinstance(answer, bytes):
        return chunk_line(answer)
    return {"answer": answer}


def told_error(error: OrchestratorError) -> Line:
    """An error as a line."""
    fields = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
    return {"error": fields}


def heard(line: Line) -> Answer | None:
    """A part of an answer out of its line; None for a sign of life. Raises ToldError where the line tells an error,
    InvalidRequestError and KeyError where it cannot be read.
    """
    if "error" in line:
        error = line["error"]
        raise ToldError(error["code"], error["message"], hint=error["hint"], retryable=error["retryable"])
    if "progress" in line:
        return Progress(**line["progress"])
    if "chunk" in line:
        return chunk_of(line)
    return None if "alive" in line else line["answer"]


def chunk_line(chunk: bytes) -> Line:
    """A piece of a stream as a line."""
    if len(chunk) > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk has {len(chunk)} bytes")
    return {"chunk": base64.b64encode(chunk).decode()}


def chunk_of(line: Line) -> bytes:
    """A piece of a stream out of its line. Raises InvalidRequestError."""
    try:
        chunk = base64.b64decode(line["chunk"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidRequestError("A piece of the stream cannot be read.") from None
    if len(chunk) > MAX_CHUNK_BYTES:
        raise InvalidRequestError(f"A piece of the stream has {len(chunk)} bytes, of at most {MAX_CHUNK_BYTES}.")
    return chunk
