"""Calls that may be made again: by their key, and what is known of the first one. Pure, but for the port."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from orchestrator.domain.errors import InvalidRequestError

MOST_CHARACTERS: Final = 256
KEPT_OF_A_SESSION: Final = 1000  # calls with a key that a session remembers


@dataclass(frozen=True, slots=True)
class Repeat:
    """A call with an idempotency key, within its tenant and its session's name."""

    key: str  # SHA-256 of the caller's key
    request: str  # SHA-256 of what is asked for


@dataclass(frozen=True, slots=True)
class FirstCall:
    """The call that had the key first."""

    request: str
    session: str  # internal key: the name may be another session's by now
    execution: int


def repeat_of(key: str, code: str, time_limit: float | None) -> Repeat:
    """Raises InvalidRequestError for what is no key."""
    if not key.strip() or len(key) > MOST_CHARACTERS:
        raise InvalidRequestError(
            f"The idempotency key has {len(key)} characters; it needs 1 to {MOST_CHARACTERS}.",
            hint="Use a UUID that is new for each call, and the same when a call is made again.",
        )
    return Repeat(_digest(key), _digest(f"{time_limit!r}\n{code}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class RepeatRecords(Protocol):
    """Rules as for `Records`. What a key stands for is noted by `Records.open_execution`, before anything runs."""

    async def first_call(self, tenant: str, session_id: str, key: str) -> FirstCall | None:
        """What that key was used for; None where it was not, or its cell is known never to have begun."""

    async def forget_calls(self, before: datetime) -> None:
        """Forget keys that were used before."""
