"""What a call may ask for, and the answers to what it may not. Pure."""

import math
import re

from orchestrator.domain.errors import InvalidRequestError, SessionNotFoundError, ShuttingDownError
from orchestrator.services.equipment import Limits

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def check_code(code: str, limits: Limits) -> None:
    """Raises InvalidRequestError for what is no code that could be run."""
    if not code.strip():
        raise InvalidRequestError("The code is empty.", hint="Give at least one statement.")
    wrong = _NOT_TEXT.search(code)
    if wrong is not None:
        line = code.count("\n", 0, wrong.start()) + 1
        what = "a null byte" if wrong[0] == "\0" else f"a lone surrogate (U+{ord(wrong[0]):04X})"
        raise InvalidRequestError(
            f"The code has {what} in line {line}.", hint="Write it as an escape, such as \\x00, in a string."
        )
    size = len(code.encode("utf-8", "surrogatepass"))
    if size > limits.max_code:
        raise InvalidRequestError(
            f"The code has {size:,} bytes; at most {limits.max_code:,} are allowed.",
            hint="Write data to a file in several cells and read it from there.",
        )


def time_limit_of(timeout: float | None, limits: Limits) -> float:
    """Seconds that the cell may run. Raises InvalidRequestError."""
    if timeout is None:
        return limits.time_limit
    if not math.isfinite(timeout) or not 0 < timeout <= limits.max_time_limit:
        raise InvalidRequestError(
            f"The timeout is {timeout:g} s; it must be above 0 and at most {limits.max_time_limit:g} s.",
            hint="Leave it out for the default.",
        )
    return timeout


def not_found(session_id: str) -> SessionNotFoundError:
    """The one answer for a session that is absent, or another tenant's."""
    return SessionNotFoundError(
        f"There is no session {session_id!r}.",
        hint="List the sessions to see which there are; running code in a session creates it.",
    )


def shutting_down() -> ShuttingDownError:
    """The answer while everything ends."""
    return ShuttingDownError("The orchestrator is stopping.", hint="Call again when it runs.")
